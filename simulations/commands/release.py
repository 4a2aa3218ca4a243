"""Commands that look into a finished release: verify, report, neighbors, evaluate, export."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.discovery import nearest
from common.errors import ReleaseError, UsageError
from simulations.commands.embedding import embedded
from simulations.commands.output import emit_json, note, say, shown, table
from simulations.commands.train import JsonOption

if TYPE_CHECKING:
    from common.evaluation.score import Score
    from common.release import Release
    from common.table import EmbeddingTable

_MOST_SUGGESTIONS = 20_000  # keys compared when a key is unknown: the answer must come at once

ReleaseArgument = Annotated[Path, typer.Argument(metavar="RELEASE", hidden=True)]
SeedOption = Annotated[
    int, typer.Option("--seed", metavar="N", show_default=False, help="Seed of baselines and intervals (0).")
]
TableOption = Annotated[
    str | None, typer.Option("--table", metavar="NAME", help="Which table of the release; by default the main one.")
]

DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="PATH", help="For an encoder: the images (.npz or folder) whose vectors are meant."),
]


def verify(release: ReleaseArgument, *, json_output: JsonOption = False) -> None:
    """Check every digest of a release and recompute its epsilon from the recorded events.

    RELEASE is the folder that `fedembed simulate` named at its end. Fails with exit code 9 when anything was altered,
    or when the claim does not follow from the events.

    Example: fedembed verify runs/first
    """
    from common.release import verify as verified

    report = verified(release_folder(release))
    if json_output:
        emit_json({"release": report.path, "verified": report.passed, "checks": list(report.checks)})
    else:
        for check in report.checks:
            say(f"{'ok    ' if check.passed else 'FAILED'}  {check.name}: {check.detail}")
    if not report.passed:
        note("fedembed: do not rely on this release: get it again from its maker, or make it again")
        raise typer.Exit(ReleaseError.exit_code)


def report(
    release: ReleaseArgument,
    *,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in a web browser.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Say where the report of a release is: one self-contained page with claim, quality and plots.

    RELEASE is the folder of a release, or of the run that made it.

    Example: fedembed report fedembed-runs/default-1a2b3c4d --open
    """
    found = opened(release)
    page = found.path / "report.html"
    if json_output:
        emit_json({"release": found.path, "report": page})
    else:
        say(str(page))
    if open_it and not webbrowser.open(page.resolve().as_uri()):
        note("no web browser could be opened; open the file by hand")


def neighbors(
    release: ReleaseArgument,
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", hidden=True)],
    *,
    count: Annotated[int, typer.Option("-k", metavar="N", show_default=False, help="How many neighbours (10).")] = 10,
    table_name: TableOption = None,
    data: DataOption = None,
    json_output: JsonOption = False,
) -> None:
    """Show the keys most similar to a key, with their cosine similarity.

    RELEASE is the folder of a release, or of the run that made it; a KEY is a word, an item or a node.

    Example: fedembed neighbors fedembed-runs/default-1a2b3c4d array thread
    """
    vectors = chosen_table(opened(release), table_name, data)
    for key in keys:
        if key not in vectors.row_of:
            raise UsageError(
                f"{key!r} is not in the table{_nearest_key(key, vectors)}", remedy="The keys are in tables/*.keys.txt."
            )
    if count < 1:
        raise UsageError(f"-k must be at least 1, not {count}")
    found = {key: vectors.neighbors(key, count) for key in keys}
    if json_output:
        emit_json({"neighbors": found})
        return
    for key, near in found.items():
        say(key)
        for other, cosine in near:
            say(f"  {cosine:6.3f}  {other}")


def evaluate(
    release: ReleaseArgument,
    *,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="NAME[:FILE]", help="Quality task and its benchmark. May be repeated."),
    ] = None,
    table_name: TableOption = None,
    data: DataOption = None,
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", show_default=False, help="Seed of baselines and intervals (0).")
    ] = 0,
    json_output: JsonOption = False,
) -> None:
    """Score a release on quality tasks, beside a baseline and with 95 % intervals.

    Without --task: the tasks of the scenario that made the release. The release itself is not changed.

    Example: fedembed evaluate RELEASE --task similarity:wordsim353.tsv
    """
    found = opened(release)
    wanted = tasks or list(found.scenario.get("evaluation", {}).get("tasks", ()))
    if not wanted:
        raise UsageError("the release names no tasks", remedy="Give --task NAME:FILE; see `fedembed list tasks`.")
    vectors = chosen_table(found, table_name, data)
    scores = [score for task in wanted for score in _scored(task, vectors, seed=seed)]
    if json_output:
        emit_json({"release": found.path, "scores": [score.to_json() for score in scores]})
    else:
        for line in score_lines(scores):
            say(line)


