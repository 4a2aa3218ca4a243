"""A small federation of rows for the tests of attacks: who holds what, what clients send, and what sums show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.evaluation.leak import Leak
from common.evaluation.view import RoundView, Truth, View
from common.privacy.private_sum import Released
from common.update import RowBatch, UpdateBatch

ROWS, WIDTH, CLIENTS = 300, 6, 30
TABLE = "rows"


class World:
    """Clients draw their rows from a Zipf-like popularity; a row's update is Gaussian of a random scale."""

    def __init__(self, seed: int = 0, clients: int = CLIENTS) -> None:
        self.rng = np.random.default_rng(seed)
        self.prior = 1 / np.arange(1, ROWS + 1)
        p = self.prior / self.prior.sum()
        sizes = self.rng.integers(3, 90, clients)
        self.held = tuple(np.unique(self.rng.choice(ROWS, int(m), p=p)).astype(np.int64) for m in sizes)
        self.truth = Truth(held_rows=self.held)

    def update(self, client: int) -> np.ndarray:
        """Shape (V, D), L2 norm 1."""
        found = np.zeros((ROWS, WIDTH), np.float32)
        own = self.held[client]
        found[own] = self.rng.normal(size=(len(own), WIDTH)) * self.rng.lognormal(0, 0.5, (len(own), 1))
        return found / np.linalg.norm(found)

    def batch(self, clients: Sequence[int], *, noise: float = 0.0, touched_only: bool = False) -> UpdateBatch:
        """What clients send; noise on every row, or on those that they touched."""
        sent = []
        for client in clients:
            update = self.update(client)
            where = update.any(axis=1, keepdims=True) if touched_only else 1.0
            sent.append(update + noise * where * self.rng.normal(size=update.shape).astype(np.float32))
        return sparse(sent)

    def total(self, clients: Sequence[int], *, noise: float = 0.0) -> Released:
        """Their sum."""
        whole = np.sum([self.update(client) for client in clients], axis=0)
        return released(whole + noise * self.rng.normal(size=whole.shape), dense=noise > 0)

    def view(self, *rounds: RoundView) -> View:
        """Of everything public, and the rounds."""
        return View(len(self.held), self.prior, rounds)

    def rounds(self, count: int, *, cohort: int = 8, noise: float = 0.0) -> list[RoundView]:
        """Rounds of cohorts drawn anew, sums alone."""
        found = []
        for _ in range(count):
            who = np.sort(self.rng.choice(len(self.held), cohort, replace=False))
            found.append(RoundView(who, total=self.total(who.tolist(), noise=noise)))
        return found


def sparse(sent: Sequence[np.ndarray]) -> UpdateBatch:
    """Updates of shape (V, D) as contributions of their rows that are not zero."""
    ids = [np.flatnonzero(update.any(axis=1)) for update in sent]
    values = np.concatenate([update[own] for update, own in zip(sent, ids, strict=True)]).astype(np.float32)
    offsets = np.cumsum([0, *map(len, ids)]).astype(np.int64)
    return UpdateBatch(len(sent), {TABLE: RowBatch(offsets, np.concatenate(ids).astype(np.int64), values)})


def released(whole: np.ndarray, *, dense: bool) -> Released:
    """A sum of shape (V, D), full or as the rows that are not zero."""
    values = whole.astype(np.float32)
    ids = np.flatnonzero(values.any(axis=1)).astype(np.int64)
    return Released({TABLE: (None, values) if dense else (ids, values[ids])}, {})


def by_metric(leaks: Sequence[Leak]) -> dict[str, Leak]:
    """Leaks by what they measure."""
    return {leak.metric: leak for leak in leaks}


def slow_f1(named: set[int], held: set[int]) -> float:
    """From the sets, as the textbook has it."""
    hits = len(named & held)
    if not hits:
        return 0.0
    precision, recall = hits / len(named), hits / len(held)
    return 2 * precision * recall / (precision + recall)
