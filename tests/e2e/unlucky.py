"""A scenario that works, a way to run commands, and what every refusal must look like."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from simulations import cli

SECRET = "xyzzyplugh"  # stands in the records; no message may quote it
WORDS = [f"w{letter}" for letter in "abcdefgh"]
TEXT = "".join(f"{WORDS[i]} {WORDS[i * 3 % 8]} {SECRET} {WORDS[(i + 5) % 8]} wb\n" for i in range(4))
RATINGS = "user,item,rating\n" + "".join(
    f"{SECRET}{u},{WORDS[(u * 3 + i * i) % 8]},3\n" for u in range(6) for i in range(4)
)
SCENARIO = """
[task]
family = "spectral"
dimension = 3
[data]
path = "text"
[vocabulary]
path = "words.tsv"
[privacy]
noise_multiplier = 1.0
delta = 1e-3
"""
INTERACTIONS = ("data.reader=interactions", "data.unit=user", 'data.client_key=["user"]')
WORD2VEC = (
    "task.family=word2vec",
    "task.dimension=",
    "task.dimension=3",
    "data.unit=client",
    "privacy.l2_clip_norm=1",
)
NO_PRIVACY = ("privacy.mode=none", "privacy.noise_multiplier=")

Run = Callable[..., tuple[int, str, str]]


def prepare(folder: Path) -> Path:
    """Put a scenario that works, with its data, into ``folder``."""
    (folder / "text").mkdir()
    for client in "abc":
        (folder / "text" / f"{client}.txt").write_text(TEXT)
    (folder / "words.tsv").write_text("".join(f"{word}\t{10 - i}\n" for i, word in enumerate(WORDS)))
    (folder / "ratings.csv").write_text(RATINGS)
    (folder / "s.toml").write_text(SCENARIO)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a scenario that works, as working folder."""
    monkeypatch.chdir(tmp_path)
    return prepare(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process: exit code, standard output, standard error without progress."""

    def called(*words: object) -> tuple[int, str, str]:
        code = cli.main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, "".join(x for x in captured.err.splitlines(True) if not x.startswith("["))

    return called


def simulate(run: Run, *settings: str, out: object = "out") -> tuple[int, str, str]:
    return run("simulate", "s.toml", "--out", out, "--json", *(word for s in settings for word in ("--set", s)))


def check_refusal(found: tuple[int, str, str], code: int, hint: str) -> None:
    """One line that says what, one that says what to do, the same as JSON; nothing private and no traceback."""
    got, out, err = found
    assert (got, hint in err) == (code, True), err
    what, remedy = err.splitlines()
    assert what.startswith("fedembed: ") and remedy.strip(), err
    assert SECRET not in err and "Traceback" not in err and "unforeseen" not in err
    error = json.loads(out)["error"]
    assert error["exit_code"] == code and error["message"] in what and error["remedy"] == remedy.strip()
