"""Rows of a client from sums over rounds: the evidence against a loop, and its growth with participations."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import expit

from common.errors import EvaluationError
from common.evaluation.leakage import intersection
from common.evaluation.leakage._evidence import CERTAIN
from common.evaluation.leakage._rows import client_leaks, prior_odds
from common.evaluation.leakage.intersection import ATTACK, MISS, PRIOR_ROUNDS, gain
from common.evaluation.view import RoundView

from ._leakage_world import CLIENTS, ROWS, World, by_metric


def slow_gain(touched: np.ndarray, inside: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Bayes' rule on what was seen to be touched, row by row and round by round; touched: shape (T, V), bool."""
    found = []
    for row in range(touched.shape[1]):
        others = sum(float(touched[t, row]) for t in range(len(inside)) if not inside[t])
        b = (others + PRIOR_ROUNDS * usual[row]) / (sum(~inside) + PRIOR_ROUNDS)
        total = 0.0
        for t in np.flatnonzero(inside):
            if touched[t, row]:
                total += math.log(1 - MISS * (1 - b)) - math.log(b)
            else:
                total += math.log(MISS)
        found.append(total)
    return np.array(found)


def test_evidence_of_visible_supports_equals_bayes_rule() -> None:
    rng = np.random.default_rng(0)
    touched, inside, usual = rng.random((12, 40)) < 0.4, rng.random(12) < 0.5, rng.uniform(0.05, 0.9, 40)
    ratios = np.where(touched, CERTAIN, -np.inf).astype(np.float32)
    found = gain(ratios, touched.astype(np.float32), inside, usual=usual)
    assert np.allclose(found, slow_gain(touched, inside, usual), atol=1e-5)
    assert not np.allclose(found, slow_gain(touched, ~inside, usual), atol=0.5)


def test_hidden_supports_add_nothing() -> None:
    flat = np.zeros((5, 30), np.float32)
    half = np.full((5, 30), 0.5, np.float32)
    assert np.allclose(gain(flat, half, np.arange(5) < 3, usual=half[0].astype(float)), 0.0)


def test_rounds_tell_a_client_from_its_cohorts() -> None:
    """More participations, more rows: from sums of eight clients, nobody's update was ever seen alone."""
    world = World(0)
    rounds = world.rounds(110)
    values = [
        by_metric(ATTACK.run(world.view(*rounds[:n]), world.truth, seed=0)) for n in (4, 12, 37, 110)
    ]  # 1, 3, 10 and 30 participations
    f1s = [leaks["f1"].value for leaks in values]
    assert all(later > earlier + 0.03 for earlier, later in pairwise(f1s)), f1s
    assert f1s[-1] > 0.75 and values[-1]["auc"].value > 0.99
    assert all(leaks["f1"].chance_value < 0.6 for leaks in values)


def test_dense_noise_leaves_the_prior() -> None:
    world = World(1)
    for leak in ATTACK.run(world.view(*world.rounds(20, noise=3.0)), world.truth, seed=0):
        assert leak.value == pytest.approx(leak.chance_value, abs=0.02), leak.metric


def test_a_little_noise_still_tells() -> None:
    world = World(2)
    leaks = by_metric(ATTACK.run(world.view(*world.rounds(60, noise=0.02)), world.truth, seed=0))
    assert leaks["auc"].above_chance and leaks["auc"].value > leaks["auc"].chance_value + 0.05


def test_rounds_without_the_client_taken_for_its_own_are_worse_than_the_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(3)
    view = world.view(*world.rounds(110))
    right = by_metric(ATTACK.run(view, world.truth, seed=0))["auc"]
    monkeypatch.setattr(intersection, "gain", lambda r, e, inside, *, usual: gain(r, e, ~inside, usual=usual))
    wrong = by_metric(ATTACK.run(view, world.truth, seed=0))["auc"]
    assert wrong.value < wrong.chance_value < right.value


def test_a_row_missing_now_and_then_is_still_found() -> None:
    world = World(4)
    view = world.view(*world.rounds(80))
    for guess in ATTACK.guess(view, world.truth.question, seed=0):
        inside = [r for r in view.rounds if guess.target in r.participants]
        rows = np.flatnonzero(expit(guess.prior) < 0.02)
        held = np.intersect1d(rows, world.held[guess.target])
        if len(inside) > 10 and len(held):
            assert guess.odds[held].min() > 0, "rare rows, always there when the client is"


def test_the_last_rounds_are_used_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(5)
    rounds = world.rounds(12)
    monkeypatch.setattr(intersection, "MOST_TARGETS", 4)
    few, last = ([*ATTACK.guess(world.view(*r), world.truth.question, seed=0)] for r in (rounds, rounds[-4:]))
    assert [g.target for g in few] == [g.target for g in last]
    assert all(np.array_equal(a.odds, b.odds) for a, b in zip(few, last, strict=True))


def test_refusals() -> None:
    world = World(6)
    sums = world.rounds(3)
    unknown = [RoundView(np.empty(0, np.int64), total=r.total) for r in sums]
    with pytest.raises(EvaluationError, match="whose participants are known"):
        ATTACK.run(world.view(*unknown), world.truth, seed=0)
    with pytest.raises(EvaluationError, match="sums over clients"):
        ATTACK.run(world.view(*(dataclasses.replace(r, total=None) for r in sums)), world.truth, seed=0)
    with pytest.raises(EvaluationError, match="beyond"):
        ATTACK.run(dataclasses.replace(world.view(*sums), prior=world.prior[: ROWS // 10]), world.truth, seed=0)


def test_a_guess_for_every_client_that_took_part() -> None:
    world = World(7)
    view = world.view(*world.rounds(4))
    guesses = list(ATTACK.guess(view, world.truth.question, seed=0))
    assert [g.target for g in guesses] == np.unique(np.concatenate([r.participants for r in view.rounds])).tolist()
    assert all(np.array_equal(g.prior, prior_odds(view)) for g in guesses) and len(guesses) < CLIENTS
    assert client_leaks(ATTACK, view, world.truth, guesses, seed=0)[0].n == len(guesses)
