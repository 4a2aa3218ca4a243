"""The table engine under test: a small module trained through ``PrivacyEngine``, and what an insider sees of it.

A unit looks rows up in a table and in a bag, and goes through a dense layer; its loss is linear, so its gradient is
known: ``scale`` times the number of times each row occurs, in every column. Row 0 is padding. Tables start at zero,
so what is there at the end is what the steps put there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from common.privacy.engine import PrivacyEngine
from common.privacy.rng import NoiseSource
from common.privacy.selection import RowSelection
from common.privacy.table_gradients import RowSums
from common.privacy.table_optimizer import RowNoise, TableWork
from common.table import IntArray

ROWS, DIMENSION, LENGTH = 25, 16, 24
CLIP, SIGMA, LR, BATCH = 0.5, 1.3, 0.7, 8.0
TABLES = ("words", "bags")

Rows = Sequence[int]
Unit = tuple[Rows, float]  # row numbers, padded to LENGTH, and the factor of the loss
EVERY_ROW: Unit = (tuple(range(1, ROWS)), 1e-4)  # so that neighbours touch the same rows and draw the same noise


@dataclass(frozen=True)
class EngineSubject:
    """What is put to the test.

    Attributes:
        engine: makes training private.
        secure: an engine as a real run makes it.
    """

    engine: Callable[[NoiseSource], PrivacyEngine] = lambda source: PrivacyEngine(source=source)
    secure: Callable[[], PrivacyEngine] = PrivacyEngine


@dataclass(frozen=True)
class EngineRun:
    """One short training.

    Attributes:
        units: what is trained on, one example each.
        owners: the unit of each example, where one holds several; by default each is its own.
        rate: chance of a unit in a step.
        steps: logical batches.
        rows: ``dense``, or ``selected`` with ``selection``.
        piece: examples computed at once, ``None`` for all.
        batch: what a user would call the batch size: the public divisor.
        settled: whether owed noise is settled after every step, so that every step can be seen by itself.
    """

    units: Sequence[Unit]
    rate: float = 1.0
    steps: int = 1
    rows: str = "dense"
    selection: RowSelection | None = None
    piece: int | None = None
    batch: float = BATCH
    settled: bool = False
    owners: Sequence[int] | None = None


@dataclass
class Seen:
    """What an observer inside the engine saw.

    Attributes:
        final: parameter -> value at the end, float64.
        steps: the same after every step, where they were settled.
        reads: of every step, row -> value as the forward pass read it in ``words``.
        sums: of every step, table -> what the rows' guard was given.
        batches: how many logical batches ended.
        engine, optimizer: as they are afterwards.
    """

    engine: PrivacyEngine
    optimizer: Any
    final: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    steps: list[dict[str, NDArray[np.float64]]] = field(default_factory=list)
    reads: list[dict[int, NDArray[np.float64]]] = field(default_factory=list)
    sums: list[dict[str, RowSums | None]] = field(default_factory=list)
    batches: int = 0


class Model(nn.Module):
    """The module above; returns one loss per example, and notes what it read in ``words``."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(ROWS, DIMENSION, padding_idx=0)
        self.bags = nn.EmbeddingBag(ROWS, DIMENSION, mode="sum", padding_idx=0)
        self.mix = nn.Linear(DIMENSION, DIMENSION)
        self.reads: list[dict[int, NDArray[np.float64]]] = []
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()

    def forward(self, rows: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Losses of shape (B,) for ``rows`` (B, LENGTH) and ``scale`` (B,)."""
        words = self.words(rows)
        values = words.detach().double().reshape(-1, DIMENSION).numpy()
        self.reads.append(dict(zip(rows.reshape(-1).tolist(), values, strict=True)))
        present = (rows != 0).unsqueeze(-1).float()
        mixed = self.mix(torch.ones(len(rows), DIMENSION) / DIMENSION**0.5)
        found: torch.Tensor = ((words * present).sum(dim=1) + self.bags(rows) + mixed).mean(dim=1)
        return scale * found * DIMENSION**0.5


class _Watched:
    """Passes everything to the guard of a table's rows, and keeps the sums it is given."""

    def __init__(self, rows: RowNoise, name: str, seen: Seen) -> None:
        self.guarded, self._name, self._seen = rows, name, seen

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        return self.guarded.read(rows)

    def step(self, sums: RowSums | None, *, scale: float, stddev: float) -> None:
        if self._name in (self._seen.sums[-1] if self._seen.sums else {self._name}):
            self._seen.sums.append({})
        self._seen.sums[-1][self._name] = None if sums is None or not len(sums.rows) else sums.held()
        self.guarded.step(sums, scale=scale, stddev=stddev)

    def flush(self) -> None:
        self.guarded.flush()

    def changed(self) -> tuple[IntArray, torch.Tensor]:
        return self.guarded.changed()


def examples_of(units: Sequence[Unit]) -> TensorDataset:
    """One example a unit: rows padded with row 0, and scales."""
    rows = np.zeros((len(units), LENGTH), dtype=np.int64)
    for k, (own, _) in enumerate(units):
        rows[k, : len(own)] = own
    return TensorDataset(torch.from_numpy(rows), torch.tensor([s for _, s in units], dtype=torch.float32))


def train(subject: EngineSubject, run: EngineRun, seed: int, *, sigma: float = SIGMA, source: Any = None) -> Seen:
    """Train, and return what was seen."""
    module = Model()
    engine = subject.engine(source or NoiseSource.seeded_for_tests(seed))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        private, optimizer, loader = engine.make_private(
            module=module,
            optimizer=torch.optim.SGD(module.parameters(), lr=LR),
            data_loader=DataLoader(examples_of(run.units), batch_size=int(run.batch)),
            noise_multiplier=sigma,
            max_grad_norm=CLIP,
            unit_rate=run.rate,
            steps=run.steps,
            unit_of_example=None if run.owners is None else np.asarray(run.owners, dtype=np.int64),
            max_physical_batch_size=run.piece,
            rows=run.rows,
            selection=run.selection,
        )
        seen = Seen(engine, optimizer)
        for name, work in optimizer.tables.items():
            optimizer.tables[name] = TableWork(work.table, _Watched(work.rows, name, seen))
        for rows, scale in loader:
            module.reads.clear()
            optimizer.zero_grad()
            (private(rows, scale).sum() / max(1, len(rows))).backward()
            optimizer.step()
            seen.reads.append(module.reads[-1])
            seen.batches += not optimizer._is_last_step_skipped
            if run.settled:
                seen.steps.append(_state(module))
    seen.final = _state(module)
    return seen


def _state(module: nn.Module) -> dict[str, NDArray[np.float64]]:
    """Everything that could leave: asking for it settles what is owed."""
    return {name: value.detach().double().numpy().copy() for name, value in module.state_dict().items()}


def step_stddev(sigma: float = SIGMA) -> float:
    """Stddev of the change of every coordinate by the noise of one step."""
    return LR / BATCH * sigma * CLIP


def flattened(arrays: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """All parameters in one vector."""
    return np.concatenate([array.ravel() for array in arrays.values()])


def guard_of(optimizer: Any, table: str) -> Any:
    """What guards the rows of a table, without the watcher."""
    return optimizer.tables[table].rows.guarded
