"""The quality benchmarks run on generated data at their tiny size, and their bars follow their figures."""

import json
import math

import numpy as np
import pytest

from common.evaluation.quality.recommendation import RecommendationBenchmark
from common.evaluation.score import Score
from simulations import benchmarks
from simulations.benchmarks import _privacy_recommendation, _texts
from simulations.benchmarks.__main__ import main
from simulations.benchmarks._federated import scenario
from simulations.benchmarks._scored import Figure, rows_of, smallest_that_beats


def _score(low: float) -> Score:
    return Score("t", "auc", low + 0.1, low, low + 0.2, 10, 1.0, True, "random table", 0.5)


def test_both_benchmarks_are_found() -> None:
    assert {"quality_text", "quality_privacy"} <= set(benchmarks.names())


def test_quality_text_runs_at_its_tiny_size(tmp_path) -> None:
    assert main(["quality_text", "--quick", "--json", str(tmp_path / "out.json")]) == 0
    assert not any(row["bar"] for row in json.loads((tmp_path / "out.json").read_text())["rows"])
    rows = {row["measure"]: row["value"] for row in json.loads((tmp_path / "out.json").read_text())["rows"]}
    assert rows["clients"] == 20
    assert rows["passes over every client's data, both sides"] == 2
    assert rows["topics: federated"] > 0


def test_quality_privacy_runs_at_its_tiny_size() -> None:
    rows = benchmarks.load("quality_privacy").run(quick=True)
    measures = [row.measure for row in rows]
    for method in ("spectral, unit sentence", "word2vec example mode", "useritem, generated", "popularity, generated"):
        assert any(measure.startswith(method) for measure in measures)
    assert any("epsilon none" in measure for measure in measures)
    assert any("epsilon 8" in measure for measure in measures)
    assert all(row.holds is None for row in rows)
    useritem = next(r for r in rows if r.measure.startswith("useritem") and "hit_rate@10, epsilon none" in r.measure)
    assert useritem.value > 0.1


@pytest.mark.parametrize(
    ("beats", "smallest"),
    [
        ({8.0: True, 3.0: True, 1.0: True}, 1.0),
        ({8.0: True, 3.0: True, 1.0: False}, 3.0),
        ({8.0: True, 3.0: False, 1.0: True}, 8.0),  # one lucky figure below a failure counts for nothing
        ({8.0: False, 3.0: True, 1.0: True}, math.inf),
    ],
)
def test_the_smallest_epsilon_needs_every_larger_one(beats, smallest) -> None:
    assert smallest_that_beats(beats) == smallest


def test_only_epsilon_eight_and_targets_carry_bars() -> None:
    figures = [Figure("m", epsilon, "auc", _score(low), 0.5) for epsilon, low in ((None, 0.8), (8.0, 0.4), (3.0, 0.2))]
    rows = rows_of([*figures, Figure("m", 1.0, "auc", _score(0.3), 0.5, target=0.35)])
    assert [row.holds for row in rows] == [None, False, None, None, True, None]
    assert rows[-1].value == math.inf


def test_later_sections_win_key_by_key() -> None:
    merged = scenario(
        {"privacy": {"mode": "none"}, "federation": {"rounds": 2}}, {"federation": {"rounds": 7}}, {"seed": 3}
    )
    assert (merged.federation.rounds, merged.privacy.mode, merged.seed) == (7, "none", 3)


def test_private_popularity_follows_the_counts_as_epsilon_grows() -> None:
    rng = np.random.default_rng(0)
    lists = [rng.permutation(40)[: rng.integers(3, 8)] % 40 for _ in range(200)]
    items = np.concatenate([np.sort(np.minimum(row[:-1], row[:-1])) for row in lists])
    offsets = np.concatenate([[0], np.cumsum([len(row) - 1 for row in lists])])
    split = RecommendationBenchmark(offsets, items, np.array([row[-1] for row in lists]), rows=40)
    plain = _privacy_recommendation.popularity_scores(split, None)
    noised = _privacy_recommendation.popularity_scores(split, 0.05)
    assert plain[0].value == plain[0].baseline_value == noised[0].baseline_value
    assert noised[0].value != plain[0].value


def test_parts_cut_every_author_evenly(tmp_path) -> None:
    text = _texts.generated(tmp_path, parts=4)
    sizes: dict[tuple[str, int], int] = {}
    for line in text.path.read_text().splitlines():
        record = json.loads(line)
        sizes[record["author"], record["part"]] = sizes.get((record["author"], record["part"]), 0) + 1
    assert set(sizes.values()) == {25}
    assert len(sizes) == 20 * 4


def test_sentences_end_at_stops_and_lines_are_joined() -> None:
    novel = {"text": "It was\nlate. “Was it?”  she said!\n\n* * *\nYes."}
    assert list(_texts._sentences(novel)) == ["It was late.", "“Was it?” she said!", "* * * Yes."]
