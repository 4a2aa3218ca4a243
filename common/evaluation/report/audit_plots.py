"""Drawings of an audit, each half a page wide: two stand side by side in print, one below the other on a telephone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from common.evaluation.report.audit_record import LeakRecord, Number, QualityRecord, TestLine, ViewRecord
from common.evaluation.report.plots import ACCENT, INK, MUTED, RULE, SECOND, short, svg
from common.evaluation.report.words import risk

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HALF_IN = 3.45
_ROW_IN, _FOOT_IN, _KEY_IN = 0.4, 0.45, 0.24
_ALARM = "#a11d1d"
_COST_IN = 2.5
_BAND, _UNLIMITED = 1.25, 1.5  # in the largest epsilon of a picture: where infinity's band begins, and its middle
_LEAST_FACTOR = 4.0  # axes of noise errors reach at least so far


def trade_off_plot(view: ViewRecord) -> str:
    """Share of canaries found against share wrongly accused: measured, allowed by the claim, and by guessing."""
    lines = [view.trade_off.get(name, []) for name in ("fpr", "measured", "claimed")]
    if not lines[0] or len({len(line) for line in lines}) > 1:
        return ""
    accused, measured, claimed = lines

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.fill_between(accused, claimed, 1, color=_ALARM, alpha=0.12, linewidth=0, label="beyond the claim")
        axes.plot(accused, claimed, "--", color=ACCENT, linewidth=1.6, label="claimed, at most")
        axes.plot(accused, measured, color=SECOND, linewidth=1.8, label="measured")
        axes.plot([0, 1], [0, 1], ":", color=MUTED, linewidth=1.2, label="guessing")
        axes.set(xlabel="share wrongly accused", ylabel="share found", xlim=(0, 1), ylim=(0, 1.01))
        axes.legend(fontsize=8, loc="lower right")

    return svg(f"trade-off {view.view} {view.observer}", 2.9, draw, width_in=HALF_IN)


def leak_plot(sees: str, leaks: Sequence[LeakRecord]) -> str:
    """What attacks that see the same thing reach: by guessing, with protection and without."""
    rows = [leak for leak in leaks if isinstance(leak.value, float)]

    def draw(figure: Figure) -> None:
        axes = _rows(figure, [f"{leak.attack.replace('_', ' ')}: {leak.metric}" for leak in rows])
        for place, leak in enumerate(rows):
            _leak_row(axes, place, leak)
        axes.set_xlabel("success of the attack")
        axes.set_xlim(-0.03 if axes.dataLim.x0 >= 0 else None, 1.03 if axes.dataLim.x1 <= 1 else None)
        _key(figure, axes, columns=3)

    return _of_rows(f"leaks {sees}", len(rows), draw)


def _leak_row(axes: Axes, place: int, leak: LeakRecord) -> None:
    chance, control, value = leak.chance_value, leak.control_value, leak.value
    ends = [x for x in (chance, control, value) if isinstance(x, float)]
    axes.plot([min(ends), max(ends)], [place, place], color=RULE, linewidth=1.2, zorder=1)
    if isinstance(chance, float):
        axes.plot([chance], [place], "|", color=INK, markersize=13, markeredgewidth=1.6, label="guessing")
    if isinstance(control, float):
        axes.plot([control], [place], "D", markersize=6, color="white", markeredgecolor=SECOND, label="unprotected")
    if isinstance(leak.ci_low, float) and isinstance(leak.ci_high, float):
        axes.plot([leak.ci_low, leak.ci_high], [place, place], color=ACCENT, linewidth=2.2, alpha=0.6)
    axes.plot(ends[-1:], [place], "o", color=ACCENT, markersize=6, label="audited")


def cap_plot(views: Sequence[ViewRecord]) -> str:
    """For every design of canaries: the epsilon claimed, the one shown, and the largest that could have been shown."""
    rows = _labelled(views)
    ceilings = [cap(tests) for _, _, tests in rows]
    found = [shown(tests) for _, _, tests in rows]
    finite = [x for x in (*ceilings, *found) if isinstance(x, float)] + [view.claimed_epsilon for _, view, _ in rows]
    edge = 1.08 * max(finite, default=1.0)

    def draw(figure: Figure) -> None:
        axes = _rows(figure, [label for label, _, _ in rows])
        for place, (_, view, _) in enumerate(rows):
            reach, bound = ceilings[place], found[place]
            end = edge if reach == "inf" else reach
            if isinstance(end, float):
                enough = end > view.claimed_epsilon
                axes.barh(place, end, height=0.3, color=ACCENT if enough else _ALARM, alpha=0.22, label="could show")
            if isinstance(bound, float):
                axes.plot([bound], [place], "o", color=SECOND, markersize=6, label="did show", clip_on=False)
            axes.plot(
                [view.claimed_epsilon], [place], "|", color=INK, markersize=15, markeredgewidth=2, label="claimed"
            )
        axes.set_xlim(0, edge)
        axes.set_xlabel("epsilon")
        _key(figure, axes, columns=3)

    return _of_rows("caps", len(rows), draw)


def detectable_plot(views: Sequence[ViewRecord]) -> str:
    """For every design of canaries: by what factor noise had to be too small for this audit to notice."""
    rows = _labelled(views)
    found = [detectable(tests) for _, _, tests in rows]
    edge = max([_LEAST_FACTOR, *(1.1 * x for x in found if isinstance(x, float))])

    def draw(figure: Figure) -> None:
        axes = _rows(figure, [label for label, _, _ in rows])
        for place, factor in enumerate(found):
            if isinstance(factor, float):
                axes.barh(place, edge - factor, left=factor, height=0.3, color=ACCENT, alpha=0.75, label="noticed")
                axes.barh(place, factor - 1, left=1, height=0.3, color=RULE, label="may have passed")
            else:
                axes.barh(place, edge - 1, left=1, height=0.3, color=_ALARM, alpha=0.22, label="nothing is noticed")
        axes.set_xlim(1, edge)
        axes.set_xlabel("noise too small by this factor")
        _key(figure, axes, columns=2)

    return _of_rows("detectable", len(rows), draw)


def quality_plot(scores: Sequence[QualityRecord]) -> str:
    """One figure of quality against the epsilon claimed: runs with 95 % intervals, the baseline as a line.

    A run without protection stands at infinity, in a band of its own at the right.
    """
    rows = [score for score in scores if isinstance(score.value, float)]
    limited = max([score.epsilon for score in rows if isinstance(score.epsilon, float)], default=1.0)
    unlimited = _UNLIMITED * limited

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvspan(_BAND * limited, unlimited * 2 - _BAND * limited, color=RULE, alpha=0.45, linewidth=0)
        for score in rows:
            if isinstance(score.value, float):
                place = score.epsilon if isinstance(score.epsilon, float) else unlimited
                _quality_point(axes, place, score.value, score)
        for value in {score.baseline_value for score in rows}:
            if isinstance(value, float):
                axes.axhline(value, color=MUTED, linestyle="--", linewidth=1.2, label="baseline")
        ticks = [0.0, limited] if any(isinstance(score.epsilon, float) for score in rows) else [0.0]
        axes.set_xticks([*ticks, unlimited], labels=[*(risk(tick) for tick in ticks), "∞"])
        axes.set_xlim(0, unlimited * 2 - _BAND * limited)
        axes.margins(y=0.2)
        better = "higher" if rows[0].higher_is_better else "lower"
        axes.set(xlabel="epsilon claimed", ylabel=f"{short(rows[0].metric, 22)} ({better} is better)")
        _key(figure, axes, columns=3)

    return svg(f"cost {rows[0].task} {rows[0].metric}", _COST_IN, draw, width_in=HALF_IN) if rows else ""


def _quality_point(axes: Axes, place: float, value: float, score: QualityRecord) -> None:
    shape, colour, face = ("D", SECOND, "white") if score.run == "unprotected" else ("o", ACCENT, ACCENT)
    if isinstance(score.ci_low, float) and isinstance(score.ci_high, float):
        axes.plot([place, place], [score.ci_low, score.ci_high], color=colour, linewidth=2, alpha=0.6)
    axes.plot([place], [value], shape, markersize=6, color=face, markeredgecolor=colour, label=score.run)


def distinct(views: Sequence[ViewRecord]) -> list[tuple[str, ViewRecord]]:
    """(whose claim, view): observers who see the same and are promised the same share one drawing."""
    groups: list[tuple[list[str], ViewRecord]] = []
    for view in views:
        same = [names for names, first in groups if first.model_copy(update={"observer": view.observer}) == view]
        if same:
            same[0].append(view.observer)
        else:
            groups.append(([view.observer], view))
    return [(" and ".join(names).replace("_", " "), view) for names, view in groups]


def _labelled(views: Sequence[ViewRecord]) -> list[tuple[str, ViewRecord, list[TestLine]]]:
    """(label, view, tests) of every design of the distinct views; whose claim, only where one view tests several."""
    groups = distinct(views)
    often = Counter(view.view for _, view in groups)
    return [
        (f"{view.view}{f', {who}' if often[view.view] > 1 else ''}: {design}", view, tests)
        for who, view in groups
        for _, design, tests in designs([view])
    ]


def designs(views: Sequence[ViewRecord]) -> list[tuple[ViewRecord, str, list[TestLine]]]:
    """Every design of every view with its tests, in the record's order."""
    return [
        (view, design, [test for test in view.tests if test.design == design])
        for view in views
        for design in dict.fromkeys(test.design for test in view.tests)
    ]


