"""Rows of one owner inside a sum: the exposure against counting, the posterior against Bayes' rule."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from common.errors import EvaluationError
from common.evaluation.leakage import single_owner
from common.evaluation.leakage._evidence import held_log_odds
from common.evaluation.leakage.single_owner import ATTACK, alone
from common.evaluation.view import RoundView, Truth

from ._leakage_world import ROWS, WIDTH, World, by_metric, released

COHORT = 8


def counted(world: World, clients: np.ndarray) -> Counter[int]:
    return Counter(row for client in clients for row in world.held[client].tolist())


def test_exposure_is_the_share_of_the_union_with_one_owner() -> None:
    world = World(0)
    rounds = world.rounds(10, cohort=COHORT)
    owners = [counted(world, r.participants) for r in rounds]
    leaks = by_metric(ATTACK.run(world.view(*rounds), world.truth, seed=0))
    shares = [sum(n == 1 for n in count.values()) / len(count) for count in owners]
    assert leaks["exposure"].value == pytest.approx(np.mean(shares), abs=1e-12) and leaks["exposure"].n == 10
    assert leaks["exposure"].value > leaks["exposure"].chance_value + 0.05
    any_owner = [1.0 for _ in owners]  # broken: a row with an owner is not a row with one owner
    assert leaks["exposure"].value < np.mean(any_owner) - 0.1


def test_single_owners_are_told_apart_from_sums_alone() -> None:
    world = World(1)
    leaks = by_metric(ATTACK.run(world.view(*world.rounds(10, cohort=COHORT)), world.truth, seed=0))
    for metric in ("precision", "f1", "auc"):
        assert leaks[metric].above_chance and leaks[metric].value > leaks[metric].chance_value + 0.1, metric
    assert leaks["precision"].value > leaks["exposure"].value  # better than calling every touched row a single owner's


def test_a_cohort_of_one_is_its_client() -> None:
    world = World(2)
    rounds = [RoundView(np.array([c]), total=world.total([c])) for c in range(4)]
    leaks = by_metric(ATTACK.run(world.view(*rounds), world.truth, seed=0))
    assert [leaks[m].value for m in leaks] == [1.0] * 4


def test_dense_noise_leaves_the_prior() -> None:
    world = World(3)
    for leak in ATTACK.run(world.view(*world.rounds(10, noise=3.0)), world.truth, seed=0):
        assert leak.value == pytest.approx(leak.chance_value, abs=0.03), leak.metric


@pytest.mark.parametrize("clients", [1, 3, 20, 200])
def test_the_posterior_equals_bayes_rule(clients: int) -> None:
    rng = np.random.default_rng(clients)
    odds = held_log_odds(1 / np.arange(1, 41), 6.0)
    squared = np.where(rng.random(40) < 0.2, 0.0, rng.lognormal(0, 1, 40))
    top = min(clients, single_owner.MOST_OWNERS)
    owners = []
    for q in expit(odds):
        mass = [stats.binom.pmf(n, clients, q) for n in range(1, top)] + [stats.binom.sf(top - 1, clients, q)]
        owners.append(np.array(mass) / stats.binom.sf(0, clients, q))
    assert np.allclose(alone(odds, clients), [mass[0] for mass in owners], atol=1e-9)
    seen = np.flatnonzero(squared)
    logs, counts = np.log(squared[seen]), np.log(np.arange(1, top + 1))
    spread, centre = logs.std(), np.mean([logs[i] - owners[row] @ counts for i, row in enumerate(seen)])
    slow = []
    for row, mass in enumerate(owners):
        weights = mass * (stats.norm.pdf(np.log(squared[row]), centre + counts, spread) if squared[row] else 1.0)
        slow.append(weights[0] / weights.sum())
    assert np.allclose(alone(odds, clients, squared=squared), slow, atol=1e-9)


def test_longer_rows_have_more_owners() -> None:
    """Rows of one popularity and one length a client: the sum's length alone tells one owner from two."""
    rng, clients = np.random.default_rng(0), 12
    held = rng.random((clients, ROWS)) < 0.1
    updates = rng.normal(size=(clients, ROWS, WIDTH))
    updates /= np.linalg.norm(updates, axis=2, keepdims=True)
    total = released((updates * held[:, :, None]).sum(axis=0), dense=False)
    view = World(0).view(RoundView(np.arange(clients), total=total))
    view = dataclasses.replace(view, prior=np.ones(ROWS), expected_rows=0.1 * ROWS)
    truth = Truth(held_rows=tuple(np.flatnonzero(own) for own in held))
    with_lengths = by_metric(ATTACK.run(view, truth, seed=0))["auc"].value
    touched = held.any(axis=0)
    single = held.sum(axis=0) == 1
    support_alone = 1 - 0.5 * (touched & ~single).sum() / (~single).sum()
    assert with_lengths > support_alone + 0.05


def test_refusals() -> None:
    world = World(4)
    everyone_alike = Truth(held_rows=(np.arange(5),) * len(world.held))
    with pytest.raises(EvaluationError, match="one client alone"):
        ATTACK.run(world.view(*world.rounds(3)), everyone_alike, seed=0)
    unknown = RoundView(np.empty(0, np.int64), total=world.total([0, 1]))
    with pytest.raises(EvaluationError, match="whose participants are known"):
        ATTACK.run(world.view(unknown), world.truth, seed=0)
    with pytest.raises(EvaluationError, match="truth has 1 clients"):
        ATTACK.run(world.view(*world.rounds(1)), Truth(held_rows=world.held[:1]), seed=0)
