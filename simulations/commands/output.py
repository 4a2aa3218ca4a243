"""Where words go: results on standard output, everything else on standard error, one JSON object with ``--json``."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def say(text: str = "") -> None:
    """Print one line of a result for a reader (standard output)."""
    print(text)


def note(text: str) -> None:
    """Print something beside the result (standard error)."""
    print(text, file=sys.stderr)


def emit_json(result: Mapping[str, Any]) -> None:
    """Print one JSON object on standard output: the whole answer of a command under ``--json``."""
    print(json.dumps(plain(result), indent=2, sort_keys=False, ensure_ascii=False, allow_nan=False))


def plain(value: Any) -> Any:
    """JSON's own types for mappings, sequences, paths, dataclasses and numpy scalars.

    An infinite number becomes the string ``"inf"`` and NaN becomes ``null``: JSON has neither.
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if hasattr(value, "tolist"):  # numpy arrays and scalars, without importing numpy
        return plain(value.tolist())
    if isinstance(value, float):
        return _plain_float(value)
    return str(value) if isinstance(value, Path) else value


def _plain_float(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, indent: str = "  ") -> list[str]:
    """Lines of an aligned text table; columns of numbers stand to the right."""
    cells = [[shown(c) for c in row] for row in rows]
    widths = [max([len(h), *(len(row[i]) for row in cells)]) for i, h in enumerate(header)]
    numeric = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(header))]

    def line(parts: Sequence[str]) -> str:
        placed = [p.rjust(w) if n else p.ljust(w) for p, w, n in zip(parts, widths, numeric, strict=True)]
        return (indent + "  ".join(placed)).rstrip()

    return [line(list(header)), *(line(row) for row in cells)]


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def shown(value: object) -> str:
    """A value as a reader wants it: grouped integers, four significant digits, words for yes, no and absent."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _shown_float(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(v) for v in value) or "-"
    return str(value)


def _shown_float(value: float) -> str:
    if math.isinf(value):
        return "unbounded" if value > 0 else "-unbounded"
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.1f}"


def epsilon_shown(value: float) -> str:
    """An epsilon to three decimals, rounded up: what is shown must never be less than what is spent."""
    return "unbounded" if math.isinf(value) else f"{math.ceil(value * 1000) / 1000:.3f}"


def bytes_shown(count: float) -> str:
    """A byte count in the largest unit that keeps it above one."""
    if count < 1000:
        return f"{count:,.0f} B"
    power = min(int(math.log10(count) / 3), 4)
    return f"{count / 1000**power:,.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"
