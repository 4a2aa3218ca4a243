"""Interactions of users who are known by some items, against loops, chance and bad input."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from common.errors import EvaluationError
from common.evaluation.leakage.interactions import ATTACK, mean_products
from common.evaluation.view import Interactions, Truth, View
from common.table import EmbeddingTable
from common.units import Units

from ._leakage_world import by_metric

ROWS, WIDTH, USERS = 200, 8, 300


def world(pull: float) -> tuple[View, Truth]:
    """Users hold four items; a table pulls items of one user together, those left out excepted."""
    rng = np.random.default_rng(0)
    start = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    items = np.array([rng.choice(ROWS, 5, replace=False) for _ in range(USERS)])
    trained = rng.random(USERS) < 0.5
    vectors = start.astype(np.float64)
    for own, member in zip(items, trained, strict=True):
        group = own if member else own[1:]
        vectors[group] += pull * start[group].mean(axis=0)
    known = Units(np.arange(USERS + 1, dtype=np.int64) * 4, {"rows": items[:, 1:].reshape(-1)})
    table = EmbeddingTable(tuple(map(str, range(ROWS))), vectors.astype(np.float32))
    view = View(USERS, np.ones(ROWS), table=table, start=start)
    return view, Truth(interactions=Interactions(known, items[:, 0]), interacted=trained)


def test_scores_equal_slow_ones() -> None:
    view, truth = world(0.3)
    asked = truth.interactions
    assert asked is not None and view.table is not None
    vectors = view.table.vectors.astype(float)
    slow = [
        np.mean([vectors[row] @ vectors[k] for k in asked.known.slice(m, m + 1).columns["rows"]])
        for m, row in enumerate(asked.rows)
    ]
    np.testing.assert_allclose(mean_products(view.table.vectors, asked), slow, atol=1e-4)


def test_training_leaks_interactions_and_the_start_does_not() -> None:
    for pull, leaking in ((0.0, False), (1.0, True)):
        view, truth = world(pull)
        leaks = by_metric(ATTACK.run(view if pull else dataclasses.replace(view, start=None), truth, seed=0))
        for name in ("cosine", "product"):
            assert leaks[f"auc:{name}"].above_chance is leaking and leaks[f"auc:{name}"].chance_name == "coin"
        assert leaks["tpr@0.01:cosine"].n == USERS


def test_answers_turned_round_are_told_apart() -> None:
    view, truth = world(1.0)
    assert truth.interacted is not None
    other = dataclasses.replace(truth, interacted=~truth.interacted)
    assert by_metric(ATTACK.run(view, other, seed=0))["auc:cosine"].ci_high < 0.5


def test_users_of_whom_nothing_is_known_are_left_out() -> None:
    view, truth = world(0.5)
    assert truth.interactions is not None
    offsets = truth.interactions.known.offsets.copy()
    offsets[1] = 0  # the first user's items count as the second's
    known = Units(offsets, truth.interactions.known.columns)
    fewer = dataclasses.replace(truth, interactions=dataclasses.replace(truth.interactions, known=known))
    assert by_metric(ATTACK.run(view, fewer, seed=0))["auc:cosine"].n == USERS - 1


def test_what_cannot_be_asked_is_refused() -> None:
    view, truth = world(0.5)
    asked = truth.interactions
    assert asked is not None and truth.interacted is not None
    for wrong, says in (
        (Truth(), "users and items"),
        (dataclasses.replace(truth, interacted=None), "trained on"),
        (dataclasses.replace(truth, interacted=truth.interacted[1:]), "do not fit"),
        (dataclasses.replace(truth, interacted=np.ones(USERS, bool)), "members and others"),
        (dataclasses.replace(truth, interactions=dataclasses.replace(asked, rows=asked.rows + ROWS)), "of the table"),
        (dataclasses.replace(truth, interactions=dataclasses.replace(asked, rows=asked.rows[1:])), "of the table"),
    ):
        with pytest.raises(EvaluationError, match=says):
            ATTACK.run(view, wrong, seed=0)
    with pytest.raises(EvaluationError, match="released table"):
        ATTACK.run(dataclasses.replace(view, table=None), truth, seed=0)
