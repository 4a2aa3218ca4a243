"""Plots as inline SVG: no network, no raster, text that the browser sets and a reader can search."""

from __future__ import annotations

import io
import itertools
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from common.evaluation.score import Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE = "#1c2430", "#6b7480", "#d5d9de"
ACCENT, SECOND, THIRD = "#1f4e79", "#b5651d", "#4a7c59"
WIDTH_IN = 7.2
FEWEST_MAPPED = 3  # rows that make a map
LARGEST_BUDGET = 1e12
_LABELS = 60
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceef0",
    "grid.linewidth": 0.8,
    "text.color": INK,
    "text.parse_math": False,  # a key may hold dollar signs
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}


def quality_plot(scores: Sequence[Score]) -> str:
    """Value, 95 % interval and baseline of every score; metrics of different scales get their own panel."""
    panels: dict[str, list[Score]] = {}
    for score in scores:
        if math.isfinite(score.value):
            panels.setdefault(score.metric, []).append(score)
    if not panels:
        return ""

    def draw(figure: Figure) -> None:
        heights = [len(group) + 0.6 for group in panels.values()]
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
        for axes, (metric, group) in zip(grid[:, 0], panels.items(), strict=True):
            _quality_panel(axes, metric, group)
        grid[0, 0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8, borderaxespad=0.1)

    rows = sum(len(group) for group in panels.values())
    return svg("quality", 0.7 + 0.42 * rows + 0.55 * len(panels), draw)


def _quality_panel(axes: Axes, metric: str, group: list[Score]) -> None:
    for row, score in enumerate(group):
        axes.barh(row, score.value, height=0.5, color=ACCENT, alpha=0.85, label="this release" if row == 0 else None)
        if math.isfinite(score.ci_low) and math.isfinite(score.ci_high):
            axes.plot([score.ci_low, score.ci_high], [row, row], color=INK, linewidth=1.4, solid_capstyle="butt")
        if math.isfinite(score.baseline_value):
            label = "baseline" if row == 0 else None
            axes.plot(
                [score.baseline_value],
                [row],
                marker="D",
                linestyle="",
                color=SECOND,
                markersize=6,
                label=label,
                clip_on=False,
            )
    axes.axvline(0, color=RULE, linewidth=1)
    axes.set_yticks(range(len(group)), labels=[short(score.task, 30) for score in group], color=INK)
    axes.set_ylim(len(group) - 0.45, -0.55)
    axes.grid(axis="y", visible=False)
    better = "higher is better" if group[0].higher_is_better else "lower is better"
    axes.set_xlabel(f"{short(metric, 40)} ({better})")


