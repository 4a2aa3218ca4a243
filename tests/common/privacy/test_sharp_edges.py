"""docs/sharp_edges.md names tests and mutants: every one of them exists."""

from __future__ import annotations

import re
from pathlib import Path

from simulations.mutants import CHECKS, all_mutants


def edges(root: Path) -> str:
    return (root / "docs" / "sharp_edges.md").read_text(encoding="utf-8")


def test_every_test_named_exists(root: Path) -> None:
    text = edges(root)
    named = re.findall(r"`((?:tests/[\w/]+/)?test_\w+\.py)(?:::(test_\w+))?`", text)
    assert len(named) > 15
    for file, function in named:
        path = root / file if "/" in file else root / "tests" / "common" / "privacy" / file
        assert path.exists(), file
        assert not function or f"def {function}(" in path.read_text(encoding="utf-8"), function
    for check in re.findall(r"check `(\w+)`", text):
        assert check in CHECKS


def test_every_mutant_named_exists(root: Path) -> None:
    names = [m.name for m in all_mutants()]
    cells = [row for row in edges(root).splitlines() if "mutant" in row and row.startswith("|")]
    for row in cells:
        listed = re.search(r"mutants? ((?:`[^`]+`(?:, )?)+)", row)
        for shown in re.findall(r"`([^`]+)`", listed.group(1)) if listed else []:
            start = shown.removesuffix(" ...")
            assert any(n.startswith(start) for n in names), shown
