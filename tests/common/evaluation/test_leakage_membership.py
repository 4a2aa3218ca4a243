"""Membership from tables, without and with reference tables: statistics against loops over pairs and over models."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.errors import EvaluationError
from common.evaluation.leakage import membership, reference_membership
from common.evaluation.leakage._candidates import WINDOW, log_likelihood, mean_cosine
from common.evaluation.leakage.reference_membership import log_average, logit, offline, online, rmia
from common.evaluation.view import Candidates, Reference, Truth, View
from common.table import EmbeddingTable
from common.units import Units

from ._leakage_world import by_metric

ROWS, WIDTH, COUNT, LONG = 400, 16, 700, 6
RATE = 0.005


def units_of(rows: list[list[int]]) -> Units:
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return Units(offsets, {"rows": np.array([r for unit in rows for r in unit], dtype=np.int64)})


def table(vectors: np.ndarray) -> EmbeddingTable:
    return EmbeddingTable(tuple(map(str, range(len(vectors)))), vectors.astype(np.float32))


@cache
def asked() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidate rows (COUNT, LONG), who is a member, and the start table."""
    rng = np.random.default_rng(0)
    rows = np.stack([rng.choice(ROWS, LONG, replace=False) for _ in range(COUNT)])
    return rows, rng.random(COUNT) < 0.5, 0.4 * rng.normal(size=(ROWS, WIDTH)).astype(np.float32)


def trained(member: np.ndarray) -> EmbeddingTable:
    """Three steps of gradient ascent on ln sigma(v_i . v_j) over all pairs of the members' rows."""
    rows, _, start = asked()
    vectors = start.astype(np.float64)
    for _ in range(3):
        gradient = np.zeros_like(vectors)
        for unit in rows[member]:
            own = vectors[unit]
            pull = 1 / (1 + np.exp(own @ own.T))
            np.fill_diagonal(pull, 0.0)
            gradient[unit] += pull @ own
        vectors = vectors + RATE * gradient
        vectors -= vectors.mean(axis=0)
    return table(vectors)


@cache
def seen() -> tuple[View, Truth]:
    rows, member, start = asked()
    rng = np.random.default_rng(1)
    references = tuple(Reference(trained(inside), inside) for inside in rng.random((4, COUNT)) < 0.5)
    view = View(10, np.ones(ROWS), table=trained(member), start=start, references=references)
    return view, Truth(candidates=Candidates(units_of(rows.tolist())), member=member)


def slow_cosine(vectors: np.ndarray, unit: list[int]) -> float:
    distinct = sorted(set(unit))
    pairs = [(a, b) for a in distinct for b in distinct if a < b]
    norms = np.linalg.norm(vectors, axis=1)
    return float(np.mean([vectors[a] @ vectors[b] / (norms[a] * norms[b]) for a, b in pairs])) if pairs else np.nan


def slow_loss(vectors: np.ndarray, unit: list[int]) -> float:
    near = [
        (a, b) for i, a in enumerate(unit) for j, b in enumerate(unit) if i < j <= i + WINDOW and a != b
    ]  # fmt: skip
    return float(np.mean([np.log(1 / (1 + np.exp(-vectors[a] @ vectors[b]))) for a, b in near])) if near else np.nan


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=6), st.integers(0, 100))
def test_statistics_equal_loops_over_pairs(rows: list[list[int]], seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(10, 4)).astype(np.float32)
    units = units_of(rows)
    cosine, loss = mean_cosine(vectors, units), log_likelihood(vectors, units)
    assert np.allclose(cosine, [slow_cosine(vectors, unit) for unit in rows], atol=1e-6, equal_nan=True)
    assert np.allclose(loss, [slow_loss(vectors, unit) for unit in rows], atol=1e-6, equal_nan=True)


def test_members_stand_out_most_with_the_start_table_known() -> None:
    view, truth = seen()
    known = by_metric(membership.ATTACK.run(view, truth, seed=0))
    blind = by_metric(membership.ATTACK.run(dataclasses.replace(view, start=None), truth, seed=0))
    for metric in ("auc:cosine", "auc:loss"):
        assert known[metric].above_chance and known[metric].value > blind[metric].value + 0.05 > 0.55
    assert set(known) == {f"{m}:{s}" for m in ("auc", "tpr@0.01") for s in ("cosine", "loss")}, "no 0.001 of 350"
    assert known["auc:cosine"].n == COUNT and known["auc:cosine"].chance_name == "coin"


