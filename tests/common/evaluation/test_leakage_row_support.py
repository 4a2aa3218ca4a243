"""Rows read off updates: exact without noise, the prior's guess under it; the evidence against slow formulas."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize
from scipy.special import expit

from common.errors import EvaluationError
from common.evaluation.leakage import _evidence, _rows
from common.evaluation.leakage._evidence import held_log_odds, of_any, touched
from common.evaluation.leakage._rows import RowGuess, f1, hits_among
from common.evaluation.leakage.row_support import ATTACK
from common.evaluation.view import RoundView, Truth
from common.update import RowBatch, UpdateBatch

from ._leakage_world import CLIENTS, ROWS, TABLE, WIDTH, World, by_metric, slow_f1

EVERYONE = np.arange(CLIENTS)


def test_updates_without_noise_are_the_list_of_rows() -> None:
    world = World()
    leaks = by_metric(ATTACK.run(world.view(RoundView(EVERYONE, world.batch(EVERYONE))), world.truth, seed=0))
    assert [leaks[m].value for m in leaks] == [1.0] * 3 and leaks["f1"].n == CLIENTS
    assert leaks["f1"].chance_value < 0.6 and leaks["f1"].above_chance


def test_noise_on_touched_rows_alone_hides_nothing() -> None:
    world = World(1)
    updates = world.batch(EVERYONE, noise=10.0, touched_only=True)
    assert by_metric(ATTACK.run(world.view(RoundView(EVERYONE, updates)), world.truth, seed=0))["f1"].value == 1.0


def test_dense_noise_leaves_the_prior() -> None:
    world = World(2)
    view = world.view(RoundView(EVERYONE, world.batch(EVERYONE, noise=1.0)))
    for leak in ATTACK.run(view, world.truth, seed=0):
        assert leak.value == pytest.approx(leak.chance_value, abs=0.02), leak.metric
        assert leak.chance_name == "most popular rows"


def test_little_noise_hides_those_with_the_fewest_rows_least() -> None:
    world = World(3)
    view = world.view(RoundView(EVERYONE, world.batch(EVERYONE, noise=0.05)))
    leaks = by_metric(ATTACK.run(view, world.truth, seed=0))
    assert leaks["auc"].above_chance
    assert leaks["auc:fewest rows"].value > leaks["auc"].value > leaks["auc"].chance_value + 0.03


def test_rounds_add_up() -> None:
    """Halves of a client's rows in two rounds; and, under noise, many rounds show more than one."""
    world = World(4)
    whole = world.batch([0]).rows[TABLE]
    middle = len(whole.ids) // 2
    halves = [
        UpdateBatch(1, {TABLE: RowBatch(np.array([0, len(whole.ids[part])]), whole.ids[part], whole.values[part])})
        for part in (slice(0, middle), slice(middle, None))
    ]
    view = world.view(*(RoundView(np.array([0]), half) for half in halves))
    assert by_metric(ATTACK.run(view, world.truth, seed=0))["f1"].value == 1.0
    assert by_metric(ATTACK.run(world.view(view.rounds[0]), world.truth, seed=0))["f1"].value < 1.0
    rounds = [RoundView(EVERYONE, world.batch(EVERYONE, noise=0.1)) for _ in range(8)]
    one, all_ = (by_metric(ATTACK.run(world.view(*rounds[:n]), world.truth, seed=0))["auc"].value for n in (1, 8))
    assert all_ > one + 0.02


def test_the_table_with_the_fewest_entries_is_looked_at() -> None:
    """Skip-gram's second table holds the decoys of negative sampling."""
    world = World(5)
    updates = world.batch(EVERYONE)
    all_rows = np.tile(np.arange(ROWS), CLIENTS)
    decoys = RowBatch(np.arange(CLIENTS + 1) * ROWS, all_rows, np.ones((len(all_rows), WIDTH), np.float32))
    view = world.view(RoundView(EVERYONE, dataclasses.replace(updates, rows={"a": decoys, **updates.rows})))
    assert by_metric(ATTACK.run(view, world.truth, seed=0))["f1"].value == 1.0
    named = dataclasses.replace(view, row_table="a")
    assert by_metric(ATTACK.run(named, world.truth, seed=0))["f1"].value < 0.9
    with pytest.raises(EvaluationError, match="'absent'"):
        ATTACK.run(dataclasses.replace(view, row_table="absent"), world.truth, seed=0)


