from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.secagg import graph
from common.secagg.graph import Graph, degree, neighbours, withstands

from ._tools import refused, stream

SEED = stream("graph")(32)


def names(count: int) -> list[str]:
    return [f"client-{i:04d}" for i in range(count)]


def connected(nodes: set[str], joined: dict[str, tuple[str, ...]]) -> bool:
    """Whether ``nodes`` alone hang together."""
    reached: set[str] = set()
    waiting = sorted(nodes)[:1]
    while waiting:
        node = waiting.pop()
        if node not in reached:
            reached.add(node)
            waiting += [other for other in joined[node] if other in nodes]
    return reached == nodes


# ---------------------------------------------------------------- the graph


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.data())
def test_regular_symmetric_and_without_loops(count: int, data: st.DataObject) -> None:
    k = data.draw(st.one_of(st.just(count - 1), st.integers(1, max(1, (count - 1) // 2)).map(lambda half: 2 * half)))
    k = min(k, count - 1)
    joined = neighbours(names(count), k, SEED)
    assert sorted(joined) == names(count)
    for name, others in joined.items():
        assert len(set(others)) == len(others) == k and name not in others and list(others) == sorted(others)
        assert all(name in joined[other] for other in others)
    assert connected(set(joined), joined)


def test_everybody_computes_the_same_graph() -> None:
    ids = names(41)
    assert neighbours(ids, 6, SEED) == neighbours(ids[::-1], 6, SEED)
    assert all(Graph(ids, 6, SEED).of(name) == others for name, others in neighbours(ids, 6, SEED).items())
    assert neighbours(ids, 6, SEED) != neighbours(ids, 6, stream("other")(32))
    assert neighbours(ids, 6, SEED) != neighbours([*ids[:-1], "another"], 6, SEED)


def test_a_frozen_graph() -> None:
    """The graph is part of the protocol: whoever changes it needs another protocol version."""
    joined = neighbours(["a", "b", "c", "d", "e", "f", "g"], 2, bytes(range(32)))
    assert {name: "".join(others) for name, others in joined.items()} == {
        "a": "ef",
        "b": "de",
        "c": "dg",
        "d": "bc",
        "e": "ab",
        "f": "ag",
        "g": "cf",
    }


def test_it_is_a_ring_with_chords() -> None:
    joined = neighbours(names(20), 6, SEED)
    ring = neighbours(names(20), 2, SEED)  # the same order: the seed is the same
    order = [names(20)[0]]
    while len(order) < 20:
        order.append(next(other for other in ring[order[-1]] if other not in order[-2:]))
    for i, name in enumerate(order):
        assert set(joined[name]) == {order[(i + step) % 20] for step in (-3, -2, -1, 1, 2, 3)}


def test_every_pair_is_joined_equally_often() -> None:
    ids, k, tries = names(9), 4, 1500
    pairs: Counter[tuple[str, str]] = Counter()
    for number in range(tries):
        for name, others in neighbours(ids, k, number.to_bytes(32, "big")).items():
            pairs.update((name, other) for other in others if name < other)
    assert len(pairs) == math.comb(9, 2)
    # Joins within one graph depend on one another: every count by itself, at five standard deviations
    expected = tries * k / 8
    assert max(abs(count - expected) for count in pairs.values()) < 5 * math.sqrt(expected * (1 - k / 8))


def test_every_order_comes_equally_often() -> None:
    orders = Counter(tuple(graph._shuffled(list("abcd"), i.to_bytes(32, "big"))) for i in range(2400))
    assert len(orders) == 24
    assert stats.chisquare(list(orders.values())).pvalue > 1e-4


def test_words_that_would_bias_the_order_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the 2^64 words one is too many for three equal parts: the last.
    monkeypatch.setattr(graph, "_words", lambda _: iter([2**64 - 1, 1, 0]))
    assert graph._shuffled(list("abc"), SEED) == ["c", "a", "b"]  # 1 swaps the last two, 0 swaps the first two
    monkeypatch.setattr(graph, "_words", lambda _: iter([2**64 - 2, 0]))
    assert graph._shuffled(list("abc"), SEED) == ["b", "a", "c"]  # the last word that is kept: 2 modulo 3


@pytest.mark.parametrize(
    ("ids", "k", "code"),
    [
        (["a", "a", "b"], 2, "duplicate_id"),
        (["a", "b", "c", "d"], 4, "bad_graph"),
        (["a", "b", "c", "d"], 0, "bad_graph"),
        (["a", "b", "c", "d"], -2, "bad_graph"),
        (["a", "b", "c", "d", "e"], 3, "bad_graph"),
        (["a"], 0, "bad_graph"),
        ([], 0, "bad_graph"),
    ],
)
def test_graphs_that_do_not_exist_are_refused(ids: list[str], k: int, code: str) -> None:
    with refused(code):
        Graph(ids, k, SEED)


def test_foreign_names_and_other_seeds_are_refused() -> None:
    with refused("foreign_id"):
        Graph(names(5), 2, SEED).of("nobody")
    for seed in (b"", SEED[:31], SEED + b"\0"):
        with refused("bad_key"):
            Graph(names(5), 2, seed)


# ------------------------------------------------- its degree and threshold


def tail(others: int, marked: int, k: int, least: int) -> Fraction:
    """P[a set of k among ``others`` holds at least ``least`` of the ``marked``], by counting sets."""
    good = sum(math.comb(marked, j) * math.comb(others - marked, k - j) for j in range(max(0, least), k + 1))
    return Fraction(good, math.comb(others, k))


def exact_failure(n: int, k: int, t: int, colluders: int, dropped: int, *, signed: bool) -> Fraction:
    """The union bound over all clients and properties, in fractions."""
    harmful = 2 * t - k if signed else t
    removed = min(n, colluders + dropped)
    run = Fraction(math.comb(n - k // 2, removed - k // 2), math.comb(n, removed)) if removed >= k // 2 else Fraction(0)
    too_many = tail(n - 1, colluders, k, harmful)
    too_few = tail(n - 1, dropped, k, k - t + 1)
    return n * (too_many + too_few + run)


def slow_degree(n: int, colluders: int, dropped: int, failure: float, *, signed: bool) -> tuple[int, int] | None:
    for k in range(2, n - 1, 2):
        for t in range(1, k + 1):
            enough = 3 * t > 2 * k if signed else 2 * t > k
            if enough and exact_failure(n, k, t, colluders, dropped, signed=signed) <= failure:
                return k, t
    return None


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("n", "colluders", "dropped", "failure"),
    [(33, 3, 3, 0.01), (50, 5, 10, 0.05), (60, 0, 12, 1e-4), (60, 15, 0, 1e-4), (80, 4, 4, 2**-40), (40, 0, 0, 1e-9)],
)
def test_the_degree_is_the_smallest_that_counting_allows(
    n: int, colluders: int, dropped: int, failure: float, signed: bool
) -> None:
    wanted = slow_degree(n, colluders, dropped, failure, signed=signed)
    found = degree(n, colluding=colluders / n, dropping=dropped / n, failure=failure, signed=signed)
    if wanted is None:
        assert found[0] == n - 1
    else:
        assert found == wanted


@pytest.mark.parametrize(("n", "marked", "k"), [(40, 7, 10), (40, 0, 4), (40, 39, 6), (200, 60, 90), (33, 30, 20)])
def test_the_tails_are_exact(n: int, marked: int, k: int) -> None:
    fast = graph._Odds(n, marked, 0).at_least(k, marked)
    assert len(fast) == k + 2
    for least, value in enumerate(fast):
        wanted = float(tail(n - 1, marked, k, least))
        assert value == pytest.approx(wanted, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(("n", "removed", "k"), [(40, 10, 8), (40, 3, 8), (40, 40, 8), (300, 100, 40)])
def test_the_bound_on_a_cut_counts_runs(n: int, removed: int, k: int) -> None:
    runs = math.comb(n - k // 2, removed - k // 2) if removed >= k // 2 else 0
    wanted = min(1.0, n * float(Fraction(runs, math.comb(n, removed))))
    assert graph._Odds(n, removed, 0).disconnected(k) == pytest.approx(wanted, rel=1e-9)


def lacks_a_property(
    joined: dict[str, tuple[str, ...]], t: int, *, bad: set[str], gone: set[str], signed: bool
) -> bool:
    """What ``degree`` promises, looked up in one graph (``bad``: colluders, ``gone``: dropouts)."""
    k = len(next(iter(joined.values())))
    harmful = 2 * t - k if signed else t
    too_many = any(len(bad & set(others)) >= harmful for others in joined.values())
    too_few = any(len(set(others) - gone) < t for others in joined.values())
    return too_many or too_few or not connected(set(joined) - bad - gone, joined)


def rate_of_failure(n: int, k: int, t: int, *, colluders: int, dropped: int, signed: bool, tries: int = 250) -> float:
    """Over random graphs; colluders and dropouts are fixed before."""
    ids = names(n)
    bad, gone = set(ids[:colluders]), set(ids[-dropped:]) if dropped else set()
    fails = 0
    for number in range(tries):
        joined = neighbours(ids, k, stream(f"{n},{k},{number}")(32))
        fails += lacks_a_property(joined, t, bad=bad, gone=gone, signed=signed)
    return fails / tries


CASES = [(60, 6, 12, False), (60, 3, 6, True), (48, 8, 8, False)]
FAILURE = 0.1
LIMIT = FAILURE + 4 * math.sqrt(FAILURE * (1 - FAILURE) / 250)


@pytest.mark.parametrize(("n", "colluders", "dropped", "signed"), CASES)
def test_random_graphs_keep_what_the_degree_promises(n: int, colluders: int, dropped: int, signed: bool) -> None:
    k, t = degree(n, colluding=colluders / n, dropping=dropped / n, failure=FAILURE, signed=signed)
    assert k < n - 1
    assert rate_of_failure(n, k, t, colluders=colluders, dropped=dropped, signed=signed) < LIMIT


@pytest.mark.parametrize(("n", "colluders", "dropped", "signed"), CASES)
def test_the_simulation_would_see_a_wrong_bound(n: int, colluders: int, dropped: int, signed: bool) -> None:
    """Broken on purpose: one client's probability in place of the union over all."""
    k, _ = degree(n, colluding=colluders / n, dropping=dropped / n, failure=FAILURE, signed=signed)
    odds = graph._Odds(n, colluders, dropped)
    k_one = next(k for k in range(2, n, 2) if odds.least_threshold(k, n * FAILURE, signed=signed) is not None)
    t_one = odds.least_threshold(k_one, n * FAILURE, signed=signed)
    assert t_one is not None
    assert k_one < k
    assert rate_of_failure(n, k_one, t_one, colluders=colluders, dropped=dropped, signed=signed) > LIMIT


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("n", [2, 3, 5, 6])
def test_a_complete_graph_leaves_nothing_to_chance(n: int, signed: bool) -> None:
    ids = names(n)
    for colluders, dropped in itertools.product(range(n), repeat=2):
        fractions = {"colluding": colluders / n, "dropping": dropped / n}
        try:
            k, t = degree(n, **fractions, signed=signed)
        except graph.SecAggError as error:
            assert error.code == "no_threshold"
            assert not any(_stands(n, t, colluders, dropped, signed=signed) for t in range(1, n))
            continue
        assert k == n - 1 and _stands(n, t, colluders, dropped, signed=signed)
        assert not any(_stands(n, smaller, colluders, dropped, signed=signed) for smaller in range(1, t))
        joined = neighbours(ids, k, SEED)
        for bad in map(set, itertools.combinations(ids, colluders)):
            for gone in map(set, itertools.combinations(ids, dropped)):
                assert not lacks_a_property(joined, t, bad=bad, gone=gone, signed=signed)


def _stands(n: int, t: int, colluders: int, dropped: int, *, signed: bool) -> bool:
    k = n - 1
    majority = 3 * t > 2 * k if signed else 2 * t > k
    return majority and k - dropped >= t and colluders < (2 * t - k if signed else t)


def test_known_degrees() -> None:
    """Frozen: another value means another protocol parameter for everybody."""
    assert degree(32, colluding=0.1, dropping=0.3) == (31, 16)
    assert degree(100, colluding=0.05, dropping=0.1) == (28, 15)
    assert degree(1000, colluding=0.05, dropping=0.1) == (58, 30)
    assert degree(1000, colluding=0.1, dropping=0.3) == (264, 133)
    assert degree(1000, colluding=0.05, dropping=0.1, signed=True) == (128, 86)


def test_more_is_asked_of_more() -> None:
    base = degree(200, colluding=0.05, dropping=0.1)[0]
    assert degree(200, colluding=0.2, dropping=0.1)[0] >= base
    assert degree(200, colluding=0.05, dropping=0.2)[0] > base
    assert degree(200, colluding=0.05, dropping=0.1, failure=2**-60)[0] > base
    assert degree(200, colluding=0.05, dropping=0.1, signed=True)[0] > base
    assert degree(2000, colluding=0.05, dropping=0.1)[0] > base


def test_a_fraction_of_a_cohort_is_not_lost_or_gained_in_floats() -> None:
    assert [graph._count(j / n, n) for n in (7, 30, 49, 1000) for j in range(n)] == [
        j for n in (7, 30, 49, 1000) for j in range(n)
    ]
    assert graph._count(0.101, 100) == 11  # rounded up: more colluders than one hoped for, never fewer


@pytest.mark.parametrize(
    "changed",
    [
        {"cohort": 1},
        {"colluding": -0.1},
        {"colluding": 1.0},
        {"colluding": math.nan},
        {"dropping": -0.1},
        {"dropping": 1.0},
        {"failure": 0.0},
        {"failure": 1.0},
    ],
)
def test_bad_terms_are_refused(changed: dict[str, float]) -> None:
    with refused("bad_terms"):
        degree(**{"cohort": 50, "colluding": 0.1, "dropping": 0.1, **changed})  # type: ignore[arg-type]


def test_what_no_graph_can_stand_is_refused() -> None:
    for cohort in (20, 60):
        with refused("no_threshold"):
            degree(cohort, colluding=0.1, dropping=0.6)
        with refused("no_threshold"):
            degree(cohort, colluding=0.4, dropping=0.3, signed=True)
        with refused("no_threshold"):
            degree(cohort, colluding=0.9, dropping=0.3)


@pytest.mark.parametrize(("cohort", "least", "colluders"), [(614, 553, 20), (1000, 700, 50), (100, 70, 5), (12, 9, 2)])
def test_a_client_accepts_the_graph_of_a_plan_and_nothing_weaker(cohort: int, least: int, colluders: int) -> None:
    k, t = degree(cohort, colluding=colluders / least, dropping=1 - least / cohort)
    for left in (cohort, cohort - 1, (cohort + least) // 2, least):
        near = min(k, left - 1)
        assert withstands(left, near, -(-t * near // k), colluding=colluders / left)
    assert not withstands(cohort, k, k // 2, colluding=colluders / cohort)  # half of the neighbours open both secrets
    assert not withstands(cohort, k, k + 1, colluding=colluders / cohort)
    assert not withstands(cohort, k, t, colluding=0.5)
    if cohort > 32:
        assert not withstands(cohort, 6, 4, colluding=colluders / cohort)
