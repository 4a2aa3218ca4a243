"""What a family's torch module, batch and loss must keep, as checks that raise AssertionError."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from common.compact import ROW_PREFIX, holds_rows, renumbered, touched_rows
from common.config import FederationConfig, PrivacyConfig, TrainingConfig
from common.families import LocalTraining
from common.privacy._opacus import UnitGradients
from common.privacy.dpsgd import train_example_mode
from common.privacy.plan import make_plan
from common.privacy.rng import NoiseSource
from common.units import Units

from ._family_arrays import TOLERANCE, contribution, well_formed
from ._family_cases import Case


def check_module(case: Case) -> None:
    module = case.family.module(case.options, case.rows)
    held = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    assert held == {spec.name: spec.shape for spec in case.specs}


def check_batch(case: Case) -> None:
    units, tables = _few(case), tuple(spec.name for spec in case.specs if spec.is_table)
    batch, again = (_batch(case, units, seed=2) for _ in range(2))
    assert all(torch.equal(batch[key], again[key]) for key in batch)
    assert all(len(tensor) == units.count for tensor in batch.values())
    for key in filter(holds_rows, batch):
        assert batch[key].dtype == torch.int64 and key.startswith(tuple(ROW_PREFIX + name for name in tables))
        assert bool(((batch[key] >= 0) & (batch[key] < case.rows)).all())


def check_loss(case: Case) -> None:
    units, module = _few(case), _loaded(case)
    batch = _batch(case, units)
    losses = case.family.loss(module, batch)
    assert losses.shape == (units.count,) and bool(torch.isfinite(losses).all())
    alone = torch.cat([case.family.loss(module, _part(batch, unit)) for unit in range(units.count)])
    assert torch.allclose(losses, alone, atol=TOLERANCE)
    turned = case.family.loss(module, {key: tensor.flip(0) for key, tensor in batch.items()})
    assert torch.allclose(losses, turned.flip(0), atol=TOLERANCE)
    if case.domain is not None:
        empty = _batch(case, case.encode(case.weird[1]))
        assert float(case.family.loss(module, empty).abs().sum().detach()) == 0.0


def check_compact_module(case: Case) -> None:
    """On the table of touched rows alone, renumbered, the losses are the same."""
    batch = _batch(case, _few(case))
    if not any(map(holds_rows, batch)):
        assert case.domain is None
        return
    kept = touched_rows([batch], rows=case.rows)
    assert len(kept) < case.rows
    small = _loaded(case, kept)
    assert torch.allclose(
        case.family.loss(_loaded(case), batch), case.family.loss(small, renumbered(batch, kept)), atol=TOLERANCE
    )


def check_unit_gradients(case: Case) -> None:
    """Example mode's clipped sum is that of one ordinary backward pass a unit."""
    batch = _batch(case, _few(case))
    expected = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in _loaded(case).named_parameters()}
    clip = 0.05
    for unit in range(len(next(iter(batch.values())))):
        module = _loaded(case)
        case.family.loss(module, _part(batch, unit)).sum().backward()
        grads = {name: p.grad.double() for name, p in module.named_parameters() if p.grad is not None}
        norm = math.sqrt(sum(float(g.square().sum()) for g in grads.values()))
        for name, grad in grads.items():
            expected[name] += grad * min(1.0, clip / max(norm, 1e-12))
    found = UnitGradients(_loaded(case)).clipped_sum(case.family.loss, batch, clip)
    assert any(float(array.abs().max()) > 0 for array in expected.values())
    for name, array in expected.items():
        assert torch.allclose(found[name], array, atol=TOLERANCE)


def check_example_mode(case: Case) -> None:
    """Private steps through the whole path: every coordinate is noised, also for clients without known records."""
    chances = TrainingConfig(local_steps=3, unit_rate=0.5, batch_size=8, lr=0.1)
    privacy = PrivacyConfig(mode="example", noise_multiplier=1.0, l2_clip_norm=1.0, test_mode=True)
    plan = make_plan(privacy, FederationConfig(), chances, unit="record", additive=False, natural_clip=None)
    steps = LocalTraining(local_steps=3, local_epochs=1, batch_size=8, lr=0.1)
    state = torch.get_rng_state()
    for units in (case.clients[0], case.encode(()), case.encode(case.weird[1])):
        update = train_example_mode(
            case.family,
            case.initial(),
            units,
            case.domain,
            case.options,
            plan=plan,
            training=steps,
            source=NoiseSource.seeded_for_tests(4),
        )
        well_formed(update, case.specs, 1)
        for array in contribution(update, 0, case.specs).values():
            assert float((array == 0).mean()) < 0.01
    assert torch.equal(state, torch.get_rng_state())


def _few(case: Case) -> Units:
    return case.everyone.take(np.array([0, 3, 4, case.everyone.count - 1]))


def _batch(case: Case, units: Units, *, seed: int = 0) -> Mapping[str, torch.Tensor]:
    return case.family.batch(units, case.domain, case.options, np.random.default_rng(seed))


def _part(batch: Mapping[str, torch.Tensor], unit: int) -> dict[str, torch.Tensor]:
    return {key: tensor[unit : unit + 1] for key, tensor in batch.items()}


def _loaded(case: Case, kept: Any = None) -> torch.nn.Module:
    """The module with random values in every parameter: zero tables would hide half of the gradient."""
    rows = np.arange(case.rows) if kept is None else kept
    module = case.family.module(case.options, len(rows))
    rng = np.random.default_rng(9)
    values = {spec.name: rng.normal(0, 0.2, spec.shape).astype(np.float32) for spec in case.specs}
    tables = {spec.name for spec in case.specs if spec.is_table}
    module.load_state_dict({n: torch.from_numpy(v[rows] if n in tables else v) for n, v in values.items()})
    return module.train()


def check_loss_falls(case: Case) -> None:
    """Training the module lowers the loss of units that were not trained on."""
    units = case.encode(case.records)
    seen, unseen = units.slice(0, units.count * 3 // 4), units.slice(units.count * 3 // 4, units.count)
    module = case.family.module(case.options, case.rows)
    module.load_state_dict({n: torch.from_numpy(v.copy()) for n, v in case.initial().items()})
    held_out, losses = _batch(case, unseen, seed=1), []
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for step in range(60):
        with torch.no_grad():
            losses.append(float(case.family.loss(module, held_out).mean()))
        chosen = np.random.default_rng(step).choice(seen.count, 24, replace=False)
        optimizer.zero_grad()
        case.family.loss(module, _batch(case, seen.take(chosen), seed=step)).mean().backward()
        optimizer.step()
    assert min(losses[-5:]) < 0.95 * losses[0]


MODULE: dict[str, Callable[[Case], None]] = {
    "module": check_module,
    "batch": check_batch,
    "loss": check_loss,
    "compact module": check_compact_module,
    "unit gradients": check_unit_gradients,
    "example mode": check_example_mode,
    "loss falls": check_loss_falls,
}
