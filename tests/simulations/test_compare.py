"""``fedembed compare`` on small releases that are written here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from common.config import build_scenario
from common.evaluation.score import Score
from common.privacy.plan import make_plan
from common.release import ReleaseContents, write_release
from common.table import EmbeddingTable
from simulations import cli
from simulations.commands.compare import claim_rows, difference, paired_scores


def score(
    value: float, low: float, high: float, *, task: str = "similarity:x", metric: str = "spearman", higher: bool = True
) -> Score:
    return Score(task, metric, value, low, high, 30, 1.0, higher, "random table", 0.0)


def written(path: Path, table: EmbeddingTable | None, scores: list[Score], *, epsilon: float | None = None) -> Path:
    """A release; with an epsilon its claim is made up, as nothing here is to be accounted."""
    scenario = build_scenario({"privacy": {"mode": "none"}, "data": {"unit": "sentence"}})
    plan = make_plan(
        scenario.privacy, scenario.federation, scenario.training, unit="sentence", additive=True, natural_clip=1.0
    )
    claim = plan.claim(2)
    if epsilon is not None:
        claim["mode"], claim["mechanism"]["noise_multiplier"] = "central", 2.0
        claim["observers"]["public"]["epsilon"] = epsilon
    write_release(
        path,
        ReleaseContents(
            tables={} if table is None else {"rows": table, "small": EmbeddingTable(table.keys[:4], table.vectors[:4])},
            certificate=claim,
            scenario=scenario.model_dump(mode="json"),
            evaluation=scores,
            rounds=[{"round": 1}, {"round": 2}],
            **({} if table is not None else {"model": {"w": np.zeros(2, np.float32)}, "model_config": {"family": "x"}}),
        ),
    )
    return path


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    folder = tmp_path_factory.mktemp("releases")
    patch = pytest.MonkeyPatch()
    patch.setattr("common.release.writing.refuse_unsound", lambda _: None)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 5))
    moved = vectors @ np.linalg.qr(rng.normal(size=(5, 5)))[0] + 0.2 * rng.normal(size=(60, 5))
    keys = [f"k{i}" for i in range(70)]
    first, second = (
        EmbeddingTable(tuple(keys[start : start + 60]), array.astype(np.float32))
        for start, array in ((0, vectors), (10, np.roll(moved, -10, axis=0)))
    )
    only = score(0.3, 0.2, 0.4, task="knn", metric="accuracy@5")
    yield {
        "first": written(folder / "a", first, [score(0.5, 0.4, 0.6), only]),
        "second": written(folder / "b", second, [score(0.2, 0.1, 0.3)], epsilon=2.9963),
        "encoder": written(folder / "c", None, []),
    }
    patch.undo()


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_claims_scores_and_drift_side_by_side(releases: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "compare", releases["first"], releases["second"])
    assert code == 0 and err == ""
    lines = [line.split() for line in out.splitlines()]
    assert ["mode", "none", "central", "differs"] in lines and ["unit", "sentence", "sentence"] in lines
    assert ["epsilon.public", "not", "protected", "2.997", "differs"] in lines
    similar = next(line for line in lines if line[:1] == ["similarity:x"])
    assert similar[2:] == ["0.5", "0.2", "-0.3", "worse"]
    assert next(line for line in lines if line[:1] == ["knn"])[2:] == ["0.3", "-", "-", "only", "in", "the", "first"]
    assert "50 keys shared, 10 added, 10 removed" in out
    assert "procrustes_residual" in out and "neighbor_overlap@10" in out


def test_json_holds_the_same(releases: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "compare", releases["first"], releases["second"], "--json", "--seed", 3)
    found = json.loads(out)
    assert code == 0 and found["no_drift_because"] is None
    claims = {row["field"]: (row["first"], row["second"]) for row in found["claims"]}
    assert claims["mode"] == ("none", "central") and claims["epsilon.coordinator"] == (None, None)
    assert claims["mechanism.noise_multiplier"][1] == 2.0
    assert found["scores"][0]["difference"] == pytest.approx(-0.3) and found["scores"][1]["second"] is None
    assert (found["drift"]["shared"], found["drift"]["added"], found["drift"]["removed"]) == (50, 10, 10)
    metrics = {entry["metric"]: entry for entry in found["drift"]["scores"]}
    assert 0 < metrics["procrustes_residual"]["value"] < 0.5
    overlap = metrics["neighbor_overlap@10"]
    assert (
        overlap["ci_low"] < overlap["value"] < overlap["ci_high"] and overlap["value"] > 2 * overlap["baseline_value"]
    )


def test_a_release_has_not_moved_from_itself(releases: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(capsys, "compare", releases["first"], releases["first"], "--json")[1])
    assert all(row["first"] == row["second"] for row in found["claims"])
    assert {entry["difference"] for entry in found["scores"]} == {0.0}
    values = {entry["metric"]: entry["value"] for entry in found["drift"]["scores"]}
    assert values["neighbor_overlap@10"] == 1.0 and values["procrustes_residual"] < 2e-3


@pytest.mark.parametrize(
    ("pair", "words", "said"),
    [
        (("first", "encoder"), (), "encoder and no table"),
        (("first", "second"), ("--table", "small"), "share 0 keys"),
        (("first", "first"), ("--table", "small"), "share 4 keys"),
    ],
)
def test_where_tables_cannot_be_compared_the_rest_is(
    pair: tuple[str, str],
    words: tuple[str, ...],
    said: str,
    releases: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = run(capsys, "compare", *(releases[name] for name in pair), *words)
    assert code == 0 and f"not compared: {said}" in out.replace("the tables ", "").replace("a release holds an ", "")
    found = json.loads(run(capsys, "compare", *(releases[name] for name in pair), *words, "--json")[1])
    assert found["drift"] is None and said in found["no_drift_because"] and found["claims"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("first",), 2, "Missing argument"),
        (("first", "second", "--table", "row"), 2, "did you mean 'rows'?"),
        (("first", "absent"), 9, "there is no folder"),
    ],
)
def test_bad_words(
    words: tuple[str, ...],
    code: int,
    said: str,
    releases: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {**releases, "absent": tmp_path / "absent"}
    got, out, err = run(capsys, "compare", *(places.get(word, word) for word in words))
    assert got == code and out == "" and said in err


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (score(0.5, 0.4, 0.6), score(0.7, 0.65, 0.8), (0.2, "better")),
        (score(0.7, 0.65, 0.8), score(0.5, 0.4, 0.6), (-0.2, "worse")),
        (score(0.5, 0.4, 0.6, higher=False), score(0.7, 0.65, 0.8, higher=False), (0.2, "worse")),
        (score(0.5, 0.4, 0.6, higher=False), score(0.3, 0.1, 0.35, higher=False), (-0.2, "better")),
        (score(0.5, 0.4, 0.6), score(0.6, 0.55, 0.7), (0.1, "within the intervals")),
        (score(0.5, float("nan"), float("nan")), score(0.6, 0.55, 0.7), (0.1, "-")),
        (score(0.5, 0.4, 0.6), score(0.6, 0.55, 0.7, higher=False), (0.1, "not comparable")),
        (None, score(0.6, 0.55, 0.7), (None, "only in the second")),
        (score(0.6, 0.55, 0.7), None, (None, "only in the first")),
    ],
)
def test_differences(first: Score | None, second: Score | None, expected: tuple[float | None, str]) -> None:
    moved, verdict = difference(first, second)
    assert verdict == expected[1] and (moved is None) == (expected[0] is None)
    assert moved is None or moved == pytest.approx(expected[0])


def test_pairs_keep_the_order_and_observers_of_either_claim_are_named() -> None:
    a, b, c = (score(0.1, 0, 1, task=name) for name in "abc")
    assert paired_scores([b, a], [c, a]) == [(b, None), (a, a), (None, c)]
    rows = {name: (x, y) for name, x, y in claim_rows({"observers": {"public": {"epsilon": 1.0}}}, {})}
    assert rows["epsilon.public"] == (1.0, None) and rows["mode"] == (None, None)