def spend_lines(rounds: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Observer that the mode protects against -> (rounds released, epsilon spent), where a history states them."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for number, entry in enumerate(rounds, start=1):
        spent = entry.get("epsilon")
        for observer, value in spent.items() if isinstance(spent, Mapping) else ():
            if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
                lines.setdefault(str(observer), []).append((number, float(value)))
    return lines


def spend_plot(
    observers: Mapping[str, list[tuple[float, float]]], target: float | None, *, width_in: float = WIDTH_IN
) -> str:
    """Epsilon spent up to each round, one line an observer; ``observers`` as from ``spend_lines``.

    A ``target`` that is no budget (a forged certificate may hold any number) is not drawn.
    """
    if not observers:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        styles = itertools.cycle(zip((ACCENT, SECOND, THIRD), ("-", "--", ":"), strict=True))
        for (points, who), (colour, dash) in zip(_same_lines(observers).items(), styles, strict=False):
            _line(axes, list(points), colour, label=" and ".join(who).replace("_", " "), dash=dash)
        budget = target if target is not None and 0 < target <= LARGEST_BUDGET else 0.0
        if budget:
            axes.axhline(budget, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
            axes.annotate(
                "budget", (0, budget), (2, 2), xycoords=("axes fraction", "data"), textcoords="offset points", size=8
            )
        axes.set(xlabel="rounds released", ylabel="epsilon spent")
        axes.set_ylim(0, 1.12 * max(budget, axes.get_ylim()[1] / 1.05))
        axes.legend(fontsize=8, loc="lower right")

    return svg("spend", 2.5, draw, width_in=width_in)


def _same_lines(lines: Mapping[str, list[tuple[float, float]]]) -> dict[tuple[tuple[float, float], ...], list[str]]:
    """Observers whose lines coincide share one line, for one would hide the other."""
    groups: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for name, points in lines.items():
        groups.setdefault(tuple(points), []).append(name)
    return groups


def history_plot(rounds: Sequence[Mapping[str, Any]], fields: Mapping[str, str], *, label: str) -> str:
    """Lines over rounds for the ``fields`` (name -> words) that the history holds; an empty string when it has none."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for number, entry in enumerate(rounds, start=1):
        for name in fields:
            value = entry.get(name)
            if isinstance(value, (int, float)) and math.isfinite(value):
                lines.setdefault(name, []).append((number, float(value)))
    if not lines:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for (name, points), colour in zip(lines.items(), itertools.cycle((ACCENT, SECOND, THIRD)), strict=False):
            _line(axes, points, colour, label=fields[name])
        axes.set(xlabel="round", ylabel=label)
        if all(y >= 0 for points in lines.values() for _, y in points):
            axes.set_ylim(0, None)
        if len(lines) > 1:
            axes.legend(fontsize=8)

    return svg(label, 2.1, draw)


def _line(axes: Axes, points: list[tuple[float, float]], colour: str, *, label: str, dash: str = "-") -> None:
    from matplotlib.ticker import MaxNLocator

    x, y = zip(*points, strict=True)
    axes.plot(x, y, dash, color=colour, linewidth=1.8, marker="o" if len(x) <= 30 else "", markersize=4, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def map_plot(points: NDArray[np.float64], keys: Sequence[str]) -> str:
    """Rows of a table on a plane, with as many labels as fit without overlap (at most 60).

    Args:
        points: shape (R, 2), as from ``principal_plane``.
        keys: of these rows, and perhaps of more.
    """
    if len(points) < FEWEST_MAPPED:
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.scatter(points[:, 0], points[:, 1], s=7, color=ACCENT, alpha=0.35, linewidths=0)
        axes.set(xticks=[], yticks=[])
        axes.margins(0.04)
        axes.spines[["left", "bottom"]].set_visible(False)
        figure.draw_without_rendering()  # fixes the layout, so that labels can be measured against it
        _place_labels(axes, points, keys)

    return svg("map", 5.2, draw)


def _place_labels(axes: Axes, points: Any, keys: Sequence[str]) -> None:
    """Label rows in order of frequency; a label that would cover an earlier one is left out."""
    box, size = axes.get_window_extent(), 8 * axes.figure.dpi / 72
    placed: list[tuple[float, float, float, float]] = []
    for (x, y), key in zip(points, keys, strict=False):
        word = short(key, 18)
        width = 0.62 * size * sum(2 if ord(c) > 0x2E7F else 1 for c in word)
        left, middle = axes.transData.transform((x, y)) + np.array([size / 2, 0.0])
        area = (left, middle - 0.6 * size, left + width, middle + 0.6 * size)
        free = all(area[2] < p[0] or p[2] < area[0] or area[3] < p[1] or p[3] < area[1] for p in placed)
        if not word.strip() or not free or area[2] > box.x1:
            continue
        axes.annotate(word, (x, y), (4, 0), textcoords="offset points", va="center", size=8, color=INK)
        placed.append(area)
        if len(placed) == _LABELS:
            return


def short(text: str, limit: int) -> str:
    """The text without control characters, cut to ``limit`` characters."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return printable if len(printable) <= limit else printable[: limit - 1] + "…"


def svg(name: str, height_in: float, draw: Callable[[Figure], None], *, width_in: float = WIDTH_IN) -> str:
    """Draw on a figure of its own, without pyplot and its global state, and return the bare <svg> element.

    Args:
        name: differs between the drawings of a page; the names of a drawing's parts follow from it.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    buffer = io.BytesIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # The browser sets the text, so a glyph that matplotlib's own font lacks does no harm.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        draw(figure)
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    text = buffer.getvalue().decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'role="img"', text, count=1)
