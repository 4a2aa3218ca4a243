"""Two sums that differ by one client: pairs against loops over sets, exact rows, and what noise leaves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import EvaluationError
from common.evaluation.leakage.differencing import ATTACK, cohort_pairs
from common.evaluation.view import RoundView, View

from ._leakage_world import CLIENTS, ROWS, World, by_metric, released

WHOLE = np.arange(10)


def of_one_model(world: World, *, noise: float = 0.0, missing: int = 9) -> View:
    """Sums over ten clients, and over all of them but one, of the very same updates."""
    updates = np.array([world.update(client) for client in WHOLE])
    rounds = []
    for cohort in (WHOLE, np.delete(WHOLE, missing)):
        total = updates[cohort].astype(np.float64).sum(axis=0)
        total = total + noise * world.rng.normal(size=total.shape)
        rounds.append(RoundView(cohort, total=released(total, dense=noise > 0)))
    return world.view(*rounds)


@pytest.mark.parametrize("missing", range(0, 10, 3))
def test_what_does_not_cancel_is_the_clients(missing: int) -> None:
    world = World(0)
    leaks = by_metric(ATTACK.run(of_one_model(world, missing=missing), world.truth, seed=0))
    assert leaks["f1"].value == leaks["auc"].value == 1.0 and leaks["f1"].n == 1
    assert leaks["f1"].chance_value < 0.7 and leaks["f1"].above_chance is None


def test_sums_of_one_model_without_sparse_rows_cancel_as_well() -> None:
    world = World(1)
    view = of_one_model(world)
    full = [dataclasses.replace(r, total=filled(r, world)) for r in view.rounds]
    assert by_metric(ATTACK.run(world.view(*full), world.truth, seed=0))["f1"].value == 1.0


def filled(seen: RoundView, world: World):  # type: ignore[no-untyped-def]
    """The sum with something public on every row, so that it has no zeros."""
    whole = np.ones((ROWS, 6), np.float32)
    assert seen.total is not None
    ids, values = seen.total.rows["rows"]
    whole[ids] += values
    return released(whole, dense=True)


def test_sums_taken_in_another_order_cancel_but_for_rounding() -> None:
    world = World(6)
    updates = np.array([world.update(client) for client in WHOLE])
    rounds = []
    for cohort in (WHOLE, WHOLE[-2::-1]):
        total = np.zeros_like(updates[0])
        for client in cohort:
            total += updates[client]  # in float32
        rounds.append(RoundView(cohort, total=released(total, dense=False)))
    first, second = (r.total.rows["rows"] for r in rounds if r.total is not None)
    both = np.intersect1d(first[0], second[0], return_indices=True)
    assert (first[1][both[1]] != second[1][both[2]]).any(axis=1).mean() > 0.2
    leaks = by_metric(ATTACK.run(world.view(*rounds), world.truth, seed=0))
    assert leaks["f1"].value == 1.0


def test_dense_noise_leaves_the_prior() -> None:
    world = World(2)
    for leak in ATTACK.run(of_one_model(world, noise=1.0), world.truth, seed=0):
        assert leak.value == pytest.approx(leak.chance_value, abs=0.05), leak.metric


def test_when_the_model_has_moved_on_supports_still_tell() -> None:
    """Rows only in the greater sum are the client's, rows in neither are not; in between popularity decides."""
    world = World(3)
    view = world.view(
        RoundView(WHOLE, total=world.total(WHOLE.tolist())), RoundView(WHOLE[:-1], total=world.total(range(9)))
    )
    (guess,) = ATTACK.guess(view, world.truth.question, seed=0)
    others = set(np.concatenate([world.held[c] for c in range(9)]).tolist())
    own = set(world.held[9].tolist())
    for row in range(ROWS):
        if row in own - others:
            assert guess.odds[row] > 20
        elif row in others:
            assert guess.odds[row] == guess.prior[row]
        else:
            assert np.isneginf(guess.odds[row])
    leaks = by_metric(ATTACK.run(view, world.truth, seed=0))
    assert leaks["f1"].value > leaks["f1"].chance_value and leaks["auc"].value > leaks["auc"].chance_value


def slow_pairs(cohorts: list[set[int]]) -> dict[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = {}
    for a, whole in enumerate(cohorts):
        for b, part in enumerate(cohorts):
            if part < whole and len(whole - part) == 1:
                found.setdefault(*(whole - part), []).append((a, b))
    return found


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sets(st.integers(0, 5), min_size=1), min_size=1, max_size=8))
def test_pairs_equal_a_loop_over_sets(cohorts: list[set[int]]) -> None:
    world = World(0, clients=6)
    view = world.view(*(RoundView(np.array(sorted(c))) for c in cohorts))
    slow = slow_pairs(cohorts)
    if not slow:
        with pytest.raises(EvaluationError, match="differ by exactly one client"):
            cohort_pairs(view, list(range(len(cohorts))))
        return
    found = cohort_pairs(view, list(range(len(cohorts))))
    assert found.keys() == slow.keys()
    for client, (a, b) in found.items():
        assert (a, b) in slow[client] and abs(a - b) == min(abs(x - y) for x, y in slow[client])


def test_no_pair_no_figure() -> None:
    """Cohorts that differ by two clients, or have one exchanged, are no pair; equal ones neither."""
    world = World(4)
    for other in (WHOLE[:-2], np.append(WHOLE[:-1], 20), WHOLE):
        view = world.view(*(RoundView(c, total=world.total(c.tolist())) for c in (WHOLE, other)))
        with pytest.raises(EvaluationError, match="exactly one client"):
            ATTACK.run(view, world.truth, seed=0)
    hidden = world.view(RoundView(WHOLE, total=world.total(WHOLE.tolist())), RoundView(WHOLE[:-1]))
    with pytest.raises(EvaluationError, match="exactly one client"):
        ATTACK.run(hidden, world.truth, seed=0)


def test_many_clients_one_after_the_other() -> None:
    world = World(5)
    updates = [world.update(c).astype(np.float64) for c in range(CLIENTS)]
    rounds = []
    for last in range(CLIENTS - 1, CLIENTS - 8, -1):
        cohort = np.arange(last + 1)
        rounds.append(RoundView(cohort, total=released(np.sum([updates[c] for c in cohort], axis=0), dense=False)))
    leaks = by_metric(ATTACK.run(world.view(*rounds), world.truth, seed=0))
    assert leaks["f1"].value == 1.0 and leaks["f1"].n == 6 and leaks["f1"].above_chance
