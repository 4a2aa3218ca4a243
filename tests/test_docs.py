"""The documentation is run: the newcomer's examples in a copy of the repository, the README's commands by name."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("common", "client", "server", "simulations", "tests", "fedembed.py", "pyproject.toml")
BLOCK = re.compile(r"^```\w+ file=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GUIDE = (ROOT / "docs" / "newcomer.md").read_text(encoding="utf-8")


def files_of(text: str) -> dict[str, str]:
    """Path -> content of every block that names a file."""
    return dict(BLOCK.findall(text))


def commands_of(text: str) -> list[str]:
    """Every line that begins with ``$``."""
    return [line[2:] for block in CONSOLE.findall(text) for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with the guide's files in it."""
    folder = tmp_path_factory.mktemp("newcomer") / "checkout"
    folder.mkdir()
    for name in COPIED:
        source = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(source, folder / name, ignore=ignored) if source.is_dir() else shutil.copy(source, folder)
    for name, content in files_of(GUIDE).items():
        assert not (folder / name).exists(), f"{name} is taken: the guide would overwrite it"
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def run(command: str, folder: Path) -> str:
    """Run a command of the guide in ``folder`` with this Python; its standard output."""
    program, *words = shlex.split(command)
    start = {"python": [], "fedembed": ["-m", "simulations.cli"]}.get(program, ["-m", program])
    line = [sys.executable, *start, *words]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"$ {command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_the_guide_adds_one_of_each_kind_in_at_most_two_files() -> None:
    folders = [str(Path(name).parent) for name in files_of(GUIDE)]
    assert sorted(folders) == [
        ".",  # the family's scenario
        "client/readers",
        "common/families",
        "common/formats",
        "common/privacy/mechanisms",
    ]


def test_the_guide_s_contracts_pass(checkout: Path) -> None:
    """One pytest for all four, as one start of torch is enough; the words of ``-k`` are the guide's."""
    told = [shlex.split(command) for command in commands_of(GUIDE) if command.startswith("pytest ")]
    assert [len(words) for words in told] == [4] * 4
    suites, names = [words[1] for words in told], [words[3] for words in told]
    out = run(f"pytest {' '.join(suites)} -k '{' or '.join(names)}' -v -p no:cacheprovider", checkout)
    passed = re.search(r"(\d+) passed", out)
    assert passed is not None and int(passed.group(1)) >= 20


def test_the_guide_s_family_runs_and_learns(checkout: Path) -> None:
    from simulations.corpora.planted import TOPICS

    wanted = [command for command in commands_of(GUIDE) if command.startswith(("fedembed ", "python "))]
    output = {command: run(command, checkout) for command in wanted}
    assert len(output) == 6
    near = next(out for command, out in output.items() if " neighbors " in command)
    words = [line.split()[-1] for line in near.splitlines()[1:]]
    assert len(words) == 3 and set(words) <= set(next(topic for topic in TOPICS if "bread" in topic))
    assert (checkout / "indexing.csv").read_text(encoding="utf-8").startswith("key,d0,d1,")
    listed = output["fedembed list"]
    assert all(f"  {Path(name).stem} " in listed for name in files_of(GUIDE) if name.endswith(".py"))


def test_the_guide_s_checks_pass(checkout: Path) -> None:
    """Formatting and lint on the new files; types and imports are checked for the whole repository by .ci/run."""
    written = " ".join(name for name in files_of(GUIDE) if name.endswith(".py"))
    run(f"ruff check --no-cache {written}", checkout)
    run(f"ruff format --no-cache --check {written}", checkout)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    folder = (ROOT / page).parent
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (folder / link).exists()] == []


def test_sources_name_no_missing_page() -> None:
    sources = [*ROOT.glob("*.py"), *(f for p in COPIED[:5] for f in (ROOT / p).rglob("*.py"))]
    sources += (ROOT / "simulations" / "scenarios").glob("*.toml")
    named = {name for file in sources for name in re.findall(r"docs/\w+\.md", file.read_text(encoding="utf-8"))}
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


def test_ci_runs_the_readme_s_commands() -> None:
    readme, script = (
        (ROOT / "README.md").read_text(encoding="utf-8"),
        (ROOT / ".ci" / "run").read_text(encoding="utf-8"),
    )
    for command in ("pip install . && fedembed simulate", "pip install '.[test]' && pytest"):
        assert command in readme and command in script


def test_fedembed_commands_in_the_docs_exist() -> None:
    from simulations import cli

    groups = {group.name or group.typer_instance.info.name for group in cli.app.registered_groups}
    known = {command.name for command in cli.app.registered_commands} | groups
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    used = {w for page in pages for w in re.findall(r"(?:^\$ |`|&& )fedembed ([a-z]+)", page.read_text(), re.MULTILINE)}
    assert used <= known


def test_the_researcher_s_scenario_has_a_plan() -> None:
    import tomllib

    from common.config import build_scenario
    from common.table import RowDomain
    from common.work import work_for

    page = (ROOT / "docs" / "researcher.md").read_text(encoding="utf-8")
    block = re.search(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert block is not None
    raw = tomllib.loads(block.group(1))
    raw["privacy"] = {**raw["privacy"], "noise_multiplier": 1.0}
    del raw["privacy"]["epsilon"]  # calibration takes seconds and is tested elsewhere
    work = work_for(build_scenario(raw), RowDomain(("a", "b")))
    assert work.plan.amplified and work.plan.unit_is_client


CITED = re.compile(r"`((?:tests/\S+/)?test_\w+\.py)(?:::(\w+))?`")


def test_every_test_that_the_protocol_cites_exists() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    cited = CITED.findall(text)
    assert len(cited) > 20
    for name, function in cited:
        path = ROOT / (name if name.startswith("tests/") else f"tests/common/secagg/{name}")
        assert path.is_file(), name
        assert not function or f"def {function}(" in path.read_text(encoding="utf-8"), f"{name}::{function}"
