"""Votes on rows: what a client casts, what is selected, what is left of an update; with oracles and broken versions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import PrivacyConfigError, WireError
from common.privacy import selected_rows
from common.privacy.clipping import clip
from common.privacy.grid import SecureSum
from common.privacy.private_sum import Released
from common.privacy.rng import NoiseSource
from common.privacy.row_votes import RowVotes, VoteGrid, slot_specs, vote_grid
from common.privacy.selected_rows import (
    checked_rows,
    client_votes,
    counted,
    noised_votes,
    on_rows,
    restricted,
    rows_bytes,
)
from common.update import ParameterSpec, RowBatch, UpdateBatch, squared_norms

ROWS = 60


def terms(rows: int = ROWS, **changes: int) -> RowVotes:
    return RowVotes(**{"max_selected_rows": 8, "rows_per_client": 5, "rows": rows} | changes)


def made(
    noise: float = 1.0, threshold: float = 4.0, clients: tuple[int, int, int] = (40, 30, 2), **changes: int
) -> Any:
    most, least, colluders = clients
    secure = SecureSum("full", max_clients=most, survivors=least, colluders=colluders, roster=False)
    return vote_grid(terms(**changes), secure, noise_multiplier=noise, threshold=threshold)


def source(seed: int = 0) -> NoiseSource:
    return NoiseSource.seeded_for_tests(seed)


def summed(grid: VoteGrid, votes: list[np.ndarray], seed: int = 0) -> np.ndarray:
    """The secure sum, in Python's integers."""
    sent = [noised_votes(grid, v, source(seed).derive(k), test_mode=True) for k, v in enumerate(votes)]
    dtype = sent[0].dtype
    return np.array([sum(map(int, column)) % 2**grid.bits for column in zip(*sent, strict=True)], dtype=dtype)


@settings(max_examples=40, deadline=None)
@given(held=st.lists(st.integers(-3, ROWS + 3), max_size=40), seed=st.integers(0, 5))
def test_a_client_is_at_most_m_ones_on_rows_that_it_holds(held: list[int], seed: int) -> None:
    votes = client_votes(terms(), np.array(held, np.int64), source(seed))
    wanted = {row for row in held if 0 <= row < ROWS}
    assert votes.shape == (ROWS,) and set(votes.tolist()) <= {0, 1}
    assert set(np.flatnonzero(votes).tolist()) <= wanted and votes.sum() == min(len(wanted), 5)
    assert float(np.sqrt((votes**2).sum())) <= math.sqrt(5)  # L2; the L1 norm is the number of ones


def choice_is_even(votes_of: Callable[..., np.ndarray]) -> bool:
    """Each of twelve rows gets 5 of 12 of the votes, whatever its number and how often it occurs."""
    held = np.array([3] * 50 + list(range(10, 21)))
    draws = 600
    cast = sum(votes_of(terms(), held, source(1).derive(k))[np.unique(held)] for k in range(draws))
    share = 5 / 12
    return bool(np.all(np.abs(cast - draws * share) < 5 * math.sqrt(draws * share * (1 - share))))


def test_of_more_rows_a_random_choice_gets_votes() -> None:
    assert choice_is_even(client_votes)


def test_the_test_of_choice_sees_votes_for_the_first_rows_and_for_the_most_frequent() -> None:
    def first(which: RowVotes, held: np.ndarray, _: NoiseSource) -> np.ndarray:
        votes = np.zeros(which.rows, np.int64)
        votes[np.unique(held)[: which.rows_per_client]] = 1
        return votes

    def by_occurrence(which: RowVotes, held: np.ndarray, own: NoiseSource) -> np.ndarray:
        votes = np.zeros(which.rows, np.int64)
        votes[held[own.integers(which.rows_per_client, len(held))]] = 1
        return votes

    assert not choice_is_even(first) and not choice_is_even(by_occurrence)


def test_votes_over_the_cap_are_never_sent() -> None:
    grid = made()
    for bad in (np.ones(ROWS, np.int64), np.full(ROWS, -1), 2 * np.eye(1, ROWS, dtype=np.int64)[0], np.zeros(3, int)):
        with pytest.raises(PrivacyConfigError, match="a client votes once"):
            noised_votes(grid, bad, source(), test_mode=True)
    with pytest.raises(PrivacyConfigError, match="seeded source"):
        noised_votes(grid, np.zeros(ROWS, np.int64), source(), test_mode=False)


def test_every_row_carries_noise_whether_anybody_voted_for_it_or_not() -> None:
    """A share has the variance that T - c of them need, on rows with and without votes alike."""
    grid = made(noise=2.0, rows=4000)
    votes = np.zeros(4000, np.int64)
    votes[:5] = 1
    sent = noised_votes(grid, votes, source(), test_mode=True).astype(np.int64)
    centred = (sent + 2 ** (grid.bits - 1)) % 2**grid.bits - 2 ** (grid.bits - 1) - votes
    share = (2.0 * math.sqrt(5)) ** 2 / 28
    assert share <= 2 * grid.share < share * 1.000001
    assert abs(np.var(centred[5:]) / share - 1) < 0.25
    assert np.count_nonzero(centred) > 0.2 * 4000


