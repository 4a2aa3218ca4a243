"""Example mode gone wrong: a client's own private training."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from common.privacy import _opacus, dpsgd, example_update
from simulations.mutants import Mutant, instead_of

_train, _draw = dpsgd.train_example_mode, dpsgd._draw_batches
_untouched = example_update._rows_of_noise


def _realised_divisor(family: Any, parameters: Any, units: Any, *rest: Any, training: Any, **given: Any) -> Any:
    """Divides by the expected batch of the units that there are."""
    size = max(1, int(units.count * given["plan"].unit_rate))
    return _train(family, parameters, units, *rest, training=dataclasses.replace(training, batch_size=size), **given)


def _shuffled_batches(family: Any, units: Any, domain: Any, options: Any, *, plan: Any, source: Any) -> Any:
    """Batches of a fixed size."""
    for step in range(plan.local_steps):
        keys = source.derive("sample", step).uniform(units.count)
        chosen = np.sort(np.argsort(keys)[: round(units.count * plan.unit_rate)])
        yield family.batch(units.take(chosen), domain, options, np.random.default_rng(step)) if len(chosen) else None


def _everyone(family: Any, units: Any, domain: Any, options: Any, *, plan: Any, source: Any) -> Any:
    whole = dataclasses.replace(plan, unit_rate=1.0)
    return _draw(family, units, domain, options, plan=whole, source=source)


def _nothing_untouched(source: Any, spec: Any, *, factor: float, stddev: float) -> Any:
    return np.zeros(spec.shape, dtype=np.float32)


def _one_step_untouched(source: Any, spec: Any, *, factor: float, stddev: float) -> Any:
    """Rows that are not read get the noise of one of the three steps."""
    return _untouched(source, spec, factor=factor, stddev=stddev / 3**0.5)


def _off_grid(values: Any, stddev: float) -> Any:
    return values.astype(np.float32)


def _no_clip(squares: torch.Tensor, bound: float) -> torch.Tensor:
    return torch.where(torch.isfinite(squares), torch.ones_like(squares), torch.zeros_like(squares))


def _nan_passes(squares: torch.Tensor, bound: float) -> torch.Tensor:
    return (bound / squares.sqrt().clamp(min=1e-300)).clamp(max=1.0)


MUTANTS = (
    Mutant(
        "example mode divides by the units there are",
        "example_cardinality",
        replacing=instead_of(dpsgd, "train_example_mode", _realised_divisor),
    ),
    Mutant(
        "local batches of a fixed size",
        "example_sampler",
        replacing=instead_of(dpsgd, "_draw_batches", _shuffled_batches),
    ),
    Mutant(
        "every unit in every step, sold as sampled",
        "example_sampler",
        replacing=instead_of(dpsgd, "_draw_batches", _everyone),
    ),
    Mutant(
        "rows that no unit touches without noise",
        "example_whiteness",
        replacing=instead_of(example_update, "_rows_of_noise", _nothing_untouched),
    ),
    Mutant(
        "noise of one step on rows that no unit touches",
        "example_noise",
        replacing=instead_of(example_update, "_rows_of_noise", _one_step_untouched),
    ),
    Mutant(
        "low-order bits that tell who trained a row",
        "example_whiteness",
        replacing=instead_of(example_update, "_on_grid", _off_grid),
    ),
    Mutant(
        "example mode without a clip", "example_sensitivity", replacing=instead_of(_opacus, "clip_factors", _no_clip)
    ),
    Mutant(
        "NaN passes the clip of example mode",
        "example_sensitivity",
        replacing=instead_of(_opacus, "clip_factors", _nan_passes),
    ),
)
