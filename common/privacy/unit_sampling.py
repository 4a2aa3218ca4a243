"""Poisson sampling over privacy units that hold any number of examples.

Each unit enters a step with the given rate, independent of all others. A unit brings at most ``max_examples`` of its
examples, chosen at random after it was drawn: choosing by order of arrival would make one example's place depend on
what other units hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from common.errors import DataError, PrivacyConfigError
from common.privacy.rng import NoiseSource
from common.table import IntArray


@dataclass(frozen=True)
class Piece:
    """Part of a logical batch that is computed at once: whole units.

    Attributes:
        examples: shape (B,): which examples.
        units: shape (B,): the unit of each, numbered from 0 within the piece.
        count: units in the piece.
        first: whether the logical batch begins here.
        last: whether it ends here.
    """

    examples: IntArray
    units: IntArray
    count: int
    first: bool
    last: bool


class UnitSampler(Sampler[list[int]]):
    """Batches of example numbers for a ``DataLoader``; ``on_piece`` hears of each before it is loaded,
    and ``on_start`` of every new pass.

    Args:
        unit_of_example: shape (examples,), int64: the unit of each example, any integers.
        unit_rate: chance of a unit in a step.
        steps: logical batches.
        max_examples: examples of one unit in one step at most; ``None``: all, however many.
        max_piece: examples computed at once at most (virtual steps); a unit is never split.
        source: secret randomness.

    Raises:
        PrivacyConfigError: a rate outside (0, 1], or bounds below 1.
        DataError: a unit larger than ``max_piece`` that ``max_examples`` does not bound.
    """

    def __init__(  # exception: the settings of one sampler belong together
        self,
        unit_of_example: IntArray,
        *,
        unit_rate: float,
        steps: int,
        source: NoiseSource,
        max_examples: int | None = None,
        max_piece: int | None = None,
    ) -> None:
        if not 0 < unit_rate <= 1:
            raise PrivacyConfigError(f"the chance of a unit in a step must lie in (0, 1], not {unit_rate}")
        if steps < 1 or min(max_examples or 1, max_piece or 1) < 1:
            raise PrivacyConfigError("steps, max_examples and max_piece are at least 1")
        order = np.argsort(unit_of_example, kind="stable")
        _, first = np.unique(np.asarray(unit_of_example)[order], return_index=True)
        self._members = np.split(order, first[1:])
        largest = max((len(m) for m in self._members), default=0)
        if max_piece is not None and min(largest, max_examples or largest) > max_piece:
            raise DataError(
                f"a unit brings more examples than the {max_piece} that are computed at once",
                remedy="Set max_examples, or allow larger pieces.",
            )
        self._rate, self._steps, self._source = unit_rate, steps, source
        self._max_examples, self._max_piece = max_examples, max_piece
        self.on_start: Callable[[], None] = lambda: None
        self.on_piece: Callable[[Piece], None] = lambda piece: None

    @property
    def unit_rate(self) -> float:
        """Chance of a unit in a step."""
        return self._rate

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[list[int]]:
        self.on_start()
        for _ in range(self._steps):
            for piece in self._logical_batch():
                self.on_piece(piece)
                yield piece.examples.tolist()

    def _logical_batch(self) -> list[Piece]:
        drawn = np.flatnonzero(self._source.bernoulli(len(self._members), self._rate))
        groups = [self._chosen(self._members[k]) for k in drawn]
        parts: list[list[IntArray]] = [[]]
        size = 0
        for group in groups:
            if self._max_piece is not None and size + len(group) > self._max_piece:
                parts.append([])
                size = 0
            parts[-1].append(group)
            size += len(group)
        return [_piece(part, first=k == 0, last=k + 1 == len(parts)) for k, part in enumerate(parts)]

    def _chosen(self, members: IntArray) -> IntArray:
        if self._max_examples is None or len(members) <= self._max_examples:
            return members
        keys = self._source.uniform(len(members))
        return members[np.argsort(keys)[: self._max_examples]]


def _piece(groups: list[IntArray], *, first: bool, last: bool) -> Piece:
    sizes = [len(group) for group in groups]
    examples = np.concatenate([np.empty(0, np.int64), *groups])
    return Piece(examples, np.repeat(np.arange(len(groups)), sizes), len(groups), first, last)
