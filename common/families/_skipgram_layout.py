"""Tokens of many clients laid out in blocks, the form that the batched skip-gram kernel reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.table import FloatArray, IntArray

STEP_TOKENS = 2048  # tokens a step at most, a multiple of every group: the longer, the staler the rows it reads
NOISE_BLOCKS = 4  # blocks that share their negatives


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
        reach: (n,), how far each centre's window extends, see ``reach_codes``; 0 (nowhere) in gaps.
        starts: (C, S), first position of client c's step s; that of an empty block where it has no such step.
        blocks: (C, S), number of blocks of that step; 0 where it has no such step.
        block: centres a block.
        empty: first position of a block of padding.
    """

    words: IntArray
    reach: IntArray
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
    reach = reach_codes(*window_ends(tokens.sentence, tokens.radius), window)
    first = np.searchsorted(owner, np.arange(clients + 1))
    starts = np.full((clients, int(np.diff(first).max(initial=0))), empty)
    counts = np.zeros_like(starts)
    index = np.arange(len(owner)) - first[owner]
    starts[owner, index], counts[owner, index] = position, blocks
    words = np.full(empty + block + window, padding_row)
    codes = np.zeros_like(words)
    words[target], codes[target] = tokens.words, reach
    return Layout(
        words=words,
        reach=codes,
        starts=starts,
        blocks=counts,
        block=block,
        empty=empty,
    )


def window_ends(sentence: IntArray, radius: IntArray) -> tuple[IntArray, IntArray]:
    """Distances to the first and last context of each token: its radius, cut at the ends of its sentence."""
    n = len(sentence)
    start = _run_starts(sentence)
    ends = np.append(start, n)[1:]
    before = np.arange(n) - np.repeat(start, ends - start)
    after = np.repeat(ends, ends - start) - 1 - np.arange(n)
    return -np.minimum(radius, before), np.minimum(radius, after)


def reach_codes(low: IntArray, high: IntArray, window: int) -> IntArray:
    """One number for "paired with distances ``low <= d <= high``, ``d != 0``": the row of ``band_table``."""
    return -low * (window + 1) + high


def band_table(window: int) -> FloatArray:
    """1 where a distance is paired: a row for every reach code, columns for distances -window to window."""
    low, high = np.divmod(np.arange((window + 1) ** 2)[:, None], window + 1)
    distance = np.arange(-window, window + 1)
    return ((distance >= -low) & (distance <= high) & (distance != 0)).astype(np.float32)


def noise_groups(batch_tokens: IntArray, block: int) -> int:
    """Groups of blocks, each with its own negatives, in batches of so many tokens."""
    return int((-(-batch_tokens // (NOISE_BLOCKS * block))).sum())


def _step_starts(batch: IntArray) -> IntArray:
    start = _run_starts(batch)
    inside = np.arange(len(batch)) - np.repeat(start, np.diff(np.append(start, len(batch))))
    return np.flatnonzero(inside % STEP_TOKENS == 0)


def _run_starts(numbers: IntArray) -> IntArray:
    changed = numbers[1:] != numbers[:-1]
    return np.flatnonzero(np.concatenate([[len(numbers) > 0], changed]))