def test_references_find_more_at_low_false_positive_rates() -> None:
    view, truth = seen()
    alone = by_metric(membership.ATTACK.run(view, truth, seed=0))["tpr@0.01:loss"]
    leaks = by_metric(reference_membership.ATTACK.run(view, truth, seed=0))
    for score in ("lira", "lira_offline", "rmia"):
        assert leaks[f"tpr@0.01:{score}"].value > alone.value + 0.1, score
        assert leaks[f"tpr@0.01:{score}"].above_chance and leaks[f"auc:{score}"].above_chance
    assert leaks["auc:lira"].value > leaks["auc:lira_offline"].value > 0.8


def test_an_untrained_table_tells_nothing() -> None:
    view, truth = seen()
    rng = np.random.default_rng(5)
    noise = dataclasses.replace(view, table=table(0.4 * rng.normal(size=(ROWS, WIDTH))))
    for attack in (membership.ATTACK, reference_membership.ATTACK):
        for leak in attack.run(noise, truth, seed=0):
            if leak.metric.startswith("auc"):
                assert leak.value == pytest.approx(0.5, abs=0.06), leak.metric
            assert not leak.above_chance, leak.metric


def models(seed: int, *, offline_only: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    seen_ = rng.random((5, 30)) < (0.0 if offline_only else 0.5)
    seen_[:2, 0], seen_[:, 1], seen_[3:, 0] = True, False, False
    seen_[:, 2] = not offline_only  # in every reference: nothing to compare with
    if offline_only:
        seen_[:] = False
    values = -rng.gamma(2.0, 0.3, 30) - rng.gamma(2.0, 0.05, (5, 30))
    return -rng.gamma(2.0, 0.35, 30), values, seen_


def slow_sides(values: np.ndarray, inside: np.ndarray) -> tuple[list[float], float]:
    """Mean of each candidate, and the variance pooled over candidates."""
    means, left, freedom = [], 0.0, 0
    for n in range(values.shape[1]):
        own = [values[k, n] for k in range(len(values)) if inside[k, n]]
        means.append(float(np.mean(own)) if own else np.nan)
        left += sum((v - means[-1]) ** 2 for v in own)
        freedom += max(len(own) - 1, 0)
    return means, left / freedom


@pytest.mark.parametrize("seed", range(4))
def test_likelihood_ratios_equal_a_loop_over_candidates(seed: int) -> None:
    target, values, inside = models(seed)
    mean_out, var_out = slow_sides(values, ~inside)
    mean_in, var_in = slow_sides(values, inside)
    shift = np.nanmean([a - b for a, b in zip(mean_in, mean_out, strict=True)])
    ratio, score = online(target, values, inside), offline(target, values, inside)
    for n in range(30):
        outs, ins = int((~inside[:, n]).sum()), int(inside[:, n].sum())
        if outs == 0:
            assert np.isnan(ratio[n]) and np.isnan(score[n])
            continue
        sd_out = np.sqrt(var_out * (1 + 1 / outs))
        sd_in = np.sqrt(var_in * (1 + 1 / max(ins, 1)))
        centre = mean_in[n] if ins else mean_out[n] + shift
        slow = stats.norm.logpdf(target[n], centre, sd_in) - stats.norm.logpdf(target[n], mean_out[n], sd_out)
        assert ratio[n] == pytest.approx(slow, abs=1e-9)
        assert score[n] == pytest.approx((target[n] - mean_out[n]) / sd_out, abs=1e-9)
        swapped = stats.norm.logpdf(target[n], mean_out[n], sd_out) - stats.norm.logpdf(target[n], centre, sd_in)
        assert abs(slow) < 1e-6 or ratio[n] != pytest.approx(swapped, abs=1e-9)


@pytest.mark.parametrize("offline_only", [False, True])
def test_rmia_equals_a_loop_over_pairs(offline_only: bool) -> None:
    target, values, inside = models(9, offline_only=offline_only)
    sides = [
        [[np.exp(values[k, n]) for k in range(5) if inside[k, n] == side] for n in range(30)] for side in (False, True)
    ]
    rises = [np.mean(ins) - np.mean(out) for out, ins in zip(*sides, strict=True) if out and ins]
    means = []
    for out, ins in zip(*sides, strict=True):
        if offline_only:
            means.append(np.mean(out))
        elif out:
            means.append((np.mean(out) + (np.mean(ins) if ins else np.mean(out) + np.mean(rises))) / 2)
        else:
            means.append(np.nan)
    ratio = np.exp(target) / np.array(means)
    assert np.allclose(np.exp(log_average(values, inside)), means, equal_nan=True)
    score = rmia(target, values, inside)
    for n in range(30):
        others = [m for m in range(30) if m != n and not np.isnan(ratio[m])]
        slow = np.mean([ratio[n] >= ratio[m] for m in others]) if not np.isnan(ratio[n]) else np.nan
        assert score[n] == pytest.approx(slow, abs=1e-12, nan_ok=True)


def test_references_that_have_seen_nobody_give_the_offline_scores() -> None:
    view, truth = seen()
    out = tuple(Reference(trained(none), none) for none in (np.zeros(COUNT, bool),) * 2)
    noisy = Reference(table(out[0].table.vectors + 0.01), out[0].member)
    leaks = by_metric(
        reference_membership.ATTACK.run(dataclasses.replace(view, references=(*out, noisy)), truth, seed=0)
    )
    assert {m.split(":")[1] for m in leaks} == {"lira_offline", "rmia"}
    assert leaks["auc:lira_offline"].value > 0.7 and leaks["auc:rmia"].value > 0.7


def test_confidences_are_scaled_without_overflow() -> None:
    p = np.array([1e-9, 0.3, 0.999])
    assert np.allclose(logit(np.log(p)), np.log(p / (1 - p)), rtol=1e-9)
    assert np.isfinite(logit(np.array([-800.0, -1e-300, 0.0]))).all()


def test_candidates_without_a_pair_are_left_out() -> None:
    view, truth = seen()
    rows = [[0], [3, 3], [], *asked()[0].tolist()]
    member = np.concatenate([[True, True, False], asked()[1]])
    more = Truth(candidates=Candidates(units_of(rows)), member=member)
    assert (
        membership.ATTACK.run(view, more, seed=0)[0].to_json()
        == membership.ATTACK.run(view, truth, seed=0)[0].to_json()
    )
    alone = Truth(candidates=Candidates(units_of([[0], [1, 2], [3, 3]])), member=np.array([True, False, True]))
    with pytest.raises(EvaluationError, match="members and others"):
        membership.ATTACK.run(view, alone, seed=0)


def test_refusals() -> None:
    view, truth = seen()
    other = dataclasses.replace
    beyond = Candidates(units_of([[0, ROWS], [1, 2]]))
    broken = table(np.full((ROWS, WIDTH), np.nan))
    cases = [
        ("members and others", view, other(truth, member=np.ones(COUNT, bool))),
        ("2 answers do not fit", view, other(truth, member=np.array([True, False]))),
        ("answer which candidates", view, other(truth, member=None)),
        ("needs candidates", view, other(truth, candidates=None)),
        ("does not have", view, other(truth, candidates=beyond, member=np.array([True, False]))),
        ("start table of shape", other(view, start=np.ones((ROWS, 2), np.float32)), truth),
        ("not finite", other(view, table=broken), truth),
    ]
    for message, given_view, given_truth in cases:
        with pytest.raises(EvaluationError, match=message):
            membership.ATTACK.run(given_view, given_truth, seed=0)
    first = view.references[0]
    everybody = tuple(other(r, member=np.ones(COUNT, bool)) for r in view.references)
    for message, references in {
        "trained itself": (),
        "needs 2 references": (first,),
        "of every candidate": (other(first, member=first.member[:3]),) * 2,
        "left out of two": everybody,
        "has seen the same": (first, other(first)),
        "not finite": (first, other(first, table=broken)),
    }.items():
        with pytest.raises(EvaluationError, match=message):
            reference_membership.ATTACK.run(other(view, references=references), truth, seed=0)
