"""Links from similarities, beside the product of popularities, against loops and scikit-learn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from common.errors import EvaluationError
from common.evaluation.leakage.links import ATTACK, cosines, popularity
from common.evaluation.view import Truth, View
from common.table import EmbeddingTable

from ._leakage_world import by_metric

ROWS, WIDTH = 120, 8


def world(pull: float) -> tuple[View, Truth]:
    """Popular rows are linked more; a table pulls linked rows together by ``pull``."""
    rng = np.random.default_rng(0)
    prior = 1 / np.arange(1, ROWS + 1)
    p = prior / prior.sum()
    linked = np.unique(np.sort(rng.choice(ROWS, (400, 2), p=p), axis=1), axis=0)
    linked = linked[linked[:, 0] != linked[:, 1]]
    others = rng.choice(ROWS, (len(linked), 2))
    start = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    near = np.zeros((ROWS, ROWS))
    near[linked[:, 0], linked[:, 1]] = near[linked[:, 1], linked[:, 0]] = 1
    vectors = start + pull * (near @ start) / np.maximum(near.sum(axis=1, keepdims=True), 1) ** 0.5
    view = View(5, prior, table=EmbeddingTable(tuple(map(str, range(ROWS))), vectors.astype(np.float32)), start=start)
    pairs = np.concatenate([linked, others])
    return view, Truth(pairs=pairs, linked=np.arange(len(pairs)) < len(linked))


def slow_cosine(vectors: np.ndarray, pair: np.ndarray) -> float:
    a, b = vectors[pair[0]].astype(float), vectors[pair[1]].astype(float)
    scale = np.sqrt(a @ a) * np.sqrt(b @ b)
    return float(a @ b / scale) if scale else 0.0


def test_figures_equal_slow_ones() -> None:
    view, truth = world(0.5)
    assert view.table is not None and view.start is not None and truth.pairs is not None and truth.linked is not None
    leaks = by_metric(ATTACK.run(view, truth, seed=0))
    now = np.array([slow_cosine(view.table.vectors, pair) for pair in truth.pairs])
    before = np.array([slow_cosine(view.start, pair) for pair in truth.pairs])
    product = [view.prior[a] * view.prior[b] for a, b in truth.pairs]
    for name, scores in (("cosine", now), ("change", now - before)):
        auc, ap = leaks[f"auc:{name}"], leaks[f"ap:{name}"]
        assert auc.value == pytest.approx(roc_auc_score(truth.linked, scores), abs=1e-3)
        assert ap.value == pytest.approx(average_precision_score(truth.linked, scores), abs=1e-3)
        assert auc.chance_value == pytest.approx(roc_auc_score(truth.linked, product))
        assert ap.chance_value == pytest.approx(average_precision_score(truth.linked, product))
        assert auc.ci_low < auc.value < auc.ci_high and auc.n == len(truth.pairs)


def test_training_leaks_links_and_the_start_does_not() -> None:
    for pull, leaking in ((0.0, False), (2.0, True)):
        view, truth = world(pull)
        leaks = by_metric(ATTACK.run(dataclasses.replace(view, start=None) if not pull else view, truth, seed=0))
        assert (leaks["auc:cosine"].ci_low > 0.5) is leaking, pull
    assert leaks["auc:change"].value > 0.6


def test_popularity_alone_is_no_leak() -> None:
    """Popular rows are linked anyway. Beside one half a table of popularities would be a leak; beside the prior not."""
    view, truth = world(0.0)
    spread = np.random.default_rng(1).normal(size=(ROWS, WIDTH)) * np.arange(ROWS)[:, None] / 40
    ring = (np.eye(WIDTH)[0] + spread).astype(np.float32)  # popular rows lie close together, others anywhere
    popular = dataclasses.replace(view, table=EmbeddingTable(tuple(map(str, range(ROWS))), ring), start=None)
    leak = by_metric(ATTACK.run(popular, truth, seed=0))["auc:cosine"]
    assert leak.ci_low > 0.5 and not leak.above_chance
    assert leak.chance_name == "popularity product"


def test_a_zero_row_has_cosine_zero() -> None:
    vectors = np.array([[0, 0], [3, 4], [6, 8]], np.float32)
    assert cosines(vectors, np.array([[0, 1], [1, 2]])).tolist() == pytest.approx([0.0, 1.0])


def test_the_prior_of_a_pair() -> None:
    view, _ = world(0.0)
    assert popularity(view, np.array([[0, 1], [3, 3]])).tolist() == pytest.approx([1 / 2, 1 / 16])


def test_refusals() -> None:
    view, truth = world(0.5)
    other = dataclasses.replace
    assert truth.pairs is not None and truth.linked is not None
    cases = [
        ("pairs of either kind", view, other(truth, linked=np.ones(len(truth.pairs), bool))),
        ("pairs of either kind", view, other(truth, linked=truth.linked[:3])),
        ("answer which pairs", view, other(truth, linked=None)),
        ("pairs of rows", view, other(truth, pairs=None)),
        ("two rows of the table", view, other(truth, pairs=truth.pairs + ROWS)),
        ("two rows of the table", view, other(truth, pairs=truth.pairs[:, :1])),
        ("one finite number", other(view, prior=view.prior[:5]), truth),
        ("start table", other(view, start=np.ones((2, 2), np.float32)), truth),
    ]
    for message, given_view, given_truth in cases:
        with pytest.raises(EvaluationError, match=message):
            ATTACK.run(given_view, given_truth, seed=0)