def test_f1_is_a_mean_over_clients_not_over_all_rows() -> None:
    world = World(6)
    view = world.view(RoundView(EVERYONE, world.batch(EVERYONE, noise=0.05)))
    leaks = by_metric(ATTACK.run(view, world.truth, seed=0))
    single, hits, total = [], 0, 0
    for guess in ATTACK.guess(view, world.truth.question, seed=0):
        named = set(np.argsort(-guess.odds, kind="stable")[: guess.named].tolist())
        held = set(world.held[guess.target].tolist())
        single.append(slow_f1(named, held))
        hits, total = hits + len(named & held), total + len(named) + len(held)
    assert leaks["f1"].value == pytest.approx(np.mean(single), abs=1e-12)
    assert abs(leaks["f1"].value - 2 * hits / total) > 0.01


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), named=st.integers(0, 7))
def test_hits_among_equals_are_the_mean_over_all_orders(seed: int, named: int) -> None:
    rng = np.random.default_rng(seed)
    odds, held = rng.integers(0, 3, 6).astype(float), rng.random(6) < 0.5
    orders = [o for o in itertools.permutations(range(6)) if all(np.diff(odds[list(o)]) <= 0)]
    slow = np.mean([held[list(o[:named])].sum() for o in orders])
    assert hits_among(odds, named, held) == pytest.approx(slow)


def test_equals_are_no_hits() -> None:
    """A guess that says nothing, counted in favour of the attacker, would find everything."""
    held = np.arange(10) < 3
    assert f1(np.zeros(10), 3, held) == pytest.approx(0.3)
    optimist = np.lexsort((~held, -np.zeros(10)))[:3]
    assert held[optimist].all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_number_named_maximises_expected_f1(seed: int) -> None:
    odds = np.random.default_rng(seed).normal(-1, 2, 12)
    p = sorted(expit(odds), reverse=True)
    slow = max(range(1, 13), key=lambda k: sum(p[:k]) / (k + sum(p)))
    assert RowGuess(0, odds, odds).named == slow
    assert RowGuess(0, np.full(12, -np.inf), odds).named == 0


def test_prior_odds_add_up_and_have_no_scale() -> None:
    prior = 1 / np.arange(1, 101)
    for wanted in (0.5, 20.0, 99.0):
        odds = held_log_odds(prior, wanted)
        assert expit(odds).sum() == pytest.approx(wanted, rel=1e-6)
        assert np.allclose(odds, held_log_odds(prior * 1e6, wanted)) and np.all(np.diff(odds) <= 0)
    perplexity = np.exp(-np.sum(prior / prior.sum() * np.log(prior / prior.sum())))
    assert expit(held_log_odds(prior, None)).sum() == pytest.approx(perplexity)
    assert expit(held_log_odds(np.ones(100), None)).sum() == pytest.approx(50)
    any_ = expit(of_any(held_log_odds(prior, 20.0), 7))
    assert np.allclose(any_, 1 - (1 - expit(held_log_odds(prior, 20.0))) ** 7)


def test_odds_of_holding_are_those_of_drawing() -> None:
    """A client with m draws from the prior holds the rows with these frequencies."""
    prior, rng = 1 / np.arange(1, 31), np.random.default_rng(0)
    drawn = np.zeros(30)
    for _ in range(4000):
        drawn[np.unique(rng.choice(30, rng.poisson(20), p=prior / prior.sum()))] += 1
    expected = float(drawn.sum() / 4000)
    assert np.allclose(expit(held_log_odds(prior, expected)), drawn / 4000, atol=0.03)


