"""Corpora that need no file: one module each, with the constant ``CORPUS``, found by listing this package.

``installed-docs`` is the embedded default, ``python-stdlib`` the public text that gives its vocabulary, ``planted`` a
small generated corpus with known topics. Names are module names with hyphens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, cast

from common.discovery import load_member, member_names, nearest
from common.errors import ConfigError
from common.units import Record

CONSTANT = "CORPUS"


class Corpus(Protocol):
    """What every member offers; the answers are the same on every call.

    Attributes:
        unit: what a record's unit is, as a reader names it: the only one besides the client that can be protected.
    """

    unit: str

    def records(self) -> Iterator[Record]:
        """All records, client after client, in a fixed order."""

    def vocabulary(self) -> Mapping[str, float]:
        """Public words and their counts, most frequent first."""


def names() -> list[str]:
    """Names of all corpora."""
    return [name.replace("_", "-") for name in member_names(__name__)]


def load(name: str) -> Iterator[Record]:
    """The records of corpus ``name``. Raises ``ConfigError`` with the nearest known name."""
    return _member(name).records()


def vocabulary(name: str) -> Mapping[str, float]:
    """The public words of corpus ``name`` with their counts. Raises ``ConfigError`` for an unknown name."""
    return _member(name).vocabulary()


def unit(name: str) -> str:
    """What the units of corpus ``name`` are. Raises ``ConfigError`` for an unknown name."""
    return _member(name).unit


def _member(name: str) -> Corpus:
    if name not in names():
        raise ConfigError(f"no corpus {name!r}{nearest(name, names())}", remedy=f"Corpora: {', '.join(names())}.")
    return cast(Corpus, load_member(__name__, name.replace("-", "_"), CONSTANT))
