"""The list of exit codes, read off the error tree so that it cannot differ from what happens."""

from __future__ import annotations

import re
from collections.abc import Iterator

from common import errors

INTERRUPTED = 130
BROKEN_PIPE = 141


def error_classes() -> list[type[errors.FedembedError]]:
    """Every class of the error tree, the root first, by exit code."""
    return sorted(_descendants(errors.FedembedError), key=lambda kind: kind.exit_code)


def _descendants(kind: type[errors.FedembedError]) -> Iterator[type[errors.FedembedError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _descendants(child)


def meanings() -> dict[str, str]:
    """Class name -> what it means, from the tree drawn at the top of ``common.errors``."""
    return dict(re.findall(r"(\w+Error) \(\d+\) +(\S.*)", errors.__doc__ or ""))


def exit_codes() -> dict[int, str]:
    """What each exit code says, in ascending order."""
    known = meanings()
    told: dict[int, list[str]] = {0: ["done"], 1: ["a fault in fedembed itself, or `doctor` found something missing"]}
    for kind in error_classes():
        if kind is not errors.FedembedError:
            told.setdefault(kind.exit_code, []).append(known.get(kind.__name__, kind.__name__))
    told[INTERRUPTED] = ["interrupted from the keyboard"]
    return {code: "; or ".join(texts) for code, texts in told.items()}
