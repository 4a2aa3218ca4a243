"""Pairs of an item had and an item not had, drawn for many clients side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.families import LocalTraining
from common.families._interactions import UserLists, user_lists
from common.seeds import Streams
from common.table import IntArray
from common.units import Units, joined


@dataclass(frozen=True)
class Pairs:
    """The users of K clients, and every random choice that the clients make in a round.

    Users who have every item are left out: for them there is no pair.

    Attributes:
        lists: items of each of the S users (R items in all).
        client: shape (S,), client of each user.
        steps: shape (K,), local steps of each client.
        batches: shape (K,), steps a pass of each client.
        first: shape (R, N), items drawn for the reconstruction of user vectors.
        negatives: one (R, N) array a pass.
        turns: one (S,) array a pass: in which step of the pass a user takes part.
    """

    lists: UserLists
    client: IntArray
    steps: IntArray
    batches: IntArray
    first: IntArray
    negatives: list[IntArray]
    turns: list[IntArray]

    def taking_part(self, step: int) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """(pass, which users take part) of a step, for every pass that some client is in: shape (S,)."""
        number = (step // self.batches)[self.client]
        left = (step < self.steps)[self.client]
        for current in np.unique(number[left]):
            taking = left & (number == current) & (self.turns[current] == (step % self.batches)[self.client])
            if taking.any():
                yield int(current), taking


def drawn_pairs(
    clients: Sequence[Units], rows: int, negatives: int, *, training: LocalTraining, seeds: Sequence[int]
) -> Pairs:
    """Draw everything for a round; client k's choices come from ``seeds[k]`` alone."""
    counts = np.array([client.count for client in clients], dtype=np.int64)
    lists = _with_something_missing(user_lists(joined(clients), rows), rows)
    client = np.repeat(np.arange(len(clients)), counts)[lists.units]
    batches = np.maximum(1, -(-counts // training.batch_size))
    steps = np.full_like(batches, training.local_steps) if training.local_steps else batches * training.local_epochs
    passes = int((-(-steps // batches)).max(initial=0))
    elements = np.bincount(client[lists.owners], minlength=len(clients))
    streams = Streams(seeds)
    drawn = [streams.uniform(elements * negatives, "items", number) for number in range(passes + 1)]
    turns = [streams.permutations(counts, "users", number) // training.batch_size for number in range(passes)]
    first, *later = (not_had(lists, uniform.reshape(-1, negatives), rows) for uniform in drawn)
    return Pairs(lists, client, steps, batches, first, later, [turn[lists.units] for turn in turns])


def _with_something_missing(lists: UserLists, rows: int) -> UserLists:
    """The users who lack at least one of the ``rows`` items."""
    sizes = np.diff(lists.offsets)
    kept = sizes < rows
    offsets = np.concatenate([[0], np.cumsum(sizes[kept])]).astype(np.int64)
    owners = np.repeat(np.arange(int(kept.sum())), sizes[kept])
    return UserLists(offsets, lists.items[kept[lists.owners]], lists.units[kept], owners)


def not_had(lists: UserLists, uniform: NDArray[np.float64], rows: int) -> IntArray:
    """Turn numbers in [0, 1), shape (R, N), into items that the user does not have, each equally likely.

    The r-th item not had is r plus the number of items had that precede it: those at position p with
    ``item - p <= r``.
    """
    missing = rows - np.diff(lists.offsets)[lists.owners]
    wanted = np.floor(uniform * missing[:, None]).astype(np.int64)
    start = lists.offsets[lists.owners]
    gaps = lists.owners * (rows + 1) + lists.items - (np.arange(len(lists.items)) - start)
    before = np.searchsorted(gaps, lists.owners[:, None] * (rows + 1) + wanted, side="right")
    return wanted + before - start[:, None]