def test_the_event_is_that_of_the_guaranteed_shares_and_of_m_ones() -> None:
    grid: Any = made(noise=2.0)
    event = grid.event()
    assert event.variance == pytest.approx(4 * 5) and event.variance <= 2 * grid.share * 28
    assert event.l1_sensitivity == 5 and event.l2_sensitivity == pytest.approx(math.sqrt(5), rel=1e-12)
    assert event.l2_sensitivity >= math.sqrt(5)
    assert made(rows_per_client=1).event().l1_sensitivity >= made(rows_per_client=1).event().l2_sensitivity


def test_the_noised_sum_is_counted_right_on_both_sides_of_zero() -> None:
    grid = made(noise=3.0)
    votes = [client_votes(terms(), np.arange(0, 5), source(k)) for k in range(40)]
    total = summed(grid, votes)
    counts = counted(grid, total)
    plain = np.sum(votes, axis=0)
    assert counts.min() < 0 < counts.max()
    assert np.abs(counts - plain).max() <= grid.reach
    assert abs(np.std(counts - plain) / grid.noise_stddev(40) - 1) < 0.4


@pytest.mark.parametrize(("clients", "noise", "bits"), [((100, 80, 0), 1.0, 8), ((1000, 800, 0), 1.0, 11)])
def test_the_bits_are_the_fewest_that_hold_all_votes_and_the_noise(
    clients: tuple[int, int, int], noise: float, bits: int
) -> None:
    grid = made(noise=noise, clients=clients, rows=1000, rows_per_client=50)
    assert grid.bits == bits
    assert clients[0] + 2 * grid.reach < 2**bits and (bits == 8 or clients[0] + 2 * grid.reach >= 2 ** (bits - 1))
    top, bottom = np.full(1000, clients[0] + grid.reach), np.full(1000, -grid.reach)
    for extreme in (top, bottom):
        wrapped = (extreme % 2**bits).astype(np.uint8 if bits == 8 else np.uint16)
        assert np.array_equal(counted(grid, wrapped), extreme)


def oracle(grid: VoteGrid, counts: list[int]) -> list[int]:
    """S by sorting pairs."""
    enough = [(-count, row) for row, count in enumerate(counts) if count >= grid.threshold]
    return sorted(row for _, row in sorted(enough)[: grid.terms.max_selected_rows])


def agrees_with_the_oracle(choose: Callable[..., np.ndarray], counts: list[int]) -> bool:
    grid = made(threshold=0.5, rows=len(counts), max_selected_rows=4, rows_per_client=4)
    total = (np.array(counts) % 2**grid.bits).astype(np.uint8)
    return choose(grid, total).tolist() == oracle(grid, counts)


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(-12, 40), min_size=4, max_size=30))
def test_selected_are_the_rows_with_most_votes_over_the_threshold(counts: list[int]) -> None:
    assert agrees_with_the_oracle(selected_rows.selected_rows, counts)


def test_the_oracle_sees_ties_by_size_of_number_and_a_cut_by_order() -> None:
    counts = [9, 9, 30, 9, 9, 9, 30]

    def last_of_a_tie(grid: VoteGrid, total: np.ndarray) -> np.ndarray:
        found = counted(grid, total)
        rows = np.flatnonzero(found >= grid.threshold)
        return np.sort(rows[np.lexsort((-rows, -found[rows]))[:4]])

    def first_rows(grid: VoteGrid, total: np.ndarray) -> np.ndarray:
        return np.flatnonzero(counted(grid, total) >= grid.threshold)[:4]

    assert agrees_with_the_oracle(selected_rows.selected_rows, counts)
    assert not agrees_with_the_oracle(last_of_a_tie, counts) and not agrees_with_the_oracle(first_rows, counts)


def test_the_threshold_is_the_floor_of_contributors_beyond_the_noise() -> None:
    grid = made(noise=1.0, threshold=3.0, min_contributors=7)
    assert grid.threshold == pytest.approx(7 + 3 * math.sqrt(5), rel=1e-6)
    assert grid.stddev == pytest.approx(math.sqrt(5), rel=1e-6)


def test_sums_of_another_kind_are_refused() -> None:
    grid = made()
    for bad in (np.zeros(3, np.uint16), np.zeros(ROWS, np.int64), np.full(ROWS, 2**grid.bits, np.uint32)):
        with pytest.raises(WireError, match="sum of votes"):
            counted(grid, bad)


