"""Attacks: one module each, with the constant ``ATTACK``, found by listing this package.

An attack scores candidates and says how often it is right. What that proves about a claim is for
``common.evaluation.audit``; what stands in an attack's way is for docs/limitations.md.
"""

from __future__ import annotations

from typing import Any, Protocol

from common.discovery import load_member, member_names
from common.errors import EvaluationError
from common.evaluation.leak import Leak
from common.evaluation.view import Truth, View

CONSTANT = "ATTACK"
SIGHTS = ("updates", "sums", "table")


class Attack(Protocol):
    """What every attack has. ``name`` equals its module's name.

    Attributes:
        sees: what the adversary must have seen, one of ``SIGHTS``: single clients' updates, sums over clients, or the
            released table alone.
        promised: whether the guarantee speaks about what the attack wants to know. Attributes and the content of
            vectors are what differential privacy does not promise to hide.
    """

    name: str
    sees: str
    promised: bool

    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        """Guess from ``view`` alone, then compare with ``truth``.

        Raises:
            EvaluationError: the view lacks what the attack needs, or the truth holds nothing to compare with.
        """


def names() -> list[str]:
    """Names of all attacks."""
    return member_names(__name__)


def load(name: str) -> Any:
    """The attack called ``name``. Raises ``ConfigError`` with the nearest known name."""
    return load_member(__name__, name, CONSTANT)


def required(value: Any, attack: str, what: str) -> Any:
    """``value``, which an attack cannot do without.

    Raises:
        EvaluationError: it is ``None`` or empty; an attack never runs against what it cannot see.
    """
    if value is None or len(value) == 0:
        raise EvaluationError(f"the attack {attack} needs {what}, and there is none in view")
    return value
