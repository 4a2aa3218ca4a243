"""``fedembed audit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simulations.commands.output import emit_json, note, say, table
from simulations.commands.train import JsonOption, SetOption

if TYPE_CHECKING:
    from common.evaluation.report.audit_record import AuditRecord, ViewRecord
    from simulations.audit.adversary import Adversary

RECORD, PAGE = "audit.json", "audit.html"
NOTICED = (
    "error noticed from: so many times too small the noise had to be for the audit to notice, by its least sharp design"
)

TargetArgument = Annotated[str | None, typer.Argument(metavar="[SCENARIO|RELEASE]", hidden=True)]


# exception: one parameter for each option of the command line.
def audit(
    target: TargetArgument = None,
    *,
    settings: SetOption = None,
    canaries: Annotated[
        int | None, typer.Option("--canaries", metavar="N", show_default=False, help="How many of each design (1000).")
    ] = None,
    references: Annotated[
        int | None,
        typer.Option("--references", metavar="N", show_default=False, help="Tables that attackers train; 0: none (4)."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", min=0, help="Of who is planted; by default drawn secretly.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for audit.json and the page.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="FILE", help="Lines of key, tab, attribute: can it be inferred?")
    ] = None,
    links: Annotated[
        Path | None, typer.Option("--links", metavar="FILE", help="Lines of key, tab, key, tab, 0 or 1: linked?")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Attack what was claimed: a verdict with everything it rests on, as JSON and as a page.

    SCENARIO is a TOML file or a name from `fedembed list scenarios`; without it, the embedded default. The run is made
    again with canaries and judged from two views, the sums of all rounds and the final table; then every attack is
    tried on it and on an unprotected run. RELEASE is the folder of a release or run: its accounts are checked, and its
    tables attacked.

    CONSISTENT: nothing found that this audit could have seen. VIOLATION FOUND: exit code 16. INCONCLUSIVE: the audit
    could not have seen a violation.

    Example: fedembed audit my_scenario.toml --out audits/first
    """
    from common.errors import ConformanceError, UsageError
    from simulations.audit.adversary import REFERENCES, Adversary

    adversary = Adversary(REFERENCES if references is None else references, labels, links)
    if target is not None and Path(target).is_dir():
        if settings or canaries is not None or references is not None:
            raise UsageError(
                "--set, --canaries and --references belong to the audit of a scenario", remedy="Leave them out."
            )
        record, folder = _of_release(Path(target), out, adversary=adversary, seed=seed or 0)
    else:
        folder = out if out is not None else _folder_for(target, settings)
        options = {"canaries": 1000 if canaries is None else canaries, "seed": seed, "adversary": adversary}
        record = _of_scenario(target, settings, options, json_output=json_output)
    _write(record, folder)
    _tell(record, folder, json_output=json_output)
    if record.outcome == "VIOLATION FOUND":
        note("fedembed: the claim does not hold: do not release, and do not rely on what was released")
        raise typer.Exit(ConformanceError.exit_code)


def _tell(record: AuditRecord, folder: Path, *, json_output: bool) -> None:
    if json_output:
        emit_json({"audit": folder / RECORD, "page": folder / PAGE, "record": record.model_dump(mode="json")})
        return
    for line in lines(record):
        say(line)
    say(f"page: {folder / PAGE}")


def _of_release(path: Path, out: Path | None, *, adversary: Adversary, seed: int) -> tuple[AuditRecord, Path]:
    from simulations.audit.release import audit_release
    from simulations.commands.release import release_folder

    folder = release_folder(path)
    record = audit_release(folder, adversary=adversary, seed=seed)
    return record, out if out is not None else folder.parent / f"{folder.name}-audit"


def _folder_for(target: str | None, settings: list[str] | None) -> Path:
    from simulations import runs

    return runs.audit_out(target, runs.find_scenario(target, settings or []))


def _of_scenario(
    target: str | None, settings: list[str] | None, options: dict[str, Any], *, json_output: bool
) -> AuditRecord:
    from simulations import runs
    from simulations.progress import reporter

    telling = reporter(json_output=json_output)
    try:
        return runs.audit(target, overrides=settings or [], reporter=telling, **options)
    finally:
        telling.done()


def _write(record: AuditRecord, folder: Path) -> None:
    from common.evaluation.report.audit_page import write_audit_page
    from common.files import atomic_files, disk_errors

    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    page = write_audit_page(record)
    with atomic_files(folder / RECORD, folder / PAGE) as (data, html):
        data.write_text(record.model_dump_json(indent=1), encoding="utf-8")
        html.write_text(page, encoding="utf-8")


def lines(record: AuditRecord) -> list[str]:
    """What a reader sees first: verdict, views, attacks, what failed."""
    found = [f"{record.outcome}: {record.reason}", "", f"claim: {record.claim.sentence}"]
    if record.views:
        header = ("view", "claimed against", "epsilon", "outcome", "lower bound", "cap", "error noticed from")
        found += ["", *table(header, [_view_row(view) for view in record.views]), f"  {NOTICED}"]
    if record.leaks:
        columns = ("attack", "sees", "metric", "value", "95% interval", "chance", "unprotected", "promised")
        rows = [
            (
                a.attack,
                a.sees,
                a.metric,
                a.value,
                _interval(a.ci_low, a.ci_high),
                a.chance_value,
                a.control_value,
                a.promised,
            )
            for a in record.leaks
        ]
        found += ["", *table(columns, rows)]
    found += [f"  not run: {n.attack}: {n.reason}" for n in record.not_run]
    broken = [f for f in record.conformance if not f.holds]
    found += ["", f"conformance: {len(record.conformance)} tests, {len(broken) or 'no'} violations"]
    return [*found, *(f"  {f.test} {f.subject}: {f.statistic}" for f in broken)]


def _view_row(view: ViewRecord) -> tuple[object, ...]:
    one_run = [test for test in view.tests if test.guesses is not None]
    best = max((t.bound for t in one_run if isinstance(t.bound, float)), default=None)
    cap = max((t.cap for t in one_run if isinstance(t.cap, float)), default=None)
    noticed = f"{view.noticed:g} times" if isinstance(view.noticed, float) else "none noticed"
    return view.view, view.observer, view.claimed_epsilon, view.outcome, best, cap, noticed


def _interval(low: object, high: object) -> str:
    return f"[{low:.3f}, {high:.3f}]" if isinstance(low, float) and isinstance(high, float) else "-"