def shown(tests: Sequence[TestLine]) -> Number:
    """The largest lower bound on epsilon."""
    return _most([test.bound for test in tests])


def cap(tests: Sequence[TestLine]) -> Number:
    """The largest bound that guesses could reach, as the verdict judges it; other tests have no limit."""
    guessing = [test.cap for test in tests if test.guesses is not None]
    return _most(guessing or [test.cap for test in tests])


def detectable(tests: Sequence[TestLine]) -> float | None:
    """The smallest error of the noise that some test would have found; ``None`` where none would."""
    return min((t.detectable for t in tests if isinstance(t.detectable, float)), default=None)


def _most(values: Sequence[Number]) -> Number:
    known = [math.inf if value == "inf" else float(value) for value in values if value is not None]
    most = max(known, default=None)
    return "inf" if most == math.inf else most


def _of_rows(name: str, rows: int, draw: Callable[[Figure], None]) -> str:
    if not rows:
        return ""
    return svg(name, _ROW_IN * rows + _FOOT_IN + 2 * _KEY_IN, draw, width_in=HALF_IN)


def _rows(figure: Figure, labels: Sequence[str]) -> Axes:
    """Axes with one row for each label, written above the row, where a narrow drawing has room."""
    axes = figure.subplots()
    for place, label in enumerate(labels):
        axes.annotate(
            short(label, 44), (0, place - 0.24), xycoords=("axes fraction", "data"), va="bottom", size=8, color=INK
        )
    axes.set_yticks([])
    axes.set_ylim(len(labels) - 0.6, -0.75)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    return axes


def _key(figure: Figure, axes: Axes, *, columns: int) -> None:
    """One entry for each kind of mark, above the rows."""
    kinds = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(kinds.values(), kinds.keys(), loc="outside upper left", ncols=columns, fontsize=8, borderaxespad=0.1)
