"""Lines of fields between tabs: one reader for the tasks with labelled data, and one refusal for each fault."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from common.errors import EvaluationError
from common.evaluation.quality._words import stem

MAX_LINE = 100_000  # characters: a line may hold two passages of text, and no more


def records(path: Path | None, task: str, form: str, *, most: int) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of every line that is not blank, from a UTF-8 file, plain or ``.gz``.

    A field is taken as it stands, blanks included: keys are compared exactly.

    Args:
        form: what a line looks like, for the refusal.
        most: most fields a line may have; the fewest are two.

    Raises:
        EvaluationError: no file given, unreadable, not text, or a line (named by number) that is too long, has too
            few or too many fields, or an empty one.
    """
    if path is None:
        raise EvaluationError(f"the task {task} needs a file", remedy=f"Name it: --task {task}:FILE, lines of {form}.")
    try:
        packed = path.suffix == ".gz"
        with gzip.open(path, "rt", encoding="utf-8-sig") if packed else path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if len(line) > MAX_LINE:
                    refuse(path, number, f"more than {MAX_LINE} characters")
                if not line.strip():
                    continue
                fields = line.rstrip("\n").split("\t")
                if not 2 <= len(fields) <= most or not all(field.strip() for field in fields):
                    refuse(path, number, f"expected {form}")
                yield number, fields
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise EvaluationError(f"cannot read {path}: {error}", remedy="Give a UTF-8 text file, plain or .gz.") from None


def refuse(path: Path | None, number: int, fault: str) -> NoReturn:
    """Raise an ``EvaluationError`` that names the line."""
    raise EvaluationError(f"{path}, line {number}: {fault}", remedy="docs/quality-tasks.md shows the format.")


def finite_number(text: str) -> float | None:
    """The number that ``text`` spells; ``None`` where it spells none, or an infinite one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def task_label(task: str, path: Path | None) -> str:
    """What a score calls the benchmark: ``task:file``."""
    return task if path is None else f"{task}:{stem(path)}"
