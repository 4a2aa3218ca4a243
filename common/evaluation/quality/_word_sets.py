"""Reading the word sets of an association test: two sets of targets and two of attributes, from TOML or JSON."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import EvaluationError

MAX_BYTES = 1 << 20
LEAST_WORDS = 2
_REMEDY = "docs/quality-tasks.md shows such a file."


@dataclass(frozen=True)
class WordSets:
    """One association test.

    Attributes:
        name: what the file calls the test; empty for the only one of a file.
        targets: names of the two target sets, in the file's order.
        attributes: names of the two attribute sets, in the file's order.
        words: the four sets: first and second targets, first and second attributes.
    """

    name: str
    targets: tuple[str, str]
    attributes: tuple[str, str]
    words: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def read_word_sets(path: Path | None) -> list[WordSets]:
    """The tests of a file: ``targets`` and ``attributes`` at its top, or in one table for each test.

    Raises:
        EvaluationError: no file, unreadable, neither TOML nor JSON, or not made of two sets and two sets of words.
    """
    if path is None:
        raise EvaluationError("bias needs word sets", remedy="Name a TOML or JSON file: --task bias:FILE.")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise EvaluationError(f"{path.name}: more than {MAX_BYTES:,} bytes", remedy=_REMEDY)
        text = path.read_text(encoding="utf-8-sig")
        data = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"cannot read {path.name}: {error}", remedy="Give a UTF-8 text file.") from None
    except (json.JSONDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise EvaluationError(f"{path.name} is no {path.suffix or 'TOML'} file: {error}", remedy=_REMEDY) from None
    if not isinstance(data, Mapping) or not data:
        raise EvaluationError(f"{path.name} holds no test", remedy=_REMEDY)
    if "targets" in data or "attributes" in data:
        return [_test(path.name, "", data)]
    return [_test(path.name, name, one) for name, one in data.items()]


def _test(file: str, name: str, data: Any) -> WordSets:
    place = f"{file}, {name}" if name else file
    if not isinstance(data, Mapping) or set(data) != {"targets", "attributes"}:
        raise EvaluationError(f"{place}: a test has exactly targets and attributes", remedy=_REMEDY)
    first, second, *_ = names = [*_pair(place, "targets", data), *_pair(place, "attributes", data)]
    sets = [
        _words(place, key, data[part][key])
        for part, key in zip(("targets",) * 2 + ("attributes",) * 2, names, strict=True)
    ]
    if set(sets[0]) & set(sets[1]) or set(sets[2]) & set(sets[3]):
        raise EvaluationError(f"{place}: a word stands on both sides", remedy="Leave it out of one or of both.")
    return WordSets(name, (first, second), (names[2], names[3]), (sets[0], sets[1], sets[2], sets[3]))


def _pair(place: str, part: str, data: Mapping[str, Any]) -> list[str]:
    if not isinstance(data[part], Mapping) or len(data[part]) != 2:
        raise EvaluationError(f"{place}: {part} are two named lists of words", remedy=_REMEDY)
    return list(data[part])


def _words(place: str, name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
        raise EvaluationError(f"{place}, {name}: a list of words is needed", remedy=_REMEDY)
    if len(set(value)) != len(value) or len(value) < LEAST_WORDS:
        raise EvaluationError(f"{place}, {name}: {LEAST_WORDS} or more different words are needed", remedy=_REMEDY)
    return tuple(value)
