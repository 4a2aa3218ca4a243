"""Clipped sums of per-unit gradients against one backward pass a unit, and the modules that are refused."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.errors import PrivacyConfigError
from common.privacy import table_gradients
from common.privacy._opacus import UnitGradients
from common.units import Units

from ._toy import CLIP, DOMAIN, FAMILY, ROWS, Toy, joined, loaded_toy, units_of

UNITS = units_of([5, 6, 7, 5, 5], [8, 9], [], [10, 10, 10, 10], [11, 5, 39])


def oracle_sum(batch: Mapping[str, torch.Tensor], clip: float, *, joint: bool = True) -> dict[str, torch.Tensor]:
    """One ordinary backward pass a unit; ``joint=False`` is the classic mistake of clipping every array by itself."""
    total: dict[str, torch.Tensor] = {}
    for unit in range(len(batch["mask"])):
        module = loaded_toy()
        FAMILY.loss(module, {k: t[unit : unit + 1] for k, t in batch.items()}).sum().backward()
        grads = {n: p.grad.double() for n, p in module.named_parameters()}
        norm = math.sqrt(sum(float(g.square().sum()) for g in grads.values()))
        if not math.isfinite(norm):
            continue
        for name, grad in grads.items():
            size = norm if joint else float(grad.norm())
            total[name] = total.get(name, 0) + grad * min(1.0, clip / max(size, 1e-300))
    return total


def batch_of(units: Units, seed: int = 0) -> Mapping[str, torch.Tensor]:
    return FAMILY.batch(units, DOMAIN, None, np.random.default_rng(seed))


def largest_difference(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@settings(max_examples=20, deadline=None)
@given(
    units=st.lists(st.lists(st.integers(0, ROWS - 1), max_size=6), min_size=1, max_size=5),
    clip=st.sampled_from([0.01, 0.5, 100.0]),
)
def test_clipped_sum_equals_one_backward_pass_a_unit(units: list[list[int]], clip: float) -> None:
    batch = batch_of(units_of(*units))
    found = UnitGradients(loaded_toy()).clipped_sum(FAMILY.loss, batch, clip)
    assert largest_difference(found, oracle_sum(batch, clip)) < 1e-6


def test_clipping_array_by_array_is_noticed() -> None:
    batch = batch_of(UNITS)
    found = UnitGradients(loaded_toy()).clipped_sum(FAMILY.loss, batch, CLIP)
    assert largest_difference(found, oracle_sum(batch, CLIP, joint=False)) > 0.05


def test_gathered_rows_equal_plain_opacus() -> None:
    batch = batch_of(UNITS)
    gathered = UnitGradients(loaded_toy()).clipped_sum(FAMILY.loss, batch, CLIP)
    dense = UnitGradients(loaded_toy(), gather=False).clipped_sum(FAMILY.loss, batch, CLIP)
    assert largest_difference(gathered, dense) < 1e-6


@pytest.mark.parametrize("budget", [1, 2000, 2**28])
def test_pieces_of_a_batch_equal_the_whole(budget: int) -> None:
    batch = batch_of(UNITS)
    engine = UnitGradients(loaded_toy(), max_gradient_bytes=budget)
    assert largest_difference(engine.clipped_sum(FAMILY.loss, batch, CLIP), oracle_sum(batch, CLIP)) < 1e-6


def unit_norm(units: Units, clip: float) -> float:
    found = UnitGradients(loaded_toy()).clipped_sum(FAMILY.loss, batch_of(units), clip)
    return math.sqrt(sum(float(g.square().sum()) for g in found.values()))


@pytest.mark.parametrize("scale", [1.0, 1e8, 1e30])
@pytest.mark.parametrize("rows", [[5], [5] * 30, list(range(ROWS)), [3, 3, 4, 4]])
def test_one_unit_never_exceeds_the_clip(rows: list[int], scale: float) -> None:
    assert unit_norm(units_of(rows, scale=scale), 0.01) == pytest.approx(0.01, rel=1e-6)


def test_repeated_rows_are_summed_before_the_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    units = units_of([5] * 30)
    honest = unit_norm(units, 0.01)

    monkeypatch.setattr(table_gradients, "_repeats_summed", lambda found: found)
    assert honest <= 0.01 * (1 + 1e-6)
    assert unit_norm(units, 0.01) > 0.02


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 3e38])
def test_a_unit_with_a_bad_gradient_contributes_nothing(bad: float) -> None:
    good = units_of([5, 6], [7])
    broken = joined(good, units_of([8, 8, 8], scale=bad))
    found = UnitGradients(loaded_toy()).clipped_sum(FAMILY.loss, batch_of(broken), CLIP)
    values = torch.cat([g.flatten() for g in found.values()])
    assert bool(torch.isfinite(values).all())
    if not math.isfinite(bad):
        batch = {k: t[:2] for k, t in batch_of(broken).items()}
        assert largest_difference(found, oracle_sum(batch, CLIP)) < 1e-6


def test_padding_contributes_nothing() -> None:
    short = batch_of(units_of([5, 6], [7]))
    long = batch_of(units_of([5, 6], [7], [1] * 9))
    engine = UnitGradients(loaded_toy())
    negatives = "rows.context.weight/negatives"
    long = {k: t[:2] for k, t in long.items()} | {negatives: short[negatives]}
    assert long["mask"].shape[1] > short["mask"].shape[1]
    first = engine.clipped_sum(FAMILY.loss, short, CLIP)
    assert largest_difference(first, engine.clipped_sum(FAMILY.loss, long, CLIP)) < 1e-7


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm1d(4),
        nn.Embedding(4, 2, max_norm=1.0),
        nn.Embedding(4, 2, scale_grad_by_freq=True),
        nn.Embedding(4, 2, sparse=True),
        nn.Embedding(4, 2, padding_idx=0),
        nn.EmbeddingBag(4, 2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_modules_without_per_unit_gradients_are_refused(layer: nn.Module) -> None:
    with pytest.raises(PrivacyConfigError, match="per-unit gradient"):
        UnitGradients(nn.Sequential(nn.Linear(2, 2), layer))


def test_tied_tables_are_refused() -> None:
    module = Toy(4)
    module.context.weight = module.centre.weight
    with pytest.raises(PrivacyConfigError, match="share one weight"):
        UnitGradients(module)
