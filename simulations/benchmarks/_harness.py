"""What benchmarks share: rows, the table, the JSON form, the data folder."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from common.errors import DataError, StorageError

DATA_VARIABLE = "FEDEMBED_DATA"


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Attributes:
        measure: what was measured, with its unit.
        value: the figure.
        bar: the condition in words (``">= 3"``); empty for a figure that is only reported.
        holds: whether the bar is met; ``None`` where there is no bar.
    """

    measure: str
    value: float
    bar: str
    holds: bool | None


def at_least(measure: str, value: float, bar: float) -> Row:
    """A row that holds when ``value >= bar``. NaN never holds."""
    return Row(measure, value, f">= {bar:g}", value >= bar)


def at_most(measure: str, value: float, bar: float) -> Row:
    """A row that holds when ``value <= bar``. NaN never holds."""
    return Row(measure, value, f"<= {bar:g}", value <= bar)


def reported(measure: str, value: float) -> Row:
    """A row without a bar."""
    return Row(measure, value, "", None)


def unjudged(rows: Iterable[Row]) -> list[Row]:
    """The same figures without bars: at the tiny size a figure shows that the code runs, and nothing else."""
    return [reported(row.measure, row.value) for row in rows]


def missed(rows: Sequence[Row]) -> bool:
    """Whether some row has a bar that is not met."""
    return any(row.holds is False for row in rows)


def table(rows: Sequence[Row]) -> str:
    """The rows as text: ``measure | value | bar | holds``, columns aligned."""
    cells = [
        ("measure", "value", "bar", "holds"),
        *((r.measure, _figure(r.value), r.bar, _word(r.holds)) for r in rows),
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(4)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    lines.insert(1, "-+-".join("-" * width for width in widths))
    return "\n".join(lines)


def as_json(name: str, rows: Sequence[Row], *, quick: bool, seconds: float) -> dict[str, Any]:
    """The result with the machine and the versions it was measured on; NaN and infinity become ``None``."""
    listed = [asdict(row) | {"value": row.value if math.isfinite(row.value) else None} for row in rows]
    return {
        "benchmark": name,
        "quick": quick,
        "seconds": round(seconds, 3),
        "holds": not missed(rows),
        "rows": listed,
        "machine": {"python": platform.python_version(), "system": platform.system(), "cores": os.cpu_count()},
        "versions": {
            package: found for package in ("torch", "numpy", "flwr", "opacus") if (found := _version(package))
        },
    }


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Write a result.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from None


def data_folder() -> Path:
    """The folder of development data: ``$FEDEMBED_DATA``, or ``shared/data`` beside the checkout.

    Raises:
        DataError: there is none.
    """
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get(DATA_VARIABLE, str(beside)))
    if not folder.is_dir():
        remedy = f"Set {DATA_VARIABLE} to the folder of the benchmark data, or run with --quick."
        raise DataError("no folder of benchmark data", remedy=remedy)
    return folder


def _figure(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _word(holds: bool | None) -> str:
    return "" if holds is None else "yes" if holds else "NO"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
