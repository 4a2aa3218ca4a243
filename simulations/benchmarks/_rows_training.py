"""One private training run of the benchmark rows: by the textbook, with all rows noised lazily, or with selected rows.

All three release the same event, Gaussian noise of one multiplier on one Poisson sample of units a step:

    theta <- theta - reach / (C q n) * ( sum_{u in S} clip_C(grad_u) + sigma C z ).

``TEXTBOOK`` is Algorithm 1 of Abadi et al. (2016) word for word: Opacus' hooks give every unit's gradient as an array
of the whole table's size, and fresh noise goes to every row at every step. It shares no code with the engine.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule
from torch import nn
from torch.utils.data import DataLoader

from common.privacy.engine import PrivacyEngine
from common.privacy.rng import NoiseSource
from common.privacy.selection import RowSelection, SelectedTable
from common.privacy.table_gradients import RowSums
from common.privacy.table_optimizer import RowNoise, TableDPOptimizer, TableWork
from common.table import IntArray

TEXTBOOK, LAZY, SELECTED = "textbook DP-SGD", "all rows, lazily", "selected rows"
PIECE_UNITS = 4096  # computed at once by the engine
TEXTBOOK_BYTES = 2**26  # of gradients that the textbook holds at once
Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Problem:
    """Data, model and training; what does not depend on the method.

    Attributes:
        label: names family, table and unit.
        units: n, the privacy units.
        start: seed -> a fresh module whose forward pass gives each unit's loss, shape (B,).
        batch: numbers of units, generator -> what the module takes; first axes count the units.
        scores: module -> measure -> figure.
        steps: noised steps.
        unit_rate: q, the chance of a unit in a step.
        clip: C.
        reach: learning rate times C: how far a step moves the table when every unit pulls one way.
        delta: of the guarantee.
    """

    label: str
    units: int
    start: Callable[[int], nn.Module]
    batch: Callable[[IntArray, np.random.Generator], Batch]
    scores: Callable[[nn.Module], dict[str, float]]
    steps: int
    unit_rate: float
    clip: float
    reach: float
    delta: float


@dataclass(frozen=True)
class Setting:
    """One method with its settings; threshold and ratio are those of ``RowSelection`` and of ``[privacy]``.

    Attributes:
        threshold: tau, in standard deviations of the votes' noise.
        ratio: noise multiplier of the votes over ``noise_multiplier``.
        clip_factor: the clip over the problem's; ``reach`` stays.
    """

    method: str
    noise_multiplier: float
    threshold: float = 4.0
    ratio: float = 5.0
    clip_factor: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """What a run gave.

    Attributes:
        scores: measure -> figure.
        accounted: (noise multiplier, rate, steps) as the engine's accountant has them; empty for the textbook.
        rows: means over the steps, all tables together: rows ``touched``, ``selected``, selected ``by chance``; the
            share of the clipped sums' norms (``mass``) that reached the table; and how many rows changed at all
            (``sent``). Empty for the textbook.
    """

    scores: dict[str, float]
    accounted: tuple[tuple[float, float, int], ...]
    rows: dict[str, float]


def run(problem: Problem, setting: Setting, seed: int) -> Outcome:
    """Train once and score; sample, noise and start follow from ``seed``."""
    module = problem.start(seed)
    if setting.method == TEXTBOOK:
        _by_the_textbook(problem, setting, module, seed)
        return Outcome(problem.scores(module), (), {})
    return _by_the_engine(problem, setting, module, seed)


def _by_the_engine(problem: Problem, setting: Setting, module: nn.Module, seed: int) -> Outcome:
    rng = np.random.default_rng([seed, 1])
    clip, expected = problem.clip * setting.clip_factor, problem.unit_rate * problem.units
    selection = RowSelection(setting.ratio * setting.noise_multiplier, setting.threshold)
    data: Any = range(problem.units)
    engine = PrivacyEngine(source=NoiseSource.seeded_for_tests(seed))
    private, optimizer, loader = engine.make_private(
        module=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=problem.reach / (clip * expected)),
        data_loader=DataLoader(data, collate_fn=lambda units: problem.batch(np.array(units, np.int64), rng)),
        noise_multiplier=setting.noise_multiplier,
        max_grad_norm=clip,
        unit_rate=problem.unit_rate,
        steps=problem.steps,
        max_physical_batch_size=PIECE_UNITS,
        rows="selected" if setting.method == SELECTED else "dense",
        selection=selection if setting.method == SELECTED else None,
        loss_reduction="sum",
    )
    watched = _watch(optimizer)
    for batch in loader:
        optimizer.zero_grad()
        private(batch).sum().backward()
        optimizer.step()
    optimizer.flush()
    use = _row_use(watched, sent=setting.method == SELECTED)
    return Outcome(problem.scores(module), tuple(engine.accountant.history), use)


def _by_the_textbook(problem: Problem, setting: Setting, module: nn.Module, seed: int) -> None:
    rng, noise = np.random.default_rng([seed, 2]), torch.Generator().manual_seed(seed)
    clip, expected = problem.clip * setting.clip_factor, problem.unit_rate * problem.units
    private = GradSampleModule(module, loss_reduction="sum")
    parameters = list(module.parameters())
    at_once = max(TEXTBOOK_BYTES // (4 * sum(p.numel() for p in parameters)), 1)
    for _ in range(problem.steps):
        sums = [torch.zeros_like(p) for p in parameters]
        drawn = np.flatnonzero(rng.random(problem.units) < problem.unit_rate)
        for piece in np.split(drawn, range(at_once, len(drawn), at_once)):
            _backward(private, problem.batch(piece, rng))
            gradients: list[Any] = [p.grad_sample for p in parameters]  # type: ignore[attr-defined]
            norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
            factors = (clip / norms.clamp(min=1e-30)).clamp(max=1.0)
            for total, gradient in zip(sums, gradients, strict=True):
                total += torch.einsum("b,bvd->vd", factors, gradient)
            private.zero_grad()
        for parameter, total in zip(parameters, sums, strict=True):
            z = torch.randn(total.shape, generator=noise)
            noised = total + setting.noise_multiplier * clip * z
            parameter.data -= problem.reach / (clip * expected) * noised
    private.to_standard_module()


def _backward(private: GradSampleModule, batch: Batch) -> None:
    with warnings.catch_warnings():  # row numbers have no gradient, which torch thinks strange of a hook
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        private(batch).sum().backward()


class _Watched:
    """A table's rows with a record of every step. It sees what is private: for measurement on known data alone."""

    def __init__(self, rows: RowNoise) -> None:
        self._rows = rows
        self.steps: list[tuple[float, ...]] = []
        self.sent: set[int] = set()

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        return self._rows.read(rows)

    def step(self, sums: RowSums | None, *, scale: float, stddev: float) -> None:
        touched = np.empty(0, np.int64) if sums is None else sums.rows.numpy().copy()
        selects = isinstance(self._rows, SelectedTable)
        norms = sums.dense().norm(dim=1).numpy() if selects and sums is not None else np.ones(len(touched))
        self._rows.step(sums, scale=scale, stddev=stddev)
        selected = self._rows.selected[-1] if isinstance(self._rows, SelectedTable) else touched
        self.sent.update(selected.tolist())
        kept = np.isin(touched, selected)
        found = (len(touched), len(selected), len(selected) - int(kept.sum()), norms[kept].sum(), norms.sum())
        self.steps.append(tuple(float(value) for value in found))

    def flush(self) -> None:
        self._rows.flush()

    def changed(self) -> tuple[IntArray, torch.Tensor]:
        return self._rows.changed()


def _watch(optimizer: TableDPOptimizer) -> list[_Watched]:
    watched = {name: _Watched(work.rows) for name, work in optimizer.tables.items()}
    optimizer.tables = {n: TableWork(work.table, watched[n]) for n, work in optimizer.tables.items()}
    return list(watched.values())


def _row_use(watched: list[_Watched], *, sent: bool) -> dict[str, float]:
    steps = np.array([w.steps for w in watched]).sum(axis=0)
    touched, selected, chance, kept, total = steps.mean(axis=0).tolist()
    found = {"touched": touched, "mass": kept / total if total else 0.0}
    if sent:
        found |= {"selected": selected, "by chance": chance, "sent": float(sum(len(w.sent) for w in watched))}
    return found