def lengths(seed: int, *, rows: int = 250, degrees: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    held = rng.random(rows) < 0.2
    factor = np.where(held, rng.choice([2.0, 30.0], rows), 1.0)
    return 0.25 * factor * rng.chisquare(degrees, rows), held


def slow_likelihood(squared: np.ndarray, degrees: int, scale: float, weights: np.ndarray) -> float:
    total = np.zeros(len(squared))
    for weight, factor in zip(weights, _evidence._FACTORS, strict=True):
        total += weight * stats.chi2.pdf(squared / (scale * factor), degrees) / (scale * factor)
    return float(np.log(total).sum())


def test_the_mixture_is_as_likely_as_a_general_optimizer_makes_it() -> None:
    squared, _ = lengths(0)
    scale, weights = _evidence.fit(squared, 6)
    used = [0, 1, 2, 4, 6]  # an optimizer over all factors takes long; a few of them give a bound from below
    factors = _evidence._FACTORS[used]

    def loss(free: np.ndarray) -> float:
        share = np.exp(free[1:]) / np.exp(free[1:]).sum()
        variance = np.exp(free[0]) * factors
        return -float(np.log((stats.chi2.pdf(squared[:, None] / variance, 6) / variance) @ share).sum())

    best = minimize(loss, np.array([np.log(0.25), 2, 0, 0, 0, 0]), method="Nelder-Mead", options={"maxfev": 1500})
    assert slow_likelihood(squared, 6, scale, weights) > -best.fun - 0.5
    assert scale == pytest.approx(0.25, rel=0.15) and weights.sum() == pytest.approx(1.0)


def test_evidence_equals_the_densities() -> None:
    squared, held = lengths(1)
    scale, weights = _evidence.fit(squared, 6)
    longer = weights[1:].sum()
    share = max(0.3, longer)
    slow = []
    for value in squared:
        density = stats.chi2.pdf(value / (scale * _evidence._FACTORS), 6) / (scale * _evidence._FACTORS)
        slow.append(np.log(((share - longer) * density[0] + np.dot(weights[1:], density[1:])) / share / density[0]))
    found = touched(squared, 6, share=0.3)
    assert np.allclose(found, np.minimum(slow, _evidence.CERTAIN), atol=1e-6)
    assert found[held].mean() > 1 > 0 > found[~held].mean()


def test_noise_alone_is_no_evidence() -> None:
    for degrees in (1, 8, 64):
        squared = np.random.default_rng(degrees).chisquare(degrees, 2000) * 3.0
        assert np.abs(touched(squared, degrees, share=0.2)).mean() < 0.25, degrees
    wrong = touched(np.random.default_rng(0).chisquare(8, 2000), 64, share=0.2)  # the scatter of 8 is not that of 64
    assert np.abs(wrong).mean() > 1


def test_one_zero_row_is_padding_and_two_are_a_visible_support() -> None:
    squared = np.random.default_rng(0).chisquare(8, 100)
    squared[0] = 0.0
    assert np.isneginf(touched(squared, 8, share=0.2)[0]) and touched(squared, 8, share=0.2)[1:].max() < 5
    squared[1] = 0.0
    assert touched(squared, 8, share=0.2).tolist() == [-np.inf, -np.inf, *[_evidence.CERTAIN] * 98]


def test_more_clients_than_needed_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(7)
    monkeypatch.setattr(_rows, "MOST_TARGETS", 5)
    view = world.view(RoundView(EVERYONE, world.batch(EVERYONE)))
    targets = [[g.target for g in ATTACK.guess(view, world.truth.question, seed=s)] for s in (0, 0, 1)]
    assert targets[0] == targets[1] != targets[2] and len(targets[0]) == 5


def test_refusals() -> None:
    world = World(8)
    good = RoundView(EVERYONE, world.batch(EVERYONE))
    ids, values = np.array([0, ROWS]), np.ones((2, WIDTH), np.float32)
    beyond = RoundView(np.array([0]), UpdateBatch(1, {TABLE: RowBatch(np.array([0, 2]), ids, values)}))
    infinite = RoundView(
        np.array([0]), UpdateBatch(1, {TABLE: RowBatch(np.array([0, 1]), ids[:1], values[:1] * np.inf)})
    )
    cases = {
        "not those of its participants": world.view(RoundView(EVERYONE[1:], good.updates)),
        "beyond": world.view(beyond),
        "not finite": world.view(infinite),
        "one finite number": dataclasses.replace(world.view(good), prior=world.prior * -1),
        "expected to hold": dataclasses.replace(world.view(good), expected_rows=float(ROWS)),
        "single clients' updates": world.view(RoundView(EVERYONE, UpdateBatch(0))),
        "is not there": world.view(RoundView(EVERYONE, UpdateBatch(CLIENTS))),
    }
    for message, view in cases.items():
        with pytest.raises(EvaluationError, match=message):
            ATTACK.run(view, world.truth, seed=0)
    with pytest.raises(EvaluationError, match="truth has 2 clients"):
        ATTACK.run(world.view(good), Truth(held_rows=world.held[:2]), seed=0)
    with pytest.raises(EvaluationError, match="some of the rows, and not all"):
        ATTACK.run(world.view(good), Truth(held_rows=(np.empty(0, np.int64),) * CLIENTS), seed=0)