def test_a_selection_is_sent_and_read_back_or_refused() -> None:
    rows = np.array([0, 7, 59])
    assert np.array_equal(checked_rows(terms(), rows_bytes(rows)), rows)
    assert len(checked_rows(terms(), b"")) == 0
    many = rows_bytes(np.arange(9))
    for bad in (b"abc", rows_bytes(np.array([3, 3])), rows_bytes(np.array([5, 4])), rows_bytes(np.array([60])), many):
        with pytest.raises(WireError, match="selection"):
            checked_rows(terms(), bad)


SPECS = (
    ParameterSpec("centre", (ROWS, 3), "words"),
    ParameterSpec("bias", (4,)),
    ParameterSpec("b", (ROWS, 1), "words"),
)


def update(seed: int = 0) -> UpdateBatch:
    rng = np.random.default_rng(seed)
    offsets, ids = np.array([0, 4, 4, 7]), np.array([1, 5, 9, 30, 2, 5, 59])
    values = rng.standard_normal((7, 3)).astype(np.float32)
    return UpdateBatch(3, {"centre": RowBatch(offsets, ids, values)}, {"bias": np.ones((3, 4), np.float32)})


def test_an_update_is_cut_down_to_the_rows_selected_and_numbered_by_their_slots() -> None:
    rows = np.array([2, 5, 30])
    batch, kept = update(), restricted(update(), rows)
    table, before = kept.rows["centre"], batch.rows["centre"]
    for k in range(3):
        wanted = {
            rows.tolist().index(int(i)): before.values[j]
            for j, i in enumerate(before.ids)
            if before.owners[j] == k and i in rows
        }
        lo, hi = table.offsets[k], table.offsets[k + 1]
        assert table.ids[lo:hi].tolist() == sorted(wanted)
        assert all(np.array_equal(table.values[lo + j], wanted[i]) for j, i in enumerate(sorted(wanted)))
    assert np.array_equal(kept.dense["bias"], batch.dense["bias"])
    assert len(restricted(update(), np.empty(0, np.int64)).rows["centre"].ids) == 0


def test_clipped_after_the_cut_the_rows_selected_keep_their_length() -> None:
    batch, rows = update(), np.array([5])
    after = clip(restricted(batch, rows), 0.5).batch
    before = restricted(clip(batch, 0.5).batch, rows)
    assert squared_norms(after)[0] == pytest.approx(0.25, rel=1e-4)
    assert squared_norms(after)[0] > 1.05 * squared_norms(before)[0]


def test_what_is_not_finite_elsewhere_does_not_spoil_the_rows_selected() -> None:
    batch = update()
    batch.rows["centre"].values[0] = math.nan  # row 1
    kept = clip(restricted(batch, np.array([5, 9])), 10.0)
    assert kept.rejected_count == 0 and np.all(np.isfinite(kept.batch.rows["centre"].values))


def test_slots_are_decoded_to_the_rows_selected_and_the_others_dropped() -> None:
    slots = slot_specs(SPECS, terms())
    assert [s.shape for s in slots] == [(8, 3), (4,), (8, 1)]
    values = np.arange(24, dtype=np.float32).reshape(8, 3)
    found = on_rows(Released({"centre": (None, values)}, {"bias": np.ones(4, np.float32)}), np.array([4, 8]))
    ids, kept = found.rows["centre"]
    assert ids is not None and ids.tolist() == [4, 8] and np.array_equal(kept, values[:2])
    with pytest.raises(PrivacyConfigError, match="one row domain"):
        slot_specs((ParameterSpec("other", (ROWS + 1, 3), "items"),), terms())


def test_rounds_that_vote() -> None:
    def voting(every: int, rounds: int = 7) -> list[int]:
        which = terms(select_every=every)
        found = [number for number in range(1, rounds + 1) if which.selects(number)]
        assert [which.selections(r) for r in range(rounds + 1)] == [
            sum(n <= r for n in found) for r in range(rounds + 1)
        ]
        return found

    assert voting(1) == [1, 2, 3, 4, 5, 6, 7] and voting(3) == [1, 4, 7] and voting(0) == [1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_selected_rows": 0},
        {"rows_per_client": 0},
        {"max_selected_rows": 61},
        {"rows_per_client": 61},
        {"min_contributors": 0},
        {"select_every": -1},
        {"rows": -1},
    ],
)
def test_terms_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(PrivacyConfigError):
        terms(**wrong)


@pytest.mark.parametrize("noise", [1e-3, 1e7])
def test_noise_that_cannot_be_drawn_is_refused(noise: float) -> None:
    with pytest.raises(PrivacyConfigError, match="cannot be drawn"):
        made(noise=noise)


def test_votes_on_an_unknown_row_domain_account_nothing() -> None:
    with pytest.raises(PrivacyConfigError, match="not known yet"):
        made(rows=0)
