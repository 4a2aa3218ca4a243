"""One side of the benchmark dp_step in a process of its own: ``python -m simulations.benchmarks._dp_step_side JOB``.

JOB is a JSON object (``StepJob``); one JSON object goes to stdout: CPU seconds of a step, peak memory.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from common.privacy.lazy import LazyTable
from common.privacy.rng import NoiseSource
from common.privacy.selection import SelectedTable
from common.privacy.table_optimizer import NoiseScale, RowNoise, TableDPOptimizer, TableWork
from common.privacy.tables import PrivateTable
from common.privacy.unit_clipping import FlatClip

CONTEXT, LR, SIGMA = 6, 0.05, 1.0
VOTE_NOISE, THRESHOLD = 5.0, 4.0  # keeps 32 untouched rows of a million


@dataclass(frozen=True)
class StepJob:
    """What one process measures.

    Attributes:
        side: ``sgd`` (torch's sparse gradients, no privacy), ``dense``, ``selected``, or ``ghost`` (Opacus).
        rows: V of both tables.
        dimension: D.
        units: units per batch.
        length: rows of the centre table that a unit touches.
        steps: the first third is not timed.
    """

    side: str
    rows: int
    dimension: int
    units: int
    length: int
    steps: int


class SkipGram(nn.Module):
    """The mean of the unit's centre rows against one true and five drawn context rows."""

    def __init__(self, centre: nn.Module, context: nn.Module) -> None:
        super().__init__()
        self.centre = centre
        self.context = context

    def forward(self, centres: torch.Tensor, contexts: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bd,bkd->bk", self.centre(centres), self.context(contexts))


def loss(scores: torch.Tensor) -> torch.Tensor:
    """Summed logistic loss; the first context row is the true one."""
    target = torch.zeros_like(scores)
    target[:, 0] = 1.0
    return functional.binary_cross_entropy_with_logits(scores, target, reduction="sum")


def batches(job: StepJob) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Row numbers by Zipf's law, spread over the table by a fixed permutation."""
    generator = np.random.default_rng(0)
    place = generator.permutation(job.rows)

    def draw(count: int) -> torch.Tensor:
        rank = np.floor(np.exp(generator.random((job.units, count)) * np.log(job.rows + 1))).astype(np.int64) - 1
        return torch.from_numpy(place[np.clip(rank, 0, job.rows - 1)])

    for _ in range(job.steps):
        yield draw(job.length), draw(CONTEXT)


def weights(job: StepJob) -> tuple[torch.Tensor, torch.Tensor]:
    """Two tables that fill memory without a second copy."""
    generator = torch.Generator().manual_seed(0)
    made = [torch.empty(job.rows, job.dimension).uniform_(-0.1, 0.1, generator=generator) for _ in range(2)]
    return made[0], made[1]


def sgd(job: StepJob) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """torch's own sparse gradients and SGD."""
    centre, context = weights(job)
    model = SkipGram(
        nn.EmbeddingBag.from_pretrained(centre, freeze=False, mode="mean", sparse=True),
        nn.Embedding.from_pretrained(context, freeze=False, sparse=True),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=LR / job.units)

    def step(centres: torch.Tensor, contexts: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss(model(centres, contexts)).backward()
        optimizer.step()

    return step


def private(job: StepJob) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """Our step: per-unit clipping, secure noise, all rows noised lazily or selected rows alone."""
    source = NoiseSource.from_os()
    centre, context = weights(job)
    tables = {
        "centre": PrivateTable(job.rows, job.dimension, bag="mean", weight=centre),
        "context": PrivateTable(job.rows, job.dimension, weight=context),
    }
    works = {name: TableWork(table, _row_noise(job.side, table, source.derive(name))) for name, table in tables.items()}
    for work in works.values():
        work.table.reader = work.rows.read
    model = SkipGram(tables["centre"], tables["context"])
    selecting = job.side == "selected"
    values = (SIGMA**-2 - VOTE_NOISE**-2) ** -0.5 if selecting else SIGMA
    optimizer = TableDPOptimizer(
        torch.optim.SGD([nn.Parameter(torch.zeros(1), requires_grad=False)], lr=LR / job.units),
        tables=works,
        clip=FlatClip(1.0),
        noise=NoiseScale(SIGMA, values, 1.0 if selecting else None),
        expected_batch_size=job.units,
        loss_reduction="sum",
        source=source.derive("dense"),
    )

    def step(centres: torch.Tensor, contexts: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss(model(centres, contexts)).backward()
        optimizer.step()

    return step


def _row_noise(side: str, table: PrivateTable, source: NoiseSource) -> RowNoise:
    if side == "dense":
        return LazyTable(table.weight.data, source=source)
    return SelectedTable(table.weight.data, source=source, threshold=THRESHOLD * VOTE_NOISE, vote_stddev=VOTE_NOISE)


class RowMean(nn.Module):
    """The mean of looked-up rows, over a plain ``nn.Embedding``."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.rows = nn.Embedding.from_pretrained(table, freeze=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.rows(rows).mean(dim=1)


class UnitLoss(nn.Module):
    """The loss as Opacus wants it: one number a unit, and their mean."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        each = functional.binary_cross_entropy_with_logits(scores, target, reduction="none").sum(dim=1)
        return each if self.reduction == "none" else each.mean()


def ghost(job: StepJob) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """Opacus' fast gradient clipping; plain rows and their mean, for its ``EmbeddingBag`` is not clipped rightly."""
    import opacus
    from torch.utils.data import DataLoader, TensorDataset

    warnings.simplefilter("ignore")
    centre, context = weights(job)
    module = SkipGram(RowMean(centre), nn.Embedding.from_pretrained(context, freeze=False))
    nothing = DataLoader(TensorDataset(torch.zeros(job.units * 4, 1)), batch_size=job.units)
    model, optimizer, criterion, _ = opacus.PrivacyEngine().make_private(
        module=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=LR),
        criterion=UnitLoss(),
        data_loader=nothing,
        noise_multiplier=SIGMA,
        max_grad_norm=1.0,
        poisson_sampling=False,
        grad_sample_mode="ghost",
    )

    def step(centres: torch.Tensor, contexts: torch.Tensor) -> None:
        optimizer.zero_grad()
        scores = model(centres, contexts)
        target = torch.zeros_like(scores)
        target[:, 0] = 1.0
        criterion(scores, target).backward()
        optimizer.step()

    return step


SIDES = {"sgd": sgd, "dense": private, "selected": private, "ghost": ghost}


def measure(job: StepJob) -> dict[str, Any]:
    """Median CPU seconds of a step, and bytes at the peak beyond those held before the tables were made."""
    torch.set_num_threads(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = SIDES[job.side](job)
    seconds = []
    for centres, contexts in batches(job):
        start = time.process_time()
        step(centres, contexts)
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": float(np.median(seconds[len(seconds) // 3 :])),
        "peak_bytes": 1024 * (peak - before),
        "process_bytes": 1024 * peak,
    }


if __name__ == "__main__":
    print(json.dumps(measure(StepJob(**json.loads(sys.argv[1])))))
