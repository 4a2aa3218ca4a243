"""How large an error of the noise an audit would have noticed: sentence, JSON, page and command say one figure."""

from __future__ import annotations

import functools
import math
import re
from typing import Any

import numpy as np
import pytest

from common.evaluation.audit import CanaryScores, bounds, power, verdict
from common.evaluation.audit.verdict import audited
from common.evaluation.report import audit_page, plots
from common.evaluation.report.audit_record import AuditRecord, ViewRecord
from simulations.audit.record import _view
from simulations.audit.scenario import ViewVerdict, explained
from simulations.commands import audit as command
from tests.common.report._audits import audit as made_up
from tests.common.report._audits import first_part

CLAIM, DELTA = 3.0, 1e-5
PEOPLE = (("sums", "coordinator"), ("sums", "other_clients"), ("table", "public"))


def canaries(design: str, count: int, factor: float, *, supplementary: bool = False) -> CanaryScores:
    mu = factor * bounds.mu_of_epsilon(CLAIM, DELTA)
    scores, included = power.gaussian_problem(count, mu, np.random.default_rng(count))
    return CanaryScores(scores, included, design, "any", claimed_stddev=1.0, supplementary=supplementary)


def found(factor: float, *, weak: int = 300) -> ViewVerdict:
    """One view with a sharp design, a less sharp one, and one without power that only adds alarms."""
    scores = (
        canaries("dedicated", 1200, factor),
        canaries("split", weak, factor),
        canaries("support", 120, 0.0, supplementary=True),
    )
    judged = audited(scores, claimed_epsilon=CLAIM, delta=DELTA)
    return ViewVerdict("sums", "coordinator", CLAIM, DELTA, scores, judged)


@functools.cache
def view(factor: float, *, weak: int = 300) -> ViewRecord:
    return _view(found(factor, weak=weak))


def record(*views: ViewRecord) -> AuditRecord:
    """An audit in which everybody sees the first view, or each a view of their own."""
    seen = views if len(views) > 1 else views * len(PEOPLE)
    named = [one.model_copy(update={"view": v, "observer": o}) for one, (v, o) in zip(seen, PEOPLE, strict=False)]
    return made_up(reason=named[0].reason, outcome=named[0].outcome).model_copy(update={"views": tuple(named)})


def by_hand(one: ViewRecord) -> float | None:
    """The slow oracle: from the tests of the record, design by design."""
    groups: dict[str, list[float]] = {}
    for test in one.tests:
        if not test.supplementary:
            groups.setdefault(test.design, [])
            if isinstance(test.detectable, float):
                groups[test.design].append(test.detectable)
    if not groups or not all(groups.values()):
        return None
    return math.ceil(round(100 * max(min(factors) for factors in groups.values()), 9)) / 100


def said(whole: AuditRecord, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """For every view: what the tests amount to, and what sentence, JSON, command and page say of it."""
    monkeypatch.setattr(plots, "svg", lambda *_, **__: "")
    monkeypatch.setattr(audit_page.audit_plots, "svg", lambda *_, **__: "")
    told = AuditRecord.model_validate_json(whole.model_dump_json())
    rows = [row for row in command.lines(told) if re.match(r"  (sums|table|updates) ", row)]
    cells = re.findall(r"CONSISTENT|VIOLATION FOUND|INCONCLUSIVE|[\d.]+ ×|none noticed", table_of(told))
    shown = [cell for cell in cells if "×" in cell or cell == "none noticed"]
    result = []
    for one, row, cell in zip(told.views, rows[: len(told.views)], shown, strict=True):
        sentence = re.search(r"noise ([\d.]+) times too small would have been noticed", one.reason)
        number = re.search(r"([\d.]+) times$", row)
        assert number or row.endswith("none noticed"), row
        result.append(
            {
                "tests": by_hand(one),
                "json": one.noticed,
                "command": float(number[1]) if number else None,
                "page": None if cell == "none noticed" else float(cell.split()[0]),
                **({"sentence": float(sentence[1])} if sentence else {}),
            }
        )
    return result


def table_of(told: AuditRecord) -> str:
    return first_part(audit_page.write_audit_page(told)).split("Error noticed from")[1].split("More shown")[0]


def test_sentence_json_command_and_page_say_one_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = record(view(1.0))
    assert whole.outcome == "CONSISTENT"
    for figures in said(whole, monkeypatch):
        assert len(set(figures.values())) == 1 and "sentence" in figures, figures
    sharpest = min(t.detectable for t in whole.views[0].tests if isinstance(t.detectable, float))
    assert figures["json"] > sharpest  # what some test noticed says nothing of the designs that miss it


@pytest.mark.parametrize(("factor", "weak"), [(3.0, 300), (1.0, 100)])
def test_a_violation_and_a_silence_that_says_little_are_told_alike(
    factor: float, weak: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = view(factor, weak=weak)
    assert one.outcome == ("VIOLATION FOUND" if factor > 1 else "INCONCLUSIVE")
    assert (one.noticed is None) == (factor == 1)
    for figures in said(record(one, view(1.0)), monkeypatch):
        assert len(set(figures.values())) == 1, figures


def test_the_sharpest_design_does_not_speak_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken version, the smallest of all tests, disagrees wherever it stands."""

    def sharpest(tests: Any) -> float:
        return round(min(t.smallest_factor for t in tests if t.smallest_factor is not None), 2)

    monkeypatch.setattr(verdict, "_of_least_sharp", sharpest)
    broken = said(record(_view(found(1.0))), monkeypatch)
    assert all(figures["tests"] > figures["sentence"] == figures["json"] for figures in broken)
    monkeypatch.undo()

    def flattering(one: ViewRecord) -> tuple[object, ...]:
        smallest = min(t.detectable for t in one.tests if isinstance(t.detectable, float))
        return one.view, one.observer, one.claimed_epsilon, one.outcome, 0.0, 1.0, f"{smallest:g} times"

    monkeypatch.setattr(command, "_view_row", flattering)
    assert all(f["command"] < f["sentence"] == f["page"] for f in said(record(view(1.0)), monkeypatch))


def test_a_design_without_a_trace_takes_the_figure_away() -> None:
    class Plan:
        rows, test_mode = "all", False

    for factor, outcome in ((1.0, "INCONCLUSIVE"), (3.0, "VIOLATION FOUND")):
        judged = found(factor).verdict
        assert judged.noticed is not None
        silenced = explained(judged, Plan(), ["alternating"])  # type: ignore[arg-type]
        assert silenced.noticed is None and silenced.outcome == outcome


@pytest.mark.parametrize(("factor", "shown"), [(1.41, 1.41), (1.4101, 1.42), (2.0, 2.0), (2.994, 3.0)])
def test_the_figure_is_rounded_up(factor: float, shown: float) -> None:
    from simulations.auditor_checks import _silent

    assert verdict.noticed([_silent(9.0, factor)], 4.0) == shown
    assert f"noise {shown:.3g} times" in verdict.judged([_silent(9.0, factor)], 4.0, DELTA)[1]
    assert verdict.noticed([_silent(9.0, None)], 4.0) is None and verdict.noticed([_silent(3.0, factor)], 4.0) is None
