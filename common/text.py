"""Words of a text, and the documentation strings of Python source: one definition for clients and coordinator."""

from __future__ import annotations

import re
from collections.abc import Iterator

_WORD = re.compile(r"[^\W\d_]+")

# Everything in which a quote or a hash sign does not open a string, and strings themselves. A triple-quoted string is
# tried before a plain one; the optional prefix keeps r"..." and f"..." apart from documentation.
_LEXEME = re.compile(
    r"#[^\n]*"
    r'|"""(?P<double>[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*)"""'
    r"|'''(?P<single>[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*)'''"
    r'|"[^"\\\n]*(?:\\.[^"\\\n]*)*"'
    r"|'[^'\\\n]*(?:\\.[^'\\\n]*)*'",
    re.DOTALL,
)
_PREFIXES = ("r", "R", "u", "U")


def words(text: str) -> list[str]:
    """Lower-cased runs of letters, in order: ``"np.ones_like(2)"`` gives ``np ones like``."""
    return _WORD.findall(text.lower())


def documentation_strings(source: str) -> Iterator[str]:
    """The triple-quoted strings that open a module, a class or a function, in order.

    Purely lexical (one regular-expression pass, some ten times faster than ``ast``): a string counts when nothing but
    indentation precedes it on its line and the last significant character before it is the colon of a header, or
    when nothing but comments precedes it in the file. Plain-quoted and generated documentation is not found.

    Args:
        source: text of a Python file; malformed text yields what can be recognised and never raises.
    """
    if '"""' not in source and "'''" not in source:
        return
    end = 0
    last = ":"  # the last significant character so far; the start of a file counts as a header
    for match in _LEXEME.finditer(source):
        gap = source[end : match.start()]
        if match.lastgroup is not None and gap[-1:] in _PREFIXES:
            gap = gap[:-1]
        last = (gap.rstrip() or last)[-1]
        on_own_line = gap.rstrip(" \t\f").endswith("\n") or (end == 0 and not gap.strip())
        if match.lastgroup is not None and on_own_line and last == ":":
            yield match.group(match.lastgroup)
        if not match.group().startswith("#"):
            last = '"'
        end = match.end()
