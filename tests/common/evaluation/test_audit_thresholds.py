"""Guesses, thresholds and curves from scores: no tie, no NaN and no choice ever helps the auditor."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import EvaluationError
from common.evaluation.audit import bounds, one_run, roc, thresholds
from common.evaluation.audit.thresholds import Bonferroni, Explicit, Split

NAN = math.nan


def some(count: int = 200, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    included = rng.random(count) < 0.5
    return rng.normal(size=count) + shift * included, included


def slow_right(scores: list[float], included: list[bool], top: int, bottom: int) -> int:
    """The fewest right guesses over all orders of the canaries in which the scores do not fall."""
    count = len(scores)
    return min(
        sum(included[i] for i in order[count - top :]) + sum(not included[i] for i in order[:bottom])
        for order in itertools.permutations(range(count))
        if all(scores[a] <= scores[b] for a, b in itertools.pairwise(order))
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=3, max_size=6), st.data())
def test_ties_count_against_the_auditor(canaries: list[tuple[int, bool]], data: st.DataObject) -> None:
    scores, included = [float(s) for s, _ in canaries], [i for _, i in canaries]
    if len(set(included)) < 2:
        return
    top = data.draw(st.integers(0, len(scores)))
    bottom = data.draw(st.integers(0, len(scores) - top))
    if top + bottom == 0:
        return
    found = one_run.guesses(scores, included, top=top, bottom=bottom)
    slow = slow_right(scores, included, top, bottom)
    assert (found.canaries, found.made) == (len(scores), top + bottom)
    assert found.right == slow or (found.right < slow and len(set(scores)) < len(scores))
    if 0 in (top, bottom):
        assert found.right == slow
    shuffled = data.draw(st.permutations(canaries))
    assert found == one_run.guesses([s for s, _ in shuffled], [i for _, i in shuffled], top=top, bottom=bottom)


def test_guesses_without_ties_by_hand() -> None:
    scores, included = [0.1, 0.9, 0.5, 0.3, 0.7], [False, True, True, True, False]
    assert one_run.guesses(scores, included, top=2, bottom=2).right == 2
    assert one_run.guesses(scores, included, top=1, bottom=1).right == 2
    assert one_run.guesses(scores, included, top=3, bottom=2).right == 3
    assert one_run.guesses([-s for s in scores], included, top=1, bottom=1).right == 0


def test_equal_scores_are_no_evidence() -> None:
    included = np.arange(100) < 50  # sorted by the answer: an order must not help either
    found = one_run.guesses(np.ones(100), included, top=50, bottom=50)
    assert found.right == 0 and one_run.epsilon_bound(found, delta=0.0, alpha=0.05) == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30))
def test_a_nan_never_helps(seed: int, spoiled: int) -> None:
    rng = np.random.default_rng(seed)
    scores, included = some(60, shift=2.0)
    worse = scores.copy()
    worse[rng.choice(60, spoiled, replace=False)] = NAN
    for at in (-1.0, 0.5, 2.0):
        plain, less = (Explicit(threshold=at).tested(s, included).counts for s in (scores, worse))
        assert less.false_positives >= plain.false_positives and less.false_negatives >= plain.false_negatives
    assert roc.auc(worse, included).value <= roc.auc(scores, included).value
    for top, bottom in ((30, 30), (10, 15), (0, 20)):
        every, fewer = (one_run.guesses(s, included, top=top, bottom=bottom).right for s in (scores, worse))
        assert fewer <= every
    members, others = worse[included], worse[~included]
    spoilt = float(bounds.mean_difference_bound(members, others, noise_stddev=1.0, alpha=0.05))
    assert spoilt == 0 or not np.isnan(np.r_[members, others]).any()


def test_nan_is_wrong_whatever_the_answer() -> None:
    """Also where it tells the answer: a score that exists for included canaries alone."""
    included = np.arange(100) % 2 == 0
    for kind in (included, ~included):
        scores = np.where(kind, np.arange(100.0), NAN)
        for top, bottom in ((50, 50), (50, 0), (0, 50), (25, 25)):
            assert one_run.guesses(scores, included, top=top, bottom=bottom).right <= (top + bottom) / 2
        counts = Explicit(threshold=-1.0).tested(scores, included).counts
        assert bounds.mu_bound(counts, alpha=0.05) == 0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.0, NAN, math.inf, -math.inf]), st.booleans()), min_size=2),
    st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0]), min_size=1, max_size=4),
)
def test_errors_are_counted_as_a_loop_counts_them(canaries: list[tuple[float, bool]], at: list[float]) -> None:
    included = np.array([i for _, i in canaries])
    if included.all() or not included.any():
        return
    scores = np.array([s for s, _ in canaries])
    for threshold in at:
        counts = Explicit(threshold=threshold).tested(scores, included).counts
        fp = sum(1 for s, i in canaries if not i and (math.isnan(s) or s >= threshold))
        fn = sum(1 for s, i in canaries if i and (math.isnan(s) or s < threshold))
        assert counts.false_positives == fp and counts.false_negatives == fn
        assert counts.negatives == int((~included).sum()) and counts.positives == int(included.sum())


def test_a_rank_is_the_score_of_that_rank() -> None:
    scores, included = some()
    tested = Explicit(k=30).tested(scores, included)
    assert tested.thresholds == np.sort(scores)[-30] and tested.tests == 1
    assert np.array_equal(tested.thresholds, Explicit(k=30).tested(scores, ~included).thresholds)
    assert Explicit(k=2).tested([1.0, NAN, 0.5, 3.0], [True, False, True, False]).thresholds == 1.0


@pytest.mark.parametrize("strategy", [Explicit(k=40), Explicit(threshold=0.3), Bonferroni(9)])
def test_thresholds_do_not_depend_on_the_answers(strategy: thresholds.Strategy) -> None:
    scores, included = some()
    other = np.random.default_rng(3).permutation(included)
    assert np.array_equal(strategy.tested(scores, included).thresholds, strategy.tested(scores, other).thresholds)


def test_split_chooses_on_one_half_and_tests_on_the_other() -> None:
    scores, included = some(400)
    split = Split()
    choosing, testing = thresholds.halves(400, split.seed)
    assert set(choosing) | set(testing) == set(range(400)) and not set(choosing) & set(testing)
    found = split.tested(scores, included)
    assert found.tests == 1 and int(found.counts.positives[0] + found.counts.negatives[0]) == len(testing)
    flipped, moved = included.copy(), scores.copy()
    flipped[testing] = ~flipped[testing]
    moved[testing] += 5.0
    assert split.tested(moved, flipped).thresholds == found.thresholds
    flipped, moved = included.copy(), scores.copy()
    moved[choosing] += 5.0
    assert split.tested(moved, included).thresholds > found.thresholds
    fp = int((scores[testing][~included[testing]] >= found.thresholds[0]).sum())
    assert int(found.counts.false_positives[0]) == fp


def test_the_best_of_many_pays_for_all() -> None:
    scores, included = some(300)
    tested = Bonferroni(5).tested(scores, included)
    found, best = thresholds.best_bound(tested, lambda c, a: bounds.mu_bound(c, alpha=a), alpha=0.05)
    each = bounds.mu_bound(tested.counts, alpha=0.01)
    assert found == each.max() == each[best] and tested.tests == 5
    assert found < bounds.mu_bound(tested.counts, alpha=0.05).max()


# --- curves


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=40))
def test_auc_is_the_share_of_pairs(canaries: list[tuple[int, bool]]) -> None:
    members, others = [s for s, i in canaries if i], [s for s, i in canaries if not i]
    if not members or not others:
        return
    pairs = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in members for b in others)
    found = roc.auc([float(s) for s, _ in canaries], [i for _, i in canaries])
    assert found.value == pytest.approx(pairs / (len(members) * len(others)))
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_auc_interval_covers_and_does_not_vanish() -> None:
    rng, hits = np.random.default_rng(8), 0
    truth = 0.5 * (1 + math.erf(0.8 / 2))  # Phi(0.8 / sqrt(2))
    for _ in range(200):
        included = rng.random(120) < 0.5
        found = roc.auc(rng.normal(size=120) + 0.8 * included, included)
        hits += found.low <= truth <= found.high
    assert 180 <= hits <= 199
    apart = roc.auc([0.0] * 20 + [1.0] * 20, [False] * 20 + [True] * 20)
    assert apart.value == apart.high == 1.0 and 0.8 < apart.low < 0.99
    below = roc.auc([1.0] * 20 + [0.0] * 20, [False] * 20 + [True] * 20)
    assert below.value == below.low == 0.0 and 0.01 < below.high < 0.2


def test_true_positive_rates() -> None:
    scores, included = some(1000, shift=2.0)
    for rate in roc.FALSE_POSITIVE_RATES:
        found = roc.true_positive_rate(scores, included, false_positive_rate=rate)
        others = np.sort(scores[~included])[::-1]
        edge = others[int(rate * len(others))]
        assert found.value == np.mean(scores[included] > edge) and found.low < found.value < found.high
        assert np.mean(scores[~included] > edge) <= rate
    assert roc.true_positive_rate(np.ones(400), included[:400], false_positive_rate=0.1).value == 0.0


# --- refusals

BAD_SCORES = (
    ([1.0, 2.0], [True, False, True]),
    ([1.0, 2.0], [1, 0]),
    ([[1.0, 2.0]], [[True, False]]),
    ([1.0, 2.0], [True, True]),
    ([1.0, 2.0], [False, False]),
    ([], []),
)


@pytest.mark.parametrize(("scores", "included"), BAD_SCORES)
def test_scores_that_do_not_fit_are_refused(scores: list[float], included: list[bool]) -> None:
    for call in (
        lambda: one_run.guesses(scores, included, top=1, bottom=0),
        lambda: Explicit(threshold=0.0).tested(scores, included),
        lambda: Bonferroni(1).tested(scores, included),
        lambda: Split(1).tested(scores, included),
        lambda: roc.auc(scores, included),
    ):
        with pytest.raises(EvaluationError):
            call()


@pytest.mark.parametrize(("top", "bottom"), [(3, 2), (5, 0), (0, 0), (-1, 2), (1.0, 1)])
def test_more_guesses_than_canaries_are_refused(top: int, bottom: int) -> None:
    with pytest.raises(EvaluationError):
        one_run.guesses([1.0, 2.0, 3.0, 4.0], [True, False, True, False], top=top, bottom=bottom)


def test_strategies_refuse_what_they_cannot_do() -> None:
    for call in (
        Explicit,
        lambda: Explicit(threshold=1.0, k=3),
        lambda: Explicit(threshold=NAN),
        lambda: Explicit(k=0),
        lambda: Explicit(k=5).tested([1.0, 2.0], [True, False]),
        lambda: Bonferroni(0),
        lambda: Bonferroni(3).tested([1.0, 2.0], [True, False]),
        lambda: Split(0),
        lambda: Split(50).tested(*some(60)),
        lambda: thresholds.share(0.05, 0),
        lambda: roc.true_positive_rate(*some(60), false_positive_rate=0.01),
        lambda: roc.true_positive_rate(*some(60), false_positive_rate=0.0),
        lambda: roc.auc(*some(60), alpha=0.0),
    ):
        with pytest.raises(EvaluationError):
            call()
