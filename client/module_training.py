"""What a client does with a torch module: plain SGD where nothing is protected by the unit, and a loss to report."""

from __future__ import annotations

import numpy as np

from common.compact import renumbered, touched_rows
from common.families import LocalTraining, ModuleFamily
from common.units import Units
from common.update import Parameters, UpdateBatch
from common.work import Work

LOSS_UNITS = 32


def module_sgd(work: Work, parameters: Parameters, units: Units, training: LocalTraining, seed: int) -> UpdateBatch:
    """Plain SGD on a torch module without tables (encoders): local minus global parameters."""
    import torch

    family: ModuleFamily = work.family
    rng = np.random.default_rng(seed)
    module = family.module(work.options, 0).to(training.device)
    module.load_state_dict({n: torch.from_numpy(np.array(v)) for n, v in parameters.items()})
    optimizer = torch.optim.SGD(module.parameters(), lr=training.lr)
    for chosen in _batches(units.count, training, rng):
        batch = family.batch(units.take(chosen), work.domain, work.options, rng)
        loss = family.loss(module, {n: t.to(training.device) for n, t in batch.items()}).sum() / len(chosen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    state = module.state_dict()
    return UpdateBatch(1, {}, {n: (state[n].cpu().numpy() - v)[None] for n, v in parameters.items()})


def _batches(count: int, training: LocalTraining, rng: np.random.Generator) -> list[np.ndarray]:
    """Index batches of one round: shuffled passes, cut off after ``local_steps`` where that is set."""
    if count == 0:
        return []
    size = min(training.batch_size, count)
    steps_a_pass = -(-count // size)
    passes = training.local_epochs if training.local_steps == 0 else -(-training.local_steps // steps_a_pass)
    batches = [b for _ in range(passes) for b in np.array_split(rng.permutation(count), steps_a_pass)]
    return batches[: training.local_steps] if training.local_steps else batches


def sample_loss(work: Work, parameters: Parameters, units: Units, seed: int) -> float:
    """Mean loss of the received parameters on at most ``LOSS_UNITS`` of a client's units, on a compact table.

    NaN for families without a module and for clients without units. The figure is private: it is asked for in mode
    ``none`` alone.
    """
    import torch

    family = work.family
    if not isinstance(family, ModuleFamily) or units.count == 0:
        return float("nan")
    rng = np.random.default_rng(seed)
    batch = family.batch(units.take(rng.permutation(units.count)[:LOSS_UNITS]), work.domain, work.options, rng)
    kept = np.zeros(0, np.int64)
    if work.domain is not None:
        kept = touched_rows([batch], rows=len(work.domain))
        batch = renumbered(batch, kept)
    module = family.module(work.options, len(kept))
    values = {s.name: parameters[s.name][kept] if s.is_table else parameters[s.name] for s in work.specs}
    module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in values.items()})
    with torch.no_grad():
        return float(family.loss(module, batch).mean())
