"""Documentation read from installed source files; the standard library's is text that every party already has."""

from __future__ import annotations

import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from common.text import documentation_strings, words

SKIPPED_FOLDERS = frozenset({"test", "tests", "testing", "_tests", "idle_test", "__pycache__", "site-packages"})
_MAX_FILE_BYTES = 4_000_000


def read_documentation(path: Path) -> list[str]:
    """The documentation strings of one Python file; a missing, unreadable or oversized file has none."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            return []
        source = path.read_bytes().decode("utf-8", errors="replace")
    except OSError:
        return []
    return list(documentation_strings(source.replace("\r\n", "\n")))


def stdlib_documentation() -> Iterator[tuple[str, str]]:
    """(module file, text) of the Python standard library, in sorted order: docstrings and the help topics."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        inner = path.relative_to(root)
        if SKIPPED_FOLDERS.isdisjoint(inner.parts) and inner.parts[0] != "pydoc_data":
            for text in read_documentation(path):
                yield inner.as_posix(), text
    from pydoc_data.topics import topics  # 0.7 MB of text that only this function needs

    for name in sorted(topics):
        yield f"pydoc_data/topics.py#{name}", topics[name]


def stdlib_word_counts() -> dict[str, float]:
    """How often each word occurs in ``stdlib_documentation``: most frequent first, ties in alphabetical order."""
    counts: Counter[str] = Counter()
    for _, text in stdlib_documentation():
        counts.update(words(text))
    return {word: float(n) for word, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}
