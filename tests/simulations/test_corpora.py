"""The corpora that need no file."""

from __future__ import annotations

from collections import Counter
from importlib import metadata
from itertools import groupby
from pathlib import Path

import pytest

from common.errors import ConfigError
from simulations import corpora
from simulations.corpora import installed_docs
from simulations.corpora.planted import CLIENTS, FILLER, TOPICS, UNITS_PER_CLIENT


def install(site: Path, name: str, files: dict[str, str]) -> None:
    """An installed distribution as pip leaves it: files and a RECORD."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    for inner, text in files.items():
        (site / inner).parent.mkdir(parents=True, exist_ok=True)
        (site / inner).write_text(text)
    (info / "RECORD").write_text("".join(f'"{inner}",,\n' for inner in files) + f"{info.name}/METADATA,,\n")


def functions(texts: list[str]) -> str:
    return "".join(f'def f{i}():\n    """{text}"""\n' for i, text in enumerate(texts))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(metadata, "distributions", lambda: metadata.Distribution.discover(path=[str(tmp_path)]))
    return tmp_path


def test_names_and_an_unknown_name() -> None:
    assert {"installed-docs", "planted", "python-stdlib"} <= set(corpora.names())
    with pytest.raises(ConfigError, match="did you mean 'planted'"):
        corpora.load("plantde")


def test_packages_become_clients_and_strings_units(site: Path) -> None:
    install(site, "beta", {"beta/__init__.py": functions(["one two three four five", "too short"])})
    install(site, "alpha", {"alpha.py": functions(["a b c d e f"]), "alpha_tests/x.py": functions(["a b c d e g"])})
    install(site, "fedembed", {"fedembed.py": functions(["our own text is not taken"])})
    install(site, "empty", {"empty.py": "x = 1\n"})
    assert [(r.client, r.unit, r.value) for r in corpora.load("installed-docs")] == [
        ("alpha", "0", "a b c d e f"),
        ("alpha", "1", "a b c d e g"),
        ("beta", "0", "one two three four five"),
    ]


def test_tests_outside_files_and_repeats_inside_a_client_are_left_out(site: Path) -> None:
    text = ["the same five or more words"]
    files = {
        "p/a.py": functions(text * 2),
        "p/b.py": functions(text),
        "p/tests/c.py": functions(["only in a test file"]),
    }
    install(site, "p", files)
    install(site, "q", {"q.py": functions(text)})
    with (site / "q-1.0.dist-info" / "RECORD").open("a") as record:
        record.write("../../bin/outside.py,,\nmissing.py,,\n")
    assert [(r.client, r.unit) for r in corpora.load("installed-docs")] == [("p", "0"), ("q", "0")]


def test_large_packages_are_split_at_their_folders(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed_docs, "SPLIT_ABOVE", 3)
    texts = [f"words one two three {name}" for name in ("ann", "bob", "cat", "dan")]
    files = {
        "big/__init__.py": functions(texts[:1]),
        "big/left/m.py": functions(texts[:2]),
        "big/right/m.py": functions(texts[:2]),
        "big/right/deep/m.py": functions(texts),
    }
    install(site, "big", files)
    sizes = Counter(r.client for r in corpora.load("installed-docs"))
    assert sizes == {"big (top)": 1, "big/left": 2, "big/right (top)": 2, "big/right/deep": 4}


def test_splitting_loses_and_doubles_nothing(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        f"big/{a}/{b}/m{a}.py": functions([f"five words and more {a} {b} {c}" for c in "xyz"])
        for a in "ab"
        for b in "cd"
    }
    install(site, "big", files)
    whole = sorted(r.value for r in corpora.load("installed-docs"))
    monkeypatch.setattr(installed_docs, "SPLIT_ABOVE", 2)
    parts = [(r.client, r.value) for r in corpora.load("installed-docs")]
    assert sorted(value for _, value in parts) == whole
    assert len({client for client, _ in parts}) == 4


def test_clients_stand_one_after_the_other(site: Path) -> None:
    for name in ("z", "y", "x"):
        install(site, name, {f"{name}.py": functions([f"four words and then {name} {i}" for i in "abc"])})
    clients = [client for client, _ in groupby(corpora.load("installed-docs"), key=lambda r: r.client)]
    assert clients == ["x", "y", "z"]


def test_packages_that_are_always_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "distributions", lambda: map(metadata.distribution, ["scikit-learn", "numpy"]))
    sizes = Counter(r.client for r in corpora.load("installed-docs"))
    assert len(sizes) >= 10
    assert sizes.total() >= 1_000
    assert {"numpy/ma", "sklearn/cluster"} & set(sizes)


def test_planted_corpus_is_the_same_each_time_and_has_its_topics() -> None:
    records = list(corpora.load("planted"))
    assert records == list(corpora.load("planted"))
    assert len(records) == CLIENTS * UNITS_PER_CLIENT
    for record in records[:50]:
        found = set(record.value.split())
        assert max(len(found & set(topic)) for topic in TOPICS) >= 6
        assert found & set(FILLER)
    counted = Counter(word for r in records for word in r.value.split())
    for word, expected in corpora.vocabulary("planted").items():
        assert 0.6 < counted[word] / expected < 1.6


def test_standard_library_corpus_matches_its_vocabulary() -> None:
    records = list(corpora.load("python-stdlib"))
    assert len(records) > 5_000
    assert any("argparse" in r.client for r in records)
