"""What the adversary of an audit is given beside what the run shows: tables of its own, and answers from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, EvaluationError, UsageError
from common.evaluation.view import Truth
from common.table import IntArray

REFERENCES = 4  # each costs what the audited run costs without its canaries
FEWEST_REFERENCES = 4
FEWEST_PAIRS = 20  # linked, and as many not linked: fewer give a number that looks like one


@dataclass(frozen=True)
class Adversary:
    """What an audit tries the attacks with.

    Attributes:
        references: how many tables the adversary trains itself, with protection and without; even,
            and 4 or more, or 0.
        labels: file of ``key<TAB>label`` lines, an attribute of what a row stands for.
        links: file of ``key<TAB>key<TAB>0|1`` lines, pairs and whether they are linked.

    Raises:
        UsageError: another number of references.
    """

    references: int = REFERENCES
    labels: Path | None = None
    links: Path | None = None

    def __post_init__(self) -> None:
        if self.references != 0 and (self.references < FEWEST_REFERENCES or self.references % 2):
            raise UsageError(
                f"{self.references} references: each candidate is in half of them, and a variance needs two of either "
                "kind",
                remedy="Train 4, 6 or 8, or 0 to leave this attack out.",
            )

    def readable(self) -> None:
        """Read the files, so that one which cannot be read is told before anything is trained.

        Raises:
            ConfigError: a file cannot be read. EvaluationError: a line has another number of fields.
        """
        for path, count in ((self.labels, 2), (self.links, 3)):
            if path is not None:
                _fields(path, count)

    def informed(self, truth: Truth, keys: Sequence[str] | None) -> Truth:
        """``truth`` with the answers of the files.

        Args:
            keys: of the table's rows; ``None`` where there is no table.

        Raises:
            ConfigError: a file cannot be read. EvaluationError: it does not fit the table, or there is none.
        """
        if keys is None:
            if self.labels or self.links:
                raise EvaluationError(
                    "the family releases an encoder and no table, so there are no rows to label or to link",
                    remedy="Leave --labels and --links out.",
                )
            return truth
        row_of = {key: row for row, key in enumerate(keys)}
        if self.labels:
            truth = replace(truth, labels=_labels(row_of, self.labels))
        if self.links:
            pairs, linked = _links(row_of, self.links)
            truth = replace(truth, pairs=pairs, linked=linked)
        return truth


def _labels(row_of: Mapping[str, int], path: Path) -> dict[int, int]:
    numbers: dict[str, int] = {}
    found: dict[int, int] = {}
    for key, label in _fields(path, 2):
        number = numbers.setdefault(label, len(numbers))
        if not label.strip() or found.get(row_of.get(key, -1), number) != number:
            raise EvaluationError(f"{path}: {key!r} has no label, or two")
        if key in row_of:
            found[row_of[key]] = number
    if not found:
        raise EvaluationError(f"{path} labels no key of the table")
    return found


def _links(row_of: Mapping[str, int], path: Path) -> tuple[IntArray, NDArray[np.bool_]]:
    answers: dict[tuple[int, int], bool] = {}
    for left, right, answer in _fields(path, 3):
        if answer not in ("0", "1"):
            raise EvaluationError(f"{path}: the third field must be 0 or 1, not {answer!r}")
        if left in row_of and right in row_of:
            rows = sorted((row_of[left], row_of[right]))
            pair, told = (rows[0], rows[1]), answer == "1"
            if left == right or answers.setdefault(pair, told) != told:
                raise EvaluationError(f"{path}: {left!r} and {right!r} are one key, or linked and not linked")
    linked = np.array(list(answers.values()), dtype=bool)
    if min(int(linked.sum()), int((~linked).sum())) < FEWEST_PAIRS:
        raise EvaluationError(
            f"{path} holds {len(answers)} pairs of keys of the table, {int(linked.sum())} of them linked",
            remedy=f"Give {FEWEST_PAIRS} of either kind or more.",
        )
    return np.array(list(answers), dtype=np.int64), linked


def _fields(path: Path, count: int) -> list[list[str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}", remedy="Give a UTF-8 text file.") from None
    found = []
    for number, line in enumerate(lines, start=1):
        fields = line.split("\t")
        if line.strip() and len(fields) != count:
            raise EvaluationError(f"{path}, line {number}: expected {count} fields separated by tabs")
        if line.strip():
            found.append(fields)
    return found
