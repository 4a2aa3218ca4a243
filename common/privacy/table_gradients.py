"""Per-unit norms and clipped sums of the gradients of looked-up rows.

With g_j the gradient of lookup j of unit u(j) and row r(j), unit u's gradient of row r is the sum of its g_j there, and

    norm_u^2 = sum_r || sum_{j: u(j)=u, r(j)=r} g_j ||^2                      (Abadi et al. 2016, Algorithm 1)
    S_r      = sum_j f_{u(j)} g_j over j with r(j) = r,    f_u = min(1, C / norm_u).

Both cost O(lookups). Squares are summed in float32 over the D columns, whose relative error is below D 2^-24; the norm
is enlarged by as much, so that no unit weighs more than C. Rows are summed in float64: in float32 the rounding errors
of a batch would differ between neighbouring data sets by a visible share of C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn import functional

from common.errors import PrivacyConfigError
from common.privacy.tables import Lookup

BLOCK_ROWS = 512  # rows whose float64 copies stay in the core's own cache
SMALLEST_SQUARE = 2.0**-90  # far above where float32 loses digits


@dataclass(frozen=True)
class TableGradients:
    """The gradients of all lookups of one table in one batch: entry j is ``weights[j] * gradients[source[j]]``.

    Entries are ordered by row, then unit; there is one for each (row, unit).

    Attributes:
        rows: shape (R,), int64: distinct rows in ascending order.
        place: shape (N,): position in ``rows`` of each entry.
        units: shape (N,): the unit of each entry.
        source: shape (N,).
        weights: shape (N,), float64.
        gradients: shape (S, D), float32; float64 where repeated rows of a unit had to be summed.
    """

    rows: torch.Tensor
    place: torch.Tensor
    units: torch.Tensor
    source: torch.Tensor
    weights: torch.Tensor
    gradients: torch.Tensor

    @cached_property
    def squares(self) -> torch.Tensor:
        """Squared norm of each of ``gradients``, shape (S,), float64."""
        squares = torch.linalg.vecdot(self.gradients, self.gradients).double()
        # In float32, squares of finite numbers overflow, and those of small ones vanish that a weight may enlarge.
        unsure = torch.nonzero((squares < SMALLEST_SQUARE) | ~torch.isfinite(squares)).reshape(-1)
        if len(unsure):
            squares[unsure] = self.gradients[unsure].double().square().sum(dim=1)
        return squares

    @cached_property
    def moving(self) -> torch.Tensor:
        """Entries whose gradient is not zero: masked padding has none."""
        return torch.nonzero(self.squares[self.source] > 0).reshape(-1)


def table_gradients(
    lookups: Sequence[Lookup], unit_of: torch.Tensor | None, units: int, *, scale: float = 1.0
) -> TableGradients | None:
    """The gradients that a backward pass left in ``lookups``; ``None`` where no lookup but padding reached the loss.

    Args:
        unit_of: shape (count,): the unit of every place of the lookups' first axis; ``None`` where each is a unit.
        units: how many units the batch holds.
        scale: factor of every gradient: the batch's size where the loss is a mean.

    Raises:
        PrivacyConfigError: a lookup's first axis does not count the units.
    """
    used = [lookup for lookup in lookups if lookup.output.grad is not None and len(lookup.place)]
    if not used:
        return None
    rows, place = used[0].touched, used[0].place
    if len(used) > 1:
        rows, place = torch.unique(torch.cat([k.touched[k.place] for k in used]), return_inverse=True)
    first = torch.tensor([0, *(len(k.output) for k in used)]).cumsum(0).tolist()
    source = torch.cat([k.source + start for k, start in zip(used, first, strict=False)])
    owner = torch.cat([_unit_of_source(k, unit_of, units)[k.source] for k in used])
    weights = torch.cat([_weights(k) for k in used]).mul_(scale)
    gradients = torch.cat([_grad(k) for k in used]) if len(used) > 1 else _grad(used[0])
    return _merged(rows, place, owner, source=source, weights=weights, gradients=gradients, units=units)


def _grad(lookup: Lookup) -> torch.Tensor:
    grad = lookup.output.grad
    return torch.zeros_like(lookup.output) if grad is None else grad


def _weights(lookup: Lookup) -> torch.Tensor:
    if lookup.weights is not None:
        return lookup.weights.double()
    return torch.ones(len(lookup.place), dtype=torch.float64, device=lookup.place.device)


def _unit_of_source(lookup: Lookup, unit_of: torch.Tensor | None, units: int) -> torch.Tensor:
    expected = units if unit_of is None else len(unit_of)
    if lookup.count != expected or len(lookup.output) % max(expected, 1):
        raise PrivacyConfigError(
            f"a table was read for {lookup.count} units, the batch has {expected}: the first axis of every lookup must "
            "count the units",
            remedy="Keep one batch entry a unit; pad with the table's padding row.",
        )
    owner = torch.arange(units, device=lookup.place.device) if unit_of is None else unit_of
    return owner.repeat_interleave(len(lookup.output) // expected)


# exception: the arrays of one table's entries belong together and have no name before they are merged.
def _merged(
    rows: torch.Tensor,
    place: torch.Tensor,
    owner: torch.Tensor,
    *,
    source: torch.Tensor,
    weights: torch.Tensor,
    gradients: torch.Tensor,
    units: int,
) -> TableGradients | None:
    """Sort the entries and add up the weights of equal ones: what a bag holds twice is one entry of double weight."""
    key = (place * units + owner) * len(gradients) + source
    if not bool((key[1:] >= key[:-1]).all()):  # one lookup of units in order is sorted as it comes
        key, order = torch.sort(key)
        place, owner, source, weights = place[order], owner[order], source[order], weights[order]
    new = torch.ones(len(key), dtype=torch.bool, device=key.device)
    torch.ne(key[1:], key[:-1], out=new[1:])
    if not bool(new.all()):
        run = torch.cumsum(new, 0) - 1
        weights = torch.zeros(int(run[-1]) + 1, dtype=torch.float64, device=key.device).index_add_(0, run, weights)
        place, owner, source = place[new], owner[new], source[new]
    used = weights != 0.0  # padding
    if not bool(used.any()):
        return None
    if not bool(used.all()):
        owner, source, weights = owner[used], source[used], weights[used]
        rows, place = torch.unique(rows[place[used]], return_inverse=True)
    return _repeats_summed(TableGradients(rows, place, owner, source, weights, gradients))


def _repeats_summed(found: TableGradients) -> TableGradients:
    """One entry a (row, unit): the entries of a repeated one are summed now.

    The norm and the sum then see the very same vector: were the parts added to other units' one by one, two huge ones
    that cancel would wipe out what had been added before, though their norm is zero.
    """
    same = (found.place[1:] == found.place[:-1]) & (found.units[1:] == found.units[:-1])
    if not bool(same.any()):
        return found
    no = torch.zeros(1, dtype=torch.bool, device=same.device)
    later, repeated = torch.cat([no, same]), torch.cat([no, same]) | torch.cat([same, no])
    entries = torch.nonzero(repeated).reshape(-1)
    run = torch.cumsum((~later[entries]).long(), 0) - 1
    values = found.gradients.index_select(0, found.source[entries]).double().mul_(found.weights[entries, None])
    sums = torch.zeros(int(run[-1]) + 1, values.shape[1], dtype=torch.float64, device=same.device)
    sums.index_add_(0, run, values)
    source, weights = found.source.clone(), found.weights.clone()
    first = entries[~later[entries]]
    source[first] = len(found.gradients) + torch.arange(len(sums), device=same.device)
    weights[first] = 1.0
    kept = ~later
    gradients = torch.cat([found.gradients.double(), sums])
    return TableGradients(found.rows, found.place[kept], found.units[kept], source[kept], weights[kept], gradients)


def squared_norms(found: TableGradients, units: int) -> torch.Tensor:
    """Squared norm of each unit's gradient of this table, repeated rows summed first; shape (units,), float64.

    Never below the exact value; infinite or NaN where a gradient is not finite.
    """
    single = found.squares[found.source].mul_(found.weights.square())
    total = torch.zeros(units, dtype=torch.float64, device=single.device).index_add_(0, found.units, single)
    return total * (1 + found.gradients.shape[1] * 2.0**-23)


def clip_factors(squares: torch.Tensor, l2_clip_norm: float) -> torch.Tensor:
    """``min(1, C / norm)`` for each unit; exactly 0 where the norm is NaN or infinite. Shape (units,), float64."""
    norms = squares.sqrt().clamp(min=torch.finfo(torch.float64).tiny)
    factors = (l2_clip_norm / norms).clamp(max=1.0)
    return torch.where(torch.isfinite(squares), factors, torch.zeros_like(factors))


@dataclass(frozen=True)
class RowSums:
    """Clipped sums of the rows that a batch touched.

    Attributes:
        rows: shape (R,), int64: distinct rows in ascending order.
        votes: shape (R,), float64: sums of the units' votes for each row; ``None`` where no rows are selected.
        blocks: gives (positions in ``rows``, sums of shape (positions, D), float64), block by block in order. Blocks
            are small, so that noise can be added and the rows written while they are in the cache.
        only: the same, of some of the rows (ascending positions) at their cost.
    """

    rows: torch.Tensor
    votes: torch.Tensor | None
    blocks: Callable[[], Iterator[tuple[slice, torch.Tensor]]]
    only: Callable[[torch.Tensor], RowSums]

    def dense(self) -> torch.Tensor:
        """All sums, shape (R, D), float64; at least one row is touched."""
        return torch.cat([sums for _, sums in self.blocks()])

    def held(self) -> RowSums:
        """The same, computed now: whatever it was computed from may be forgotten."""
        return _given_sums(self.rows, self.votes, self.dense())


def row_sums(found: TableGradients, factors: torch.Tensor, votes: torch.Tensor | None = None) -> RowSums:
    """The clipped sums S of ``found``, and where ``votes`` (units,) are given, their sums for every row."""
    counted = None
    if votes is not None:
        pairs = found.moving
        counted = torch.zeros(len(found.rows), dtype=torch.float64, device=found.place.device)
        counted.index_add_(0, found.place[pairs], votes[found.units[pairs]])
    return RowSums(
        found.rows,
        counted,
        lambda: _sum_blocks(found, factors),
        lambda kept: row_sums(_restricted(found, kept), factors),
    )


def _restricted(found: TableGradients, kept: torch.Tensor) -> TableGradients:
    """``found`` with the rows at the ascending positions ``kept`` alone."""
    place = torch.full((len(found.rows),), -1, dtype=torch.int64, device=kept.device)
    place[kept] = torch.arange(len(kept), device=kept.device)
    inside = place[found.place] >= 0
    return TableGradients(
        found.rows[kept],
        place[found.place[inside]],
        found.units[inside],
        found.source[inside],
        found.weights[inside],
        found.gradients,
    )


def merged_sums(parts: Sequence[RowSums]) -> RowSums | None:
    """The sum of several: the pieces of one logical batch; ``None`` of none."""
    if len(parts) <= 1:
        return parts[0] if parts else None
    rows, place = torch.unique(torch.cat([part.rows for part in parts]), return_inverse=True)
    values = torch.cat([part.dense() for part in parts])
    sums = torch.zeros((len(rows), values.shape[1]), dtype=torch.float64, device=rows.device)
    sums.index_add_(0, place, values)
    votes = None
    if parts[0].votes is not None:
        votes = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
        votes.index_add_(0, place, torch.cat([part.votes for part in parts if part.votes is not None]))
    return _given_sums(rows, votes, sums)


def _given_sums(rows: torch.Tensor, votes: torch.Tensor | None, sums: torch.Tensor) -> RowSums:
    return RowSums(
        rows,
        votes,
        lambda: iter([(slice(0, len(rows)), sums)]),
        lambda kept: _given_sums(rows[kept], None, sums[kept]),
    )


def _sum_blocks(found: TableGradients, factors: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    gradients = found.gradients.double()
    if bool((factors == 0).any()):  # a factor of zero must also silence NaN
        silent = torch.ones(len(gradients), dtype=torch.bool, device=gradients.device)
        silent[found.source] = factors[found.units] == 0
        gradients[silent] = 0.0
    factor = factors[found.units]
    weights = torch.where(factor == 0, torch.zeros_like(factor), found.weights * factor)
    starts = torch.searchsorted(found.place, torch.arange(len(found.rows), device=found.place.device))
    for first in range(0, len(found.rows), BLOCK_ROWS):
        rows = slice(first, min(first + BLOCK_ROWS, len(found.rows)))
        begin = int(starts[first])
        end = int(starts[rows.stop]) if rows.stop < len(found.rows) else len(found.place)
        sums = functional.embedding_bag(
            found.source[begin:end],
            gradients,
            starts[rows] - begin,
            mode="sum",
            per_sample_weights=weights[begin:end],
        )
        yield rows, sums
