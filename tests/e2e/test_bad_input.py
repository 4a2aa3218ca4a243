"""A new user with bad input: each failure is one clear line, an exit code and a remedy, and leaves no debris."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from simulations import cli
from tests.e2e.unlucky import INTERACTIONS, NO_PRIVACY, SECRET, WORD2VEC, Run, check_refusal, here, run, simulate

__all__ = ["here", "run"]  # fixtures

BAD_DATA: list[tuple[str, bytes, tuple[str, ...], int, str]] = [
    ("bad.txt", b"", (), 5, "the file is empty"),
    ("bad.txt", b"wb " * 3_500_000, (), 6, "max_line_bytes"),
    ("bad.txt", "wb \xe9".encode("latin-1"), (), 5, "line 1: not UTF-8"),
    ("bad.txt", "wb wc".encode("utf-16"), (), 5, "not UTF-8"),
    ("bad.txt", b"wb\nwc\n", ("data.max_records=1",), 6, "max_records"),
    ("bad.jsonl", f'{{"text": "{SECRET}"}}\n{{"text": "{SECRET}"'.encode(), (), 5, "line 2"),
    ("bad.txt", b"wb\n", ("data.unit=sentnce",), 5, "did you mean 'sentence'?"),
    ("bad.txt", b"zyx zyxw\nzyx\n", (), 5, "no record of any client holds a row"),
    ("bad.csv", b"user,item\n1,zyx\n2,zyx\n", INTERACTIONS, 5, "no record of any client holds a row"),
    ("bad.txt", b"wb\n", ('data.client_key=["foldr"]',), 5, "did you mean 'folder'?"),
    ("bad.csv", f"user,item,rating\n{SECRET},wb,nan\n".encode(), INTERACTIONS, 5, "line 2: the weight is not finite"),
    ("bad.csv", f"user,item,rating\n{SECRET},wb,x{SECRET}\n".encode(), INTERACTIONS, 5, "not a number"),
    ("bad.csv", b"user,item\n-1,wb\n", INTERACTIONS, 5, "negative"),
    ("bad.csv", b"user,item\n1,-7.0\n", INTERACTIONS, 5, "negative"),
    ("bad.csv", b"user,user,item\n1,2,wb\n", INTERACTIONS, 5, "duplicate"),
    ("bad.csv", b"user,item\n", INTERACTIONS, 5, "no records"),
    ("bad.csv", b"user,item\n1,wb\n", (*INTERACTIONS, "data.holdout=last"), 5, "two items"),
    ("bad.csv", b"user,item\n1,wb\n1,wb\n", (*INTERACTIONS, "data.holdout=last"), 5, "two items"),
]


@pytest.mark.parametrize(("name", "content", "settings", "code", "hint"), BAD_DATA)
def test_bad_data(
    name: str, content: bytes, settings: tuple[str, ...], code: int, hint: str, here: Path, run: Run
) -> None:
    (here / name).write_bytes(content)
    check_refusal(simulate(run, f"data.path={name}", *settings), code, hint)
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("content", "code", "hint"),
    [
        (b"wb\t1\nwb\t2\n", 5, "line 2: key occurs twice"),
        (b"wb\t2\n" + b"w" * 10_000_000 + b"\t2\n", 6, "line 2"),
        ("\xe9\t1".encode("latin-1"), 5, "not UTF-8"),
        (b"wb\tnan\n", 5, "positive finite"),
        (b"wb 3\n", 5, "is a count meant"),
        (b"wb\t-3\n", 5, "positive finite"),
        (b"", 5, "no key"),
    ],
)
def test_bad_vocabulary(content: bytes, code: int, hint: str, here: Path, run: Run) -> None:
    (here / "words.tsv").write_bytes(content)
    check_refusal(simulate(run), code, hint)
    assert not (here / "out").exists()


BAD_SETTINGS: list[tuple[tuple[str, ...], int, str]] = [
    (("privacy.epsilonn=3",), 3, "did you mean 'epsilon'?"),
    (("fedration.rounds=3",), 3, "did you mean 'federation'?"),
    (("task.dimensoin=3",), 3, "did you mean 'dimension'?"),
    (("task.family=spectrl",), 3, "did you mean 'spectral'?"),
    (("data.reader=txt",), 3, "did you mean 'text'?"),
    (("data.reader=corpus", "data.path=plantd"), 3, "did you mean 'planted'?"),
    (('evaluation.tasks=["similarty"]',), 3, "did you mean 'similarity'?"),
    (('evaluation.tasks=["similarity:absent.tsv"]',), 3, "no file absent.tsv"),
    (("privacy=3",), 3, "must be a section"),
    (("privacy.epsilom=",), 3, "did you mean 'epsilon'?"),
    (("epsilon=",), 3, "nothing to take out"),
    (("task.dimenson=",), 3, "did you mean 'dimension'?"),
    (
        (*NO_PRIVACY, "task.family=image", "data.reader=images", 'evaluation.tasks=["knn"]', "task.dimension="),
        3,
        "encoder",
    ),
    (("data.client_key=user",), 3, "must be a list"),
    (("privacy.noise_multiplier=", "privacy.epsilon=0"), 4, "must be positive"),
    (("privacy.noise_multiplier=", "privacy.epsilon=-1"), 4, "must be positive"),
    (("privacy.noise_multiplier=", "privacy.epsilon=nan"), 4, "must be positive"),
    (("privacy.epsilon=3",), 4, "exactly one"),
    (("privacy.mode=none",), 4, "must be absent"),
    (("privacy.noise_multiplier=1e-9",), 4, "too far"),
    (("privacy.noise_multiplier=1e39",), 4, "too far"),
    (("privacy.delta=0",), 4, "strictly between"),
    (("privacy.delta=0.5",), 4, "not below 1/n"),
    (("privacy.mode=example", "training.local_steps=1", "training.unit_rate=0.5"), 4, "'spectral' has not"),
    ((*WORD2VEC, "data.unit=record", "privacy.mode=local"), 4, "cannot protect the unit"),
    ((*NO_PRIVACY, "task.family=image", "task.dimension="), 3, "takes images"),
    ((*NO_PRIVACY, "task.family=useritem", "data.reader=corpus", "data.path=planted"), 3, "takes interactions"),
    (("data.holdout=last",), 3, "needs interactions"),
    (("data.reader=corpus", "data.path=planted", "data.unit=package"), 3, "are records"),
    (("data.reader=corpus", "data.path=planted-ratings", "data.holdout=last"), 4, "would not hold"),
    (("data.partition=uniform", "data.clients=1000000000"), 5, "cannot be spread"),
    (("federation.min_nodes=2",), 3, "wait for ever"),
    (("federation.rounds=0",), 3, "greater than or equal to 1"),
    (("task.dimension=0",), 3, "greater than or equal to 1"),
    (("training.lr=-1",), 3, "greater than 0"),
    (("training.lr=inf",), 3, "finite"),
    (("training.batch_size=0",), 3, "greater than or equal to 1"),
    (("vocabulary.source=hashed", "vocabulary.buckets=1000000000"), 3, "buckets"),
    (("vocabulary.source=hashed", "vocabulary.buckets=99999", "task.dimension=4096"), 3, "of memory"),
    (("data.path=absent",), 5, "no such file"),
    (("data.path=",), 5, "data.path is empty"),
    (("vocabulary.path=python-stdlb",), 5, "did you mean 'python-stdlib'?"),
]


@pytest.mark.parametrize(("settings", "code", "hint"), BAD_SETTINGS)
def test_bad_settings(
    settings: tuple[str, ...], code: int, hint: str, here: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: 1 << 12 if name == "SC_PHYS_PAGES" else real(name))  # 16 MiB
    check_refusal(simulate(run, *settings, out="deep/out"), code, hint)
    assert not (here / "deep").exists()


@pytest.mark.parametrize("content", [b"[[[", "# \xe9".encode("latin-1"), b"\x00\x01", b"[x]\ny = 1"])
@pytest.mark.parametrize("command", ["plan", "simulate"])
def test_bad_scenario(content: bytes, command: str, here: Path, run: Run) -> None:
    (here / "s.toml").write_bytes(content)
    check_refusal(run(command, "s.toml", "--json"), 3, "")
    for name in ("absent.toml", "defalt"):
        check_refusal(run(command, name, "--json"), 3, name)


@pytest.mark.parametrize(
    ("first", "settings"),
    [
        (f"wb {SECRET}\n", ()),
        (f"{SECRET}\n", ()),
        (f"{SECRET}\n", (*WORD2VEC, "federation.sampling=poisson", "federation.rate=0.01")),
        ("wb\n", (*WORD2VEC, "training.batch_size=1000000000")),
        (f"user,item\na,wb\nb,{SECRET}\n", (*INTERACTIONS, "data.path=odd.csv", "task.family=useritem")),
        (
            f"user,item\na,{SECRET}\nb,wb\n",
            (*INTERACTIONS, "data.path=odd.csv", "task.family=useritem_bpr", *NO_PRIVACY),
        ),
    ],
)
def test_odd_clients_work(first: str, settings: tuple[str, ...], here: Path, run: Run) -> None:
    """One record, one client, nothing but unknown rows: they take part, and contribute what they have."""
    (here / "odd.csv").write_text(first)
    for client, text in (("a", first), ("b", "wb wc\n")):
        (here / "text" / f"{client}.txt").write_text(text)
    assert simulate(run, "privacy.delta=0.01", *settings)[0] == 0
    assert run("verify", "out")[0] == 0


@pytest.mark.parametrize(
    ("settings", "hint"), [(("federation.min_clients=9",), "9"), (("federation.dropout=0.99",), "dropped 3")]
)
def test_too_few_replies(settings: tuple[str, ...], hint: str, here: Path, run: Run) -> None:
    check_refusal(simulate(run, *settings), 11, hint)
    assert not (here / "out" / "release").exists()


def test_unusable_out(here: Path, run: Run) -> None:
    (here / "file").write_text("kept")
    for out in ("file", "file/below"):
        check_refusal(simulate(run, out=out), 13, "cannot write")
    assert (here / "file").read_text() == "kept"


def test_a_folder_with_other_files_is_no_folder_for_a_run(here: Path, run: Run) -> None:
    (here / "out").mkdir()
    (here / "out" / "mine.txt").write_text("mine")
    check_refusal(simulate(run), 13, "holds other files")
    assert [path.name for path in (here / "out").iterdir()] == ["mine.txt"]


def test_a_run_does_not_write_among_its_data(here: Path, run: Run) -> None:
    check_refusal(simulate(run, "data.path=."), 3, "lies inside data.path")
    assert not (here / "out").exists()


def test_words_that_no_text_can_hold_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "words.tsv").write_text("wa\t9\nwb\t8\nwc\t7\nWd\t6\nroute66\t5\ndon't\t4\n")
    assert cli.main(["simulate", "s.toml", "--out", "out"]) == 0
    assert "3 of 6 vocabulary keys occur in no text" in capsys.readouterr().err
