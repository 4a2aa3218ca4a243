"""What is asked about real clients: units and interactions of which a coin leaves out half before the run.

What was trained on and what was left out differ by that coin alone, so that guessing is right half of the time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from common.evaluation.view import Candidates, Interactions
from common.table import IntArray
from common.units import ClientStore, Units

MOST_ASKED, SHARE_ASKED = 4000, 0.2
FEWEST_ASKED_OF = 20  # units or users: of fewer nothing is left out
FEWEST_KNOWN = 2  # items that are known of a user, besides the one that is asked for
_ROWS = ("rows", "items")  # what families call the column with the row of every element


@dataclass(frozen=True)
class Asked:
    """The questions of one audit, their answers, and the data before anything was left out.

    Attributes:
        whole: every real client with all of its units.
        units: shape (N,), number of each candidate among the units of ``whole``.
        candidates: these units; ``None`` where units hold no rows.
        member: shape (N,), which of them were left in.
        interactions: users' items, where the data hold users.
        interacted: shape (M,), which of them were left in.
    """

    whole: ClientStore
    units: IntArray
    candidates: Candidates | None = None
    member: NDArray[np.bool_] | None = None
    interactions: Interactions | None = None
    interacted: NDArray[np.bool_] | None = None


def rows_of(units: Units) -> IntArray | None:
    """The row of every element, as the family encoded it; ``None`` for encoders, whose data hold no rows."""
    for name in _ROWS:
        if name in units.columns:
            return units.columns[name].astype(np.int64)
    return None


def with_questions(whole: ClientStore, rng: np.random.Generator) -> tuple[ClientStore, Asked]:
    """What is left to train on, and what will be asked."""
    units, rows, asked = whole.units, rows_of(whole.units), Asked(whole, np.empty(0, np.int64))
    if rows is None:
        return whole, asked
    kept, gone = np.ones(units.count, bool), np.zeros(len(rows), bool)
    chosen = _drawn(np.flatnonzero(np.diff(units.offsets) >= 2), rng)  # of one row alone no table tells anything
    if len(chosen):
        member = rng.random(len(chosen)) < 0.5
        kept[chosen[~member]] = False
        candidates = Candidates(Units(units.offsets, {"rows": rows}).take(chosen))
        asked = replace(asked, units=chosen, candidates=candidates, member=member)
    if "users" in units.columns:
        places, known = _interactions(whole, rows, chosen, rng)
        if len(places):
            interacted = rng.random(len(places)) < 0.5
            gone[places[~interacted]] = True
            asked = replace(asked, interactions=Interactions(known, rows[places]), interacted=interacted)
    offsets = np.concatenate([[0], np.cumsum(kept)])[whole.offsets].astype(np.int64)
    return replace(whole, offsets=offsets, units=_without(units, gone).take(np.flatnonzero(kept))), asked


def _drawn(of: IntArray, rng: np.random.Generator) -> IntArray:
    """A fifth of them, ascending; none of too few."""
    if len(of) < FEWEST_ASKED_OF:
        return of[:0]
    return np.sort(rng.choice(of, min(MOST_ASKED, int(SHARE_ASKED * len(of))), replace=False))


def _interactions(
    whole: ClientStore, rows: IntArray, candidates: IntArray, rng: np.random.Generator
) -> tuple[IntArray, Units]:
    """One element of each of some users, ascending, and the rows that are otherwise known of that user.

    Users with a candidate unit are not asked for, because they may be left out; nor are items that a user has twice.
    """
    unit = np.repeat(np.arange(whole.units.count), np.diff(whole.units.offsets))
    client = np.repeat(np.arange(len(whole)), np.diff(whole.offsets))[unit]
    users = whole.units.columns["users"].astype(np.int64)
    person = np.unique(client * (int(users.max(initial=0)) + 1) + users, return_inverse=True)[1].reshape(-1)
    _, held, times = np.unique(person * (int(rows.max(initial=0)) + 1) + rows, return_inverse=True, return_counts=True)
    once = times[held.reshape(-1)] == 1
    sizes = np.bincount(person)
    fit = (sizes > FEWEST_KNOWN) & (np.bincount(person, weights=once) > 0)
    fit[person[np.isin(unit, candidates)]] = False
    chosen = _drawn(np.flatnonzero(fit), rng)
    lots = np.where(once, rng.random(len(person)), -1.0)
    order = np.lexsort((lots, person))  # of every person, an element drawn at random comes last
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    places = order[starts[chosen + 1] - 1]
    own = Units(starts, {"places": order}).take(chosen)
    others = _without(own, np.isin(own.columns["places"], places))
    return places, Units(others.offsets, {"rows": rows[others.columns["places"]]})


def _without(units: Units, gone: NDArray[np.bool_]) -> Units:
    """Every unit without some of its elements."""
    offsets = np.concatenate([[0], np.cumsum(~gone)])[units.offsets].astype(np.int64)
    return Units(offsets, {name: column[~gone] for name, column in units.columns.items()})