def export(
    release: ReleaseArgument,
    *,
    format_name: Annotated[str, typer.Option("--format", metavar="NAME", help="One of `fedembed list formats`.")],
    out: Annotated[Path, typer.Option("--out", metavar="PATH", help="File (or folder) to write.")],
    table_name: TableOption = None,
    data: DataOption = None,
    json_output: JsonOption = False,
) -> None:
    """Write a table of a release in a format that other programs read.

    RELEASE is the folder of a release, or of the run that made it. A file at PATH is replaced
    once the new one is whole.

    The release of an encoder holds no table: --data names images, and their vectors are written.

    Example: fedembed export RELEASE --format word2vec_text --out vectors.txt
    """
    from common import formats

    chosen = formats.load(format_name)
    vectors = chosen_table(opened(release), table_name, data)
    chosen.write(vectors, out)
    if json_output:
        emit_json({"written": out, "format": format_name, "rows": len(vectors), "dimensions": vectors.dimensions})
    else:
        say(f"{out}: {len(vectors):,} rows of {vectors.dimensions} numbers as {format_name}")


def release_folder(path: Path) -> Path:
    """The release folder for ``path``: itself, or ``release`` inside the folder of a run.

    Raises:
        ReleaseError: there is no such folder.
    """
    if not path.is_dir():
        raise ReleaseError(f"there is no folder {path}", remedy="Give the folder that a run named at its end.")
    inner = path / "release"
    return inner if not (path / "manifest.json").is_file() and (inner / "manifest.json").is_file() else path


def opened(path: Path) -> Release:
    """Open a release. Raises ``ReleaseError`` when it is missing, incomplete or altered."""
    from common.release import load_release

    return load_release(release_folder(path))


def main_table_name(release: Release) -> str:
    """Name of the table that a reader means without saying which.

    Raises:
        ReleaseError: the release holds an encoder and no table.
    """
    names = list(release.tables)
    if not names:
        raise ReleaseError(
            "this release holds an encoder and no table",
            remedy="Give images with --data: their vectors are made and used.",
        )
    preferred = release.notes.get("main_table")
    return preferred if isinstance(preferred, str) and preferred in names else names[0]


def chosen_table(release: Release, name: str | None, data: Path | None) -> EmbeddingTable:
    """The table called ``name``, or the main one; with ``data``, the vectors that the encoder makes of it.

    Raises:
        UsageError: no table has this name, or ``data`` is given and there is no encoder.
    """
    if data is not None:
        return embedded(release, data)
    wanted = name if name is not None else main_table_name(release)
    names = list(release.tables)
    if wanted not in names:
        raise UsageError(f"no table {wanted!r}{nearest(wanted, names)}", remedy=f"Tables: {', '.join(names)}.")
    return release.tables[wanted]


def score_lines(scores: list[Score]) -> list[str]:
    """Scores as an aligned table: value, interval, baseline, and whether the interval lies beyond it."""
    if not scores:
        return ["  no quality task was run"]
    verdicts = {True: "better", False: "not better", None: "-"}
    rows = [
        (
            s.task,
            s.metric,
            s.value,
            f"[{shown(s.ci_low)}, {shown(s.ci_high)}]",
            s.baseline_name or "-",
            s.baseline_value,
            verdicts[s.beats_baseline],
            s.n,
            f"{s.coverage:.0%}",
        )
        for s in scores
    ]
    header = ("task", "metric", "value", "95% interval", "baseline", "baseline value", "verdict", "n", "covered")
    return table(header, rows)


def _scored(task: str, vectors: EmbeddingTable, *, seed: int) -> list[Score]:
    from common.discovery import load_member

    name, _, file = task.partition(":")
    member = load_member("common.evaluation.quality", name, "TASK")
    return list(member.score(vectors, Path(file) if file else None, seed=seed))


def _nearest_key(key: str, vectors: EmbeddingTable) -> str:
    alike = [known for known in vectors.keys if known[:1].lower() == key[:1].lower()]
    return nearest(key, alike[:_MOST_SUGGESTIONS])
