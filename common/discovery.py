"""Members of an open set are found by listing their package: one module with one known constant each."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import Any

from common.errors import ConfigError

_KINDS = {"common.evaluation.quality": "tasks"}  # where users have another word than the package's name


def nearest(word: str, known: list[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known word, or an empty string."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def member_names(package: str) -> list[str]:
    """Sorted module names in ``package``; names that begin with an underscore are helpers, not members."""
    path = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))


def load_member(package: str, name: str, constant: str) -> Any:
    """Import ``package.name`` and return its ``constant``.

    Only names that exist in the package are imported, so a name may come from a configuration file.

    Raises:
        ConfigError: no such member, or the module lacks the constant.
    """
    names = member_names(package)
    if name not in names:
        kind = _KINDS.get(package, package.rsplit(".", 1)[-1])
        raise ConfigError(
            f"unknown name {name!r} in {kind}{nearest(name, names)}",
            remedy=f"Known {kind}: {', '.join(names)}.",
        )
    module = importlib.import_module(f"{package}.{name}")
    if not hasattr(module, constant):
        raise ConfigError(f"{package}.{name} defines no {constant}: a stray file is not a member")
    return getattr(module, constant)
