"""Broken votes on rows and broken sums over the rows selected."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from common.privacy import selected_rows
from common.privacy.clipping import clip
from common.privacy.distributed import client_vectors
from common.privacy.plan import PrivacyPlan
from common.privacy.rng import NoiseSource
from common.privacy.row_votes import RowVotes, VoteGrid
from common.table import IntArray
from simulations.mutants import Mutant, instead_of

_client_votes, _noised_votes, _parts = selected_rows.client_votes, selected_rows.noised_votes, PrivacyPlan.parts


def _uncapped(terms: RowVotes, held: IntArray, source: NoiseSource) -> IntArray:
    """A vote for every row that the client holds."""
    return _client_votes(dataclasses.replace(terms, rows_per_client=terms.rows), held, source)


def _once_an_occurrence(terms: RowVotes, held: IntArray, source: NoiseSource) -> IntArray:
    """Counts occurrences, not rows."""
    votes = _client_votes(terms, held, source)
    counts = np.bincount(held[(held >= 0) & (held < terms.rows)], minlength=terms.rows)
    return np.asarray(votes * counts, dtype=np.int64)


def _first_rows(terms: RowVotes, held: IntArray, source: NoiseSource) -> IntArray:
    """The cap keeps the rows with the smallest numbers."""
    return _client_votes(terms, np.unique(held[(held >= 0) & (held < terms.rows)])[: terms.rows_per_client], source)


def _unchecked(grid: VoteGrid, votes: IntArray, source: NoiseSource, *, test_mode: bool) -> Any:
    """Sends whatever it is given."""
    noise = _noised_votes(grid, np.zeros_like(votes), source, test_mode=test_mode).astype(np.int64)
    return ((noise + votes) % 2**grid.bits).astype(np.uint16)


def _on_voted_rows(grid: VoteGrid, votes: IntArray, source: NoiseSource, *, test_mode: bool) -> Any:
    """Noise where there is a vote, and elsewhere none: a zero tells that nobody has the row."""
    sent = _noised_votes(grid, votes, source, test_mode=test_mode)
    return np.where(votes > 0, sent, 0).astype(sent.dtype)


def _without_noise(grid: VoteGrid, votes: IntArray, source: NoiseSource, *, test_mode: bool) -> Any:
    """Rows are selected from the true counts."""
    sent = _noised_votes(grid, votes, source, test_mode=test_mode)
    return votes.astype(sent.dtype)


def _less_noise(grid: VoteGrid, votes: IntArray, source: NoiseSource, *, test_mode: bool) -> Any:
    """A share for the clients enrolled."""
    less = dataclasses.replace(grid, share=grid.share * grid.secure.honest / grid.secure.max_clients)
    return _noised_votes(less, votes, source, test_mode=test_mode)


def _from_zero(grid: VoteGrid, total: Any) -> IntArray:
    """Forgets that the counts of noised votes go below zero: their remainders look large."""
    return np.asarray(total.astype(np.int64))


def _clipped_first(
    plan: PrivacyPlan, slots: Any, updates: Any, sources: Any, *, rows: IntArray, rotation_seed: int
) -> Any:
    """Clips the whole update, and sends the rows selected of it."""
    kept = selected_rows.restricted(clip(updates, plan.l2_clip_norm).batch, rows)
    return client_vectors(plan, slots, kept, sources, rotation_seed=rotation_seed)


def _values_alone(plan: PrivacyPlan, observer: str, rounds: int, selections: int | None = None) -> Any:
    """The votes cost nothing."""
    return {name: part for name, part in _parts(plan, observer, rounds, selections).items() if name != "votes"}


def _votes_once(plan: PrivacyPlan, observer: str, rounds: int, selections: int | None = None) -> Any:
    """However often rows are selected, one selection is accounted."""
    return _parts(plan, observer, rounds, min(1, rounds))


def _in(name: str, by: Any) -> Any:
    return instead_of(selected_rows, name, by)


MUTANTS = (
    Mutant("votes for all rows of a client", "row_votes_sensitivity", replacing=_in("client_votes", _uncapped)),
    Mutant("a vote for every occurrence", "row_votes_sensitivity", replacing=_in("client_votes", _once_an_occurrence)),
    Mutant("votes sent unchecked", "row_votes_sensitivity", replacing=_in("noised_votes", _unchecked)),
    Mutant("votes capped to the first rows", "row_votes_choice", replacing=_in("client_votes", _first_rows)),
    Mutant("noise on rows with votes alone", "row_votes_noise", replacing=_in("noised_votes", _on_voted_rows)),
    Mutant("share of vote noise for all enrolled", "row_votes_noise", replacing=_in("noised_votes", _less_noise)),
    Mutant(
        "rows selected from counts without noise", "row_votes_selection", replacing=_in("noised_votes", _without_noise)
    ),
    Mutant("negative counts taken as large ones", "row_votes_selection", replacing=_in("counted", _from_zero)),
    Mutant(
        "clipped before the rows are selected", "row_votes_values", replacing=_in("selected_vectors", _clipped_first)
    ),
    Mutant(
        "votes left out of the account", "row_votes_account", replacing=instead_of(PrivacyPlan, "parts", _values_alone)
    ),
    Mutant(
        "one selection accounted for all", "row_votes_account", replacing=instead_of(PrivacyPlan, "parts", _votes_once)
    ),
)
