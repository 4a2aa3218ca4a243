import json
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest

from common.errors import DataError, DependencyError
from simulations import benchmarks
from simulations.benchmarks import _harness, skipgram
from simulations.benchmarks.__main__ import main
from simulations.benchmarks._harness import Row, at_least, at_most, reported
from simulations.centralized import Schedule


@pytest.fixture
def one_benchmark(monkeypatch):
    """Lets a test say what the only benchmark returns or raises; gives the sizes it was asked for."""
    asked = []

    def install(result):
        def run(quick):
            asked.append(quick)
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(benchmarks, "names", lambda: ["only"])
        monkeypatch.setattr(benchmarks, "load", lambda name: SimpleNamespace(name=name, run=run))
        return asked

    return install


def test_every_benchmark_has_a_name_and_a_run():
    assert "skipgram" in benchmarks.names()
    for name in benchmarks.names():
        benchmark = benchmarks.load(name)
        assert benchmark.name == name
        assert callable(benchmark.run)


@pytest.mark.parametrize(
    ("row", "holds"),
    [
        (at_least("m", 3.0, 3), True),
        (at_least("m", 2.999, 3), False),
        (at_least("m", float("nan"), 3), False),
        (at_most("m", 3.0, 3), True),
        (at_most("m", 3.001, 3), False),
        (at_most("m", float("nan"), 3), False),
        (reported("m", 1.0), None),
    ],
)
def test_a_bar_is_inclusive_and_nan_never_meets_it(row, holds):
    assert row.holds is holds


def test_a_tiny_run_keeps_its_figures_and_loses_its_bars():
    rows = _harness.unjudged([at_least("speed", 2.0, 3), reported("rate", 1.0)])
    assert rows == [reported("speed", 2.0), reported("rate", 1.0)] and not _harness.missed(rows)


def test_the_table_and_the_exit_code_of_bars_that_hold(one_benchmark, capsys):
    asked = one_benchmark([at_least("speed", 4.0, 3), reported("words", 1_234_567.0)])
    assert main(["only"]) == 0
    assert asked == [False]
    lines = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["measure", "value", "bar", "holds"]
    assert lines[2] == ["speed", "4", ">= 3", "yes"]
    assert lines[3] == ["words", "1,234,567", "", ""]


def test_a_missed_bar_exits_with_one_and_says_so(one_benchmark, capsys, tmp_path):
    asked = one_benchmark([at_least("speed", 2.0, 3), at_most("loss", 0.1, 1), reported("rate", float("inf"))])
    file = tmp_path / "out.json"
    assert main(["only", "--quick", "--json", str(file)]) == 1
    assert asked == [True]
    assert "NO" in capsys.readouterr().out
    result = json.loads(file.read_text())
    assert (result["benchmark"], result["quick"], result["holds"]) == ("only", True, False)
    assert result["rows"][0] == {"measure": "speed", "value": 2.0, "bar": ">= 3", "holds": False}
    assert result["rows"][2]["value"] is None
    assert result["machine"]["cores"] > 0
    assert "torch" in result["versions"]


def test_errors_have_their_own_exit_code_and_no_trace(one_benchmark, capsys):
    one_benchmark(DependencyError("needs a peer", remedy="install it"))
    assert main(["only"]) == 14
    captured = capsys.readouterr()
    assert captured.err == "error: needs a peer\ninstall it\n"
    assert not captured.out


def test_an_unknown_name_is_refused_with_the_nearest(capsys):
    assert main(["skipgrams"]) == 3
    assert "did you mean 'skipgram'" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_a_storage_error(one_benchmark, capsys, tmp_path):
    one_benchmark([Row("m", 1.0, "", None)])
    assert main(["only", "--json", str(tmp_path / "missing" / "out.json")]) == 13
    assert "cannot write" in capsys.readouterr().err


def test_the_data_folder_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDEMBED_DATA", str(tmp_path))
    assert _harness.data_folder() == tmp_path
    monkeypatch.setenv("FEDEMBED_DATA", str(tmp_path / "missing"))
    with pytest.raises(DataError, match="no folder"):
        _harness.data_folder()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the peer's own imports
def test_skipgram_quick_runs_both_and_claims_no_bar():
    pytest.importorskip("gensim")
    rows = benchmarks.load("skipgram").run(quick=True)
    assert len(rows) == 3
    assert all(row.holds is None and row.value > 0 for row in rows)


def test_skipgram_without_its_peer_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    corpus = skipgram.encoded([["a", "b"] * 5])
    with pytest.raises(DependencyError, match="needs gensim"):
        skipgram.train_gensim(corpus, Schedule(workers=1))


def test_the_corpus_is_the_same_for_both():
    texts = [["a", "b", "c", "rare"] * 4, [], ["a"] * 1_500]
    corpus = skipgram.encoded(texts[:1] * 2 + texts[1:] + [["once"]])
    assert corpus.raw_words == 2 * 16 + 1_500 + 1
    assert corpus.domain.keys == ("a", "b", "c", "rare")
    assert max(map(len, corpus.sentences)) <= skipgram.SENTENCE_WORDS
    keys = corpus.domain.keys
    offsets, rows = corpus.units.offsets, corpus.units.columns["rows"]
    decoded = [[keys[r] for r in rows[a:b]] for a, b in pairwise(offsets)]
    assert decoded == [[w for w in sentence if w != "once"] for sentence in corpus.sentences]


def test_quality_rows_hold_down_to_the_bar(tmp_path, monkeypatch):
    file = tmp_path / "EN-X.tsv"
    scores = {"peer": 0.5, "close": 0.481, "far": 0.47}
    task = SimpleNamespace(score=lambda table, path, *, seed: [SimpleNamespace(value=scores[table])])
    monkeypatch.setattr(skipgram, "load_task", lambda name: task)
    trained = {name: [SimpleNamespace(table=name)] for name in scores}
    assert skipgram.quality_rows(file, trained["peer"], trained["close"])[2].holds
    assert not skipgram.quality_rows(file, trained["peer"], trained["far"])[2].holds
