"""Tokens of many clients laid out in blocks, the form that the batched skip-gram kernel reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.table import IntArray

STEP_TOKENS = 512  # tokens a step at most: the longer a step, the staler the rows it reads


@dataclass(frozen=True)
class Tokens:
    """T tokens in the order of training; all arrays have shape (T,).

    Attributes:
        words: row numbers.
        sentence: a number that changes wherever a window must end.
        batch: a number that changes wherever a step must end, and between clients.
        client: ascending, in [0, C).
        radius: each centre's window in tokens, at least 1.
    """

    words: IntArray
    sentence: IntArray
    batch: IntArray
    client: IntArray
    radius: IntArray


@dataclass(frozen=True)
class Layout:
    """Tokens in blocks; where one client ends, a gap keeps every window off its neighbour.

    Attributes:
        words: (n,), row numbers; gaps hold the padding row.
        low, high: (n,), centre i is paired with distances ``low <= d <= high``, ``d != 0``; both zero in gaps.
        starts: (C, S), first position of client c's step s; that of an empty block where it has no such step.
        blocks: (C, S), number of blocks of that step; 0 where it has no such step.
        block: centres a block.
        empty: first position of a block of padding.
    """

    words: IntArray
    low: NDArray[np.int16]
    high: NDArray[np.int16]
    starts: IntArray
    blocks: IntArray
    block: int
    empty: int


def lay_out(tokens: Tokens, *, clients: int, block: int, window: int, padding_row: int) -> Layout:
    """Cut tokens into steps of at most ``STEP_TOKENS``, and steps into blocks; no loop over tokens or clients."""
    n = len(tokens.words)
    step_start = _step_starts(tokens.batch)
    length = np.diff(np.append(step_start, n))
    blocks = -(-length // block)
    owner = tokens.client[step_start]
    position = window * (owner + 1) + block * (np.cumsum(blocks) - blocks)
    empty = int(blocks.sum()) * block + window * (clients + 1)
    target = np.repeat(position - step_start, length) + np.arange(n)
    low, high = window_ends(tokens.sentence, tokens.radius)
    first = np.searchsorted(owner, np.arange(clients + 1))
    starts = np.full((clients, int(np.diff(first).max(initial=0))), empty)
    counts = np.zeros_like(starts)
    index = np.arange(len(owner)) - first[owner]
    starts[owner, index], counts[owner, index] = position, blocks
    size = empty + block + window
    return Layout(
        words=_placed(tokens.words, target, np.full(size, padding_row, np.int64)),
        low=_placed(low, target, np.zeros(size, np.int16)),
        high=_placed(high, target, np.zeros(size, np.int16)),
        starts=starts,
        blocks=counts,
        block=block,
        empty=empty,
    )


def window_ends(sentence: IntArray, radius: IntArray) -> tuple[IntArray, IntArray]:
    """Distances to the first and last context of each token: its radius, cut at the ends of its sentence."""
    n = len(sentence)
    start = _run_starts(sentence)
    ends = np.append(start[1:], n)
    before = np.arange(n) - np.repeat(start, ends - start)
    after = np.repeat(ends, ends - start) - 1 - np.arange(n)
    return -np.minimum(radius, before), np.minimum(radius, after)


def most_steps(batch_tokens: IntArray) -> int:
    """Steps that batches of so many tokens take at most."""
    return int((-(-batch_tokens // STEP_TOKENS)).sum())


def _step_starts(batch: IntArray) -> IntArray:
    start = _run_starts(batch)
    inside = np.arange(len(batch)) - np.repeat(start, np.diff(np.append(start, len(batch))))
    return np.flatnonzero(inside % STEP_TOKENS == 0)


def _run_starts(numbers: IntArray) -> IntArray:
    changed = numbers[1:] != numbers[:-1]
    return np.flatnonzero(np.concatenate([[len(numbers) > 0], changed]))


def _placed(values: NDArray[Any], target: IntArray, out: NDArray[Any]) -> NDArray[Any]:
    out[target] = values
    return out
