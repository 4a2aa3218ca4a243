"""Two sums a round in mode distributed: votes say which rows get values, values follow on those rows alone.

Everything after the noised votes is a function of them and of public settings. What a client sends as values has one
public length, K slots a table and all dense parameters: slot k stands for the k-th selected row in ascending order,
and the slots beyond hold noise that is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import PrivacyConfigError, WireError
from common.privacy.distributed import Masked, client_vectors
from common.privacy.integer_noise import skellam
from common.privacy.plan import PrivacyPlan
from common.privacy.private_sum import Released
from common.privacy.rng import NoiseSource
from common.privacy.row_votes import RowVotes, VoteGrid
from common.table import IntArray
from common.update import ParameterSpec, RowBatch, UpdateBatch

Words = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.uint32]


def client_votes(terms: RowVotes, held: IntArray, source: NoiseSource) -> IntArray:
    """One client's votes before noise, shape (V,): 1 for each row that it holds, or for a random m of them, else 0.

    Args:
        held: row numbers of the client's own units, in any order, repeats allowed; others than 0 to V - 1 are ignored.
        source: of this client in this round.
    """
    from common.privacy.selection import distinct_integers  # imports torch

    rows = np.unique(held)
    rows = rows[(rows >= 0) & (rows < terms.rows)]
    if len(rows) > terms.rows_per_client:
        rows = rows[distinct_integers(terms.rows_per_client, len(rows), source.derive("votes", "which"))]
    votes = np.zeros(terms.rows, np.int64)
    votes[rows] = 1
    return votes


def noised_votes(grid: VoteGrid, votes: IntArray, source: NoiseSource, *, test_mode: bool) -> Words:
    """One client's votes as they enter the secure sum: its share of the noise on EVERY row, modulo 2^bits.

    Raises:
        PrivacyConfigError: other votes than ``client_votes`` gives, or a seeded source outside test mode.
    """
    if source.test_mode and not test_mode:
        raise PrivacyConfigError("a seeded source of noise serves test mode alone: its noise can be subtracted")
    terms = grid.terms
    within = votes.shape == (terms.rows,) and 0 <= votes.min() <= votes.max() <= 1
    if not within or votes.sum() > terms.rows_per_client:
        raise PrivacyConfigError("a client votes once for a row, and for no more rows than the terms allow")
    noise = skellam(source.derive("votes", "share"), terms.rows, mu=Fraction(grid.share))
    return _words((votes + noise) & ((1 << grid.bits) - 1), grid.bits)


def counted(grid: VoteGrid, total: NDArray[Any]) -> IntArray:
    """The noised number of votes of every row, shape (V,), from the sum modulo 2^bits.

    Raises:
        WireError: not one unsigned integer below 2^bits for every row.
    """
    modulus = 1 << grid.bits
    if total.shape != (grid.terms.rows,) or total.dtype.kind != "u" or int(total.max()) >= modulus:
        raise WireError(f"a sum of votes holds {grid.terms.rows} unsigned integers below 2^{grid.bits}")
    return ((total.astype(np.int64) + grid.reach) & (modulus - 1)) - grid.reach


def selected_rows(grid: VoteGrid, total: NDArray[Any]) -> IntArray:
    """S, ascending: rows whose noised votes reach the threshold; of more than K the K with most, ties by row number.

    Raises:
        WireError: as ``counted``.
    """
    counts = counted(grid, total)
    rows = np.flatnonzero(counts >= grid.threshold)
    if len(rows) > grid.terms.max_selected_rows:
        order = np.lexsort((rows, -counts[rows]))
        rows = np.sort(rows[order[: grid.terms.max_selected_rows]])
    return rows.astype(np.int64)


def rows_bytes(rows: IntArray) -> bytes:
    """A selection as it is sent: four bytes a row."""
    return rows.astype("<u4").tobytes()


def checked_rows(terms: RowVotes, data: bytes) -> IntArray:
    """Inverse of ``rows_bytes``. Raises ``WireError`` unless they are ascending rows of the table, and at most K."""
    if len(data) % 4:
        raise WireError("a selection has four bytes a row")
    found = np.frombuffer(data, dtype="<u4").astype(np.int64)
    if len(found) > terms.max_selected_rows or np.any(np.diff(found) <= 0):
        raise WireError(f"a selection is at most {terms.max_selected_rows} ascending row numbers")
    if len(found) and not 0 <= int(found[0]) <= int(found[-1]) < terms.rows:
        raise WireError("a selection names a row that there is not")
    return found


def selected_vectors(  # exception: as ``distributed.client_vectors``, and the rows
    plan: PrivacyPlan,
    slots: Sequence[ParameterSpec],
    updates: UpdateBatch,
    sources: Sequence[NoiseSource],
    *,
    rows: IntArray,
    rotation_seed: int,
) -> Iterator[Masked]:
    """What each client sends as values: its update on ``rows`` alone, THEN clipped, with noise in every slot.

    Clipped first, an update would lose to rows that nobody gets to see.

    Args:
        slots: from ``row_votes.slot_specs``.
        updates: one contribution a client, over the whole tables.

    Raises:
        PrivacyConfigError: as ``distributed.client_vectors``.
    """
    return client_vectors(plan, slots, restricted(updates, rows), sources, rotation_seed=rotation_seed)


def restricted(batch: UpdateBatch, rows: IntArray) -> UpdateBatch:
    """The contributions on ``rows`` (ascending) alone, numbered by their slots. Clipping comes after this."""
    return UpdateBatch(batch.count, {name: _restricted(t, rows) for name, t in batch.rows.items()}, batch.dense)


def _restricted(table: RowBatch, rows: IntArray) -> RowBatch:
    slots = np.searchsorted(rows, table.ids)
    kept = np.flatnonzero(np.isin(table.ids, rows, assume_unique=False))
    offsets = np.searchsorted(kept, table.offsets).astype(np.int64)
    return RowBatch(offsets, slots[kept].astype(np.int64), table.values[kept])


def on_rows(released: Released, rows: IntArray) -> Released:
    """The sum over slots as a sum over ``rows``; what lies in unused slots is noise and is dropped."""
    return Released({n: (rows, values[: len(rows)]) for n, (_, values) in released.rows.items()}, released.dense)


def _words(values: IntArray, bits: int) -> Words:
    """As the narrowest unsigned type, in which masks are added."""
    if bits == 8:
        return values.astype(np.uint8)
    return values.astype(np.uint16) if bits <= 16 else values.astype(np.uint32)
