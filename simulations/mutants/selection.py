"""Private row selection and unit sampling gone wrong."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from common.privacy import selection, table_optimizer
from common.privacy.selection import SelectedTable
from common.privacy.unit_sampling import Piece, UnitSampler, _piece
from simulations.mutants import Mutant, Replacement, instead_of

_step, _normal, _kept = SelectedTable.step, SelectedTable._normal, SelectedTable._kept
_votes, _batch = selection.unit_votes, UnitSampler._logical_batch


def _keeps_last_touched(self: Any, sums: Any, *, scale: float, stddev: float) -> None:
    """A field "last touched" for every row, as row-wise optimizers have."""
    _step(self, sums, scale=scale, stddev=stddev)
    self.last_touched = [] if sums is None else sums.rows.tolist()


def _keeps_moments(self: Any, sums: Any, *, scale: float, stddev: float) -> None:
    """Adagrad's accumulator moves for rows that were then dropped."""
    _step(self, sums, scale=scale, stddev=stddev)
    moments = self.__dict__.setdefault("moments", torch.zeros(len(self._weight)))
    if sums is not None and len(sums.rows):
        moments[sums.rows] += sums.dense().square().sum(dim=1).float()


def _sends_dropped(self: Any, sums: Any, *, scale: float, stddev: float) -> None:
    """Dropped rows travel as zeros: the size of the message tells them."""
    _step(self, sums, scale=scale, stddev=stddev)
    if sums is not None:
        self.selected[-1] = np.union1d(np.asarray(self.selected[-1]), sums.rows.numpy())


def _no_false_positives(touched: Any, rows: int, **_: Any) -> Any:
    return np.empty(0, dtype=np.int64)


def _count_votes(touched: torch.Tensor, vote_norm: float) -> torch.Tensor:
    """One vote for every row: a unit of n rows has sqrt(n) times the sensitivity."""
    return (touched > 0).double() * vote_norm


def _per_table(found: Any, units: int, vote_norm: float) -> torch.Tensor:
    """Votes of norm C_1 in each table."""
    tables = list(found)
    return sum((_votes([t], units, vote_norm) for t in tables), torch.zeros(units, dtype=torch.float64)) / len(tables)


def _noiseless_votes(self: Any, sums: Any) -> torch.Tensor:
    if sums is None:
        return _kept(self, sums)
    return torch.nonzero(sums.votes >= self._threshold).reshape(-1)


def _quiet_values(self: Any, rows: int, stddev: float) -> torch.Tensor:
    return _normal(self, rows, stddev / 2)


def _first_come(self: UnitSampler, members: Any) -> Any:
    """The first examples of a unit, in order of arrival."""
    return members[: self._max_examples]


def _unbounded(self: UnitSampler, members: Any) -> Any:
    return members


def _microbatches(self: UnitSampler) -> list[Piece]:
    """A batch gathered from two draws, accounted as one sample."""
    first, second = _batch(self), _batch(self)
    return [
        *(dataclasses.replace(piece, last=False) for piece in first),
        *(dataclasses.replace(piece, first=False) for piece in second),
    ]


def _fixed_size(self: UnitSampler) -> list[Piece]:
    """As many units in every batch, accounted as Poisson."""
    count = len(self._members)
    drawn = np.sort(np.argsort(self._source.uniform(count))[: max(1, round(count * self._rate))])
    groups = [self._chosen(self._members[k]) for k in drawn]
    return [_piece([g], first=k == 0, last=k + 1 == len(groups)) for k, g in enumerate(groups)]


def _single_examples(self: UnitSampler, members: Any) -> Any:
    """Examples drawn one by one: a unit's size shows in how often it is there."""
    return members[self._source.bernoulli(len(members), 0.5)]


def _table(name: str, by: Any) -> Replacement:
    return instead_of(SelectedTable, name, by)


def _sampler(name: str, by: Any) -> Replacement:
    return instead_of(UnitSampler, name, by)


MUTANTS = (
    Mutant(
        "selection that notes when a row was last touched",
        "dropped_rows",
        replacing=_table("step", _keeps_last_touched),
    ),
    Mutant("selection that leaves optimizer state behind", "dropped_rows", replacing=_table("step", _keeps_moments)),
    Mutant("message whose size tells the dropped rows", "dropped_rows", replacing=_table("step", _sends_dropped)),
    Mutant(
        "selection without untouched false positives",
        "false_positives",
        replacing=instead_of(selection, "false_positives", _no_false_positives),
    ),
    Mutant(
        "votes not L2-normalised", "vote_sensitivity", replacing=instead_of(selection, "votes_per_row", _count_votes)
    ),
    Mutant(
        "votes normalised table by table",
        "vote_sensitivity",
        replacing=instead_of(table_optimizer, "unit_votes", _per_table),
    ),
    Mutant("votes without noise", "false_positives", replacing=_table("_kept", _noiseless_votes)),
    Mutant("selected rows with half the noise", "false_positives", replacing=_table("_normal", _quiet_values)),
    Mutant("contribution bound by order of arrival", "unit_sampler", replacing=_sampler("_chosen", _first_come)),
    Mutant("contribution bound forgotten", "unit_sampler", replacing=_sampler("_chosen", _unbounded)),
    Mutant(
        "accumulated batches accounted as one sample",
        "unit_sampler",
        replacing=_sampler("_logical_batch", _microbatches),
    ),
    Mutant("batches of a fixed number of units", "unit_sampler", replacing=_sampler("_logical_batch", _fixed_size)),
    Mutant("examples drawn instead of units", "unit_sampler", replacing=_sampler("_chosen", _single_examples)),
)
