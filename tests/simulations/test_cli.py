"""The command line: what it teaches, how each kind of failure ends, and that ``--json`` is one JSON object."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common import errors
from common.errors import FedembedError
from simulations import cli
from simulations.commands import train
from simulations.commands.exit_codes import error_classes, exit_codes, meanings

HEAVY = ("torch", "flwr", "opacus", "numpy", "scipy", "sklearn", "matplotlib", "pydantic", "dp_accounting", "rich")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command."""
    code = cli.main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def failing_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``fedembed plan`` raise ``error``."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("simulations.runs.plan", fail)


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--help")
    assert code == 0 and err == ""
    assert len(re.findall(r"^    fedembed ", out, flags=re.MULTILINE)) == 3  # three lines to try
    for exit_code, text in exit_codes().items():
        assert re.search(rf"^  {exit_code} +{re.escape(text[:40])}", out, flags=re.MULTILINE), exit_code


def test_without_words_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys) == run(capsys, "--help")


def test_every_error_class_is_explained_in_the_tree() -> None:
    drawn = dict(re.findall(r"(\w+Error) \((\d+)\)", errors.__doc__ or ""))
    assert {kind.__name__: str(kind.exit_code) for kind in error_classes()} == drawn
    assert set(drawn) - set(meanings()) == {"FedembedError"}


def test_help_imports_nothing_heavy(root: Path) -> None:
    program = (
        "import sys; from simulations import cli; code = cli.main(['--help']); "
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")


@pytest.mark.parametrize("name", sorted(c.name or "" for c in cli.app.registered_commands))
def test_every_command_has_a_help_page_and_an_honest_summary(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, name, "--help")
    assert code == 0 and out.startswith(f"Usage: fedembed {name}")
    assert "\\[" not in out and "Placeholder" not in out
    assert "--json" in out  # every command can answer a program


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_each_error_ends_in_its_code_and_remedy(
    kind: type[FedembedError], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_with(kind("the cause"), monkeypatch)
    code, out, err = run(capsys, "plan")
    assert code == kind.exit_code
    assert out == ""
    assert err == f"fedembed: {kind.__name__}: the cause\n          {kind.remedy}\n"


def test_an_own_remedy_wins(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(errors.DataError("the cause", remedy="do this"), monkeypatch)
    assert "do this" in run(capsys, "plan")[2]


def test_an_error_under_json_is_one_object(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(errors.BudgetError("too much", remedy="less"), monkeypatch)
    code, out, _ = run(capsys, "plan", "--json")
    assert json.loads(out)["error"] == {
        "kind": "BudgetError",
        "message": "too much",
        "remedy": "less",
        "exit_code": code,
    }


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_a_storage_error(
    number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_with(OSError(number, "no room", "some/file"), monkeypatch)
    code, _, err = run(capsys, "plan")
    assert code == errors.StorageError.exit_code
    assert "StorageError: cannot write some/file: no room" in err


def test_another_os_error_is_a_fault(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(OSError(errno.EIO, "broken"), monkeypatch)
    assert run(capsys, "plan")[0] == 1


def test_a_fault_shows_its_traceback_only_when_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_with(ZeroDivisionError("division by zero"), monkeypatch)
    code, _, err = run(capsys, "plan")
    assert code == 1 and "Traceback" not in err and "--debug" in err
    for words in (("plan", "--debug"), ("--debug", "plan")):
        code, _, err = run(capsys, *words)
        assert code == 1 and "Traceback" in err


@pytest.mark.parametrize("error", [KeyboardInterrupt()])
def test_an_interrupt_ends_in_130(
    error: BaseException, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_with(error, monkeypatch)
    code, out, err = run(capsys, "plan")
    assert code == 130 and out == "" and "resumes" in err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("simulat",), "simulate"),
        (("simulate", "--sed", "3"), "--seed"),
        (("simulate", "--engine", "rya"), "local"),
        (("simulate", "--seed", "x"), "integer"),
        (("neighbors",), "RELEASE"),
        (("export", "somewhere", "--out", "x"), "--format"),
        (("list", "familys"), "families"),
        (("ledger",), "verify"),
    ],
)
def test_a_wrong_command_line_ends_in_2(words: tuple[str, ...], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *words)
    assert code == 2 and out == "" and hint in err and "Traceback" not in err


def test_version_is_the_project_s(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    import tomllib

    import fedembed

    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert run(capsys, "--version") == (0, f"{project['version']}\n", "")
    assert fedembed.__version__ == project["version"]


def test_words_after_a_double_dash_are_not_flags() -> None:
    assert cli._without_flags(["neighbors", "r", "--debug", "--", "--version"]) == (
        {"--debug"},
        ["neighbors", "r", "--", "--version"],
    )


def test_seed_comes_after_settings() -> None:
    assert train.overrides(["seed=1", "privacy.epsilon=2"], 7) == ["seed=1", "privacy.epsilon=2", "seed=7"]
    assert train.overrides(None, None) == []


def test_a_closed_pipe_ends_quietly(root: Path) -> None:
    """``fedembed list | head -0``: nobody reads, nothing is said."""
    program = "import sys; from simulations import cli; sys.exit(cli.main(['list']))"
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), complaint) == (141, "")


def test_list_names_every_member(capsys: pytest.CaptureFixture[str]) -> None:
    from common import families, formats
    from common.evaluation import quality

    code, out, _ = run(capsys, "list", "--json")
    found = json.loads(out)
    assert code == 0
    assert list(found["families"]) == families.names()
    assert list(found["formats"]) == formats.names()
    assert list(found["tasks"]) == quality.names()
    assert "default" in found["scenarios"]
    for kind, members in found.items():
        for member, text in members.items():
            assert text, f"{kind} {member} says nothing about itself"


def test_list_of_options_knows_every_key_of_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    from common import families
    from common.config import Scenario

    code, out, _ = run(capsys, "list", "options", "--json")
    found = json.loads(out)["options"]
    assert code == 0
    for section, field in Scenario.model_fields.items():
        for key in getattr(field.annotation, "model_fields", {}):
            assert found[f"{section}.{key}"]
    for name in families.names():
        assert {f"task.{key} ({name})" for key in families.load(name).Options.model_fields} <= set(found)
    assert "'word'" not in found["privacy.mode"] and "central" in found["privacy.mode"]


def test_list_of_one_kind_has_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    from common import formats

    _, out, _ = run(capsys, "list", "formats")
    assert [line.split()[0] for line in out.splitlines()] == formats.names()
