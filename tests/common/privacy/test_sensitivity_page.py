"""docs/sensitivity.md numbers its equations without a gap and names code and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path


def test_equations_are_numbered_and_names_exist(root: Path) -> None:
    page = (root / "docs" / "sensitivity.md").read_text(encoding="utf-8")
    numbers = [int(n) for n in re.findall(r"^- \((\d+)\)", page, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= 20
    for path in re.findall(r"`((?:common|tests)/[\w/]+(?:\.py|/))`", page):
        assert (root / path).exists(), path
    for path, name in re.findall(r"`(common/[\w/]+\.py)` `(\w+)`", page):
        assert re.search(rf"(?:def|class) {name}\b", (root / path).read_text(encoding="utf-8")), name
    tests = re.findall(r"`((?:tests/[\w/]+/)?test_\w+\.py)::(test_\w+)`", page)
    assert len(tests) > 15
    for file, name in tests:
        path = root / (file if "/" in file else f"tests/common/privacy/{file}")
        assert f"def {name}(" in path.read_text(encoding="utf-8"), name
