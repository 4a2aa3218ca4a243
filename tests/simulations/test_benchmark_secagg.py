"""The benchmark of secure aggregation: its tiny size runs, its floor makes the right masks, its bars can be missed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from common.errors import SecAggError
from common.secagg.masks import Masker
from common.secagg.terms import PhaseTerms
from simulations.benchmarks import _secagg_round as rounds
from simulations.benchmarks import secagg, secagg_quality
from simulations.benchmarks._harness import missed
from simulations.benchmarks._secagg_floor import BLOCK_BYTES, ClientFloor, ServerFloor, Shape, add_streams
from simulations.benchmarks._secagg_round import CLIENT_FLOOR, DOWN, HOPS, SERVER_FLOOR, UP, Setting
from simulations.benchmarks._secagg_selection import ROWS_A_CLIENT, covered_mass, zipf_votes

SMALL = Setting(6, 5, 3, (PhaseTerms("values", 16, 50),), least=4, floor_every=2)


def flower_figures(*_: Any) -> dict[str, list[float]]:
    return {
        "client": [1.0, 2.0, 1.0],
        "flower client": [4.0, 14.0, 6.0],
        "server": [1.0, 1.0, 1.0],
        "flower server": [24.0, 24.0, 90.0],
        "flower upload": [8.0],
    }


def test_the_quick_size_judges_exactness_alone() -> None:
    rows = secagg.BENCHMARK.run(quick=True)
    judged = [row for row in rows if row.bar]
    assert len(judged) == 1 and "wrong values" in judged[0].measure and judged[0].holds
    assert all(np.isfinite(row.value) and row.value >= 0 for row in rows)


def test_ratios_to_flower_are_medians_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secagg._peers, "run_ours", flower_figures)
    client, server = (row for row in secagg._against_flower(secagg.PEERS) if row.bar)
    assert (client.value, client.holds) == (6.0, True)
    assert (server.value, server.holds) == (24.0, False)


def test_every_hop_is_measured_on_both_sides() -> None:
    found = rounds.run(SMALL)
    assert found.wrong == 0 and found.survivors == 6
    assert {hop for side, hop in found.seconds if side == CLIENT_FLOOR} == set(HOPS)
    assert {hop for side, hop in found.seconds if side == SERVER_FLOOR} == {*HOPS, "finish"}
    assert [len(found.seconds[CLIENT_FLOOR, hop]) for hop in HOPS] == [3] * 5
    assert [len(found.seconds[SERVER_FLOOR, hop]) for hop in HOPS] == [6] * 5
    assert {message for way, message in found.sizes if way == DOWN} == {
        "cohort",
        "opening",
        "survivors",
        "confirmations",
    }
    header = 46
    assert found.bytes_of(UP, "masked") == header + 2 * 50
    assert found.bytes_of(UP) == sum(found.bytes_of(UP, hop) for hop in HOPS)
    assert found.carried() == 6 * (found.bytes_of(UP) + found.bytes_of(DOWN))


def test_a_wrong_sum_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = rounds.mask
    monkeypatch.setattr(
        rounds,
        "mask",
        lambda state, data, *, vector, phase: honest(state, data, vector=vector + np.uint16(1), phase=phase),
    )
    assert rounds.run(SMALL).wrong == 50
    with pytest.raises(ArithmeticError, match="not that of"):
        secagg._sizes(secagg.Size(6, 50, 1))


def test_dropouts_of_every_hop_leave_the_sum_exact_and_too_many_leave_none() -> None:
    gone = {hop: frozenset({i}) for i, hop in enumerate(HOPS)}
    setting = replace(SMALL, clients=12, degree=11, threshold=6, gone=gone, floor_every=0, least=7)
    found = rounds.run(setting)
    assert found.wrong == 0 and found.survivors == 12 - 3
    assert [len(found.sizes[UP, hop]) for hop in HOPS] == [11, 10, 9, 8, 7]
    with pytest.raises(SecAggError):
        rounds.run(replace(setting, gone={"masked": frozenset(range(6))}))


def test_the_floor_adds_the_streams_that_masks_are_made_of() -> None:
    length = BLOCK_BYTES // 2 + 77
    seeds = [bytes([i]) * 32 for i in range(3)]
    expected, found = np.zeros(length, "<u2"), np.zeros(length, "<u2")
    Masker(16, length).apply(expected, plus=seeds[:2], minus=seeds[2:])
    add_streams(found, seeds[:2], seeds[2:])
    assert np.array_equal(found, expected) and found.any()


def test_the_floor_does_as_many_operations_as_a_client_has_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    from simulations.benchmarks import _secagg_floor as floor

    counts = {"keys": 0, "signatures": 0, "streams": 0}

    def counted(name: str, work: Any, size: Any = lambda *_: 1) -> Any:
        def call(*arguments: Any) -> Any:
            counts[name] += size(*arguments)
            return work(*arguments)

        return call

    monkeypatch.setattr(floor, "_hkdf", counted("keys", floor._hkdf))
    monkeypatch.setattr(floor, "_verify_all", counted("signatures", floor._verify_all, len))
    monkeypatch.setattr(floor, "_stream", counted("streams", floor._stream))
    client, server = ClientFloor(Shape(7, 4, 20)), ServerFloor(Shape(7, 4, 20))
    client.advert()
    client.shares()
    body = client.masked(np.zeros(20, "<u2"))
    client.confirmation()
    client.reveal()
    assert counts == {"keys": 7 + 7 + 7 + 1, "signatures": 7 + 4, "streams": 8}
    server.masked(body)
    server.masked(body)
    assert server.finish().any() and counts["streams"] == 10


def test_a_client_votes_for_so_many_of_its_rows_at_random() -> None:
    votes = zipf_votes(5_000, 700, np.random.default_rng(1))
    assert votes.sum() == 700 * ROWS_A_CLIENT and votes.max() <= 700
    assert votes[:10].mean() > 5 * votes[500:510].mean()
    # The first row is among nearly everybody's rows, and of about 215 different ones 100 are drawn.
    assert 0.25 < votes[0] / 700 < 0.75


def test_larger_cohorts_cover_more() -> None:
    covered = [covered_mass(20_000, n, np.random.default_rng(2))[2] for n in (50, 400, 1_500)]
    assert covered[0] < covered[1] < covered[2] < 1


def test_missed_bars_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secagg, "MOST_CLIENT", 0.01)
    assert missed(secagg._sizes(secagg.Size(6, 50, 1)))


def test_quality_of_both_modes_in_the_quick_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secagg_quality, "MECHANISMS", ("skellam",))
    rows = secagg_quality.BENCHMARK.run(quick=True)
    modes = ["central", "distributed, skellam", "distributed, skellam / central"]
    assert [row.measure.split(": ")[1] for row in rows] == [*modes, f"{modes[-1]}, standard error"] * 2
    assert not any(row.bar for row in rows)


def test_the_ratio_of_means_is_judged_for_the_barred_metric_alone() -> None:
    case = secagg_quality.Case("case", {}, "table", 1e-5, lambda _: {}, barred="ndcg")
    found = {
        "central": [{"ndcg": 0.2, "hits": 0.5}, {"ndcg": 0.2, "hits": 0.5}],
        "distributed": [{"ndcg": 0.19, "hits": 0.5}, {"ndcg": 0.20, "hits": 0.4}],
    }
    ndcg = {row.measure: row for row in secagg_quality._rows(case, "ndcg", found)}
    ratio, error = (ndcg[f"case, epsilon 8, ndcg: distributed / central{end}"] for end in ("", ", standard error"))
    assert ratio.value == pytest.approx(0.975) and ratio.holds is False
    assert error.value == pytest.approx(0.025) and error.holds is None
    assert not missed(secagg_quality._rows(case, "hits", found))


def test_the_noise_beside_central_grows_with_the_cohort_at_sixteen_bits() -> None:
    few, many, fine = (
        secagg_quality._noise_row("skellam", *case).value for case in ((16, 100), (16, 4_000), (24, 4_000))
    )
    assert 1 < few < 1.1 < many < 1.5 and 1 < fine < 1.1
