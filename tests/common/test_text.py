"""Documentation strings found by one regular expression agree with Python's own parser."""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections import Counter
from pathlib import Path
from pydoc_data import topics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import public_text
from common.text import documentation_strings, words

SOURCE = '''#!/usr/bin/env python
# "a quoted comment" and a stray '
"""Module text with a "quote" and a # sign."""
x = """not documentation"""
y = ("""nor this""",
     """nor this""")
def f(a="\\"", *, b={"k": ':'}):  # a comment between
    # another one
    r"""Raw \\d text
    in two lines: fine."""
    """a second string"""
    return f"""{a}"""

class C(Base[int]):

    \'\'\'Class text, it's here.\'\'\'

    async def g(
        self,
    ) -> dict[str, int]:
        """One\\""" escaped."""
        url = "http://no#comment"; """not this"""

    def bytes_only(self):
        b"""bytes are not documentation"""
    def plain(self):
        "plain quotes are not looked for"
'''


def parsed(source: str) -> list[str]:
    """The slow oracle: every triple-quoted docstring of the syntax tree."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [n for n in ast.walk(tree) if isinstance(n, kinds) and ast.get_docstring(n, clean=False) is not None]
    written = [ast.get_source_segment(source, node.body[0]).lstrip("rRuU") for node in nodes]
    return [text[3:-3] for text in written if text.startswith(('"""', "'''"))]


def test_every_documentation_string_of_a_difficult_file() -> None:
    found = [" ".join(words(text)) for text in documentation_strings(SOURCE)]
    assert found == [
        "module text with a quote and a sign",
        "raw d text in two lines fine",
        "class text it s here",
        "one escaped",
    ]


def test_agrees_with_the_parser_on_the_standard_library() -> None:
    root = Path(sysconfig.get_path("stdlib"))
    agreed = 0
    for name in ("argparse.py", "typing.py", "email/message.py", "collections/__init__.py", "socket.py"):
        source = (root / name).read_text(encoding="utf-8")
        found = Counter(documentation_strings(source))
        assert found == Counter(parsed(source))
        agreed += found.total()
    assert agreed > 100


@settings(max_examples=50, deadline=None)
@given(st.text(alphabet="\"'#:\\ \nrdef()x", max_size=80))
def test_malformed_source_never_raises(source: str) -> None:
    assert all(isinstance(text, str) for text in documentation_strings(source))


def test_words_are_lower_case_letters() -> None:
    assert words("np.ones_like(2) Größe, don't") == ["np", "ones", "like", "größe", "don", "t"]


def test_unreadable_files_have_no_documentation(tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes(b'"""caf\xe9 text"""\r\n')
    assert public_text.read_documentation(tmp_path / "latin.py") == ["caf\ufffd text"]
    assert public_text.read_documentation(tmp_path / "absent.py") == []
    assert public_text.read_documentation(tmp_path) == []


@pytest.mark.parametrize("limit", [10, 1000])
def test_oversized_files_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    (tmp_path / "a.py").write_text('"""some text of more than ten bytes"""')
    monkeypatch.setattr(public_text, "_MAX_FILE_BYTES", limit)
    assert len(public_text.read_documentation(tmp_path / "a.py")) == (limit > 100)


def test_standard_library_counts_are_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b.py").write_text('"""red green red"""')
    (tmp_path / "a.py").write_text('"""blue green"""')
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "c.py").write_text('"""never never never"""')
    monkeypatch.setattr(public_text.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(topics, "topics", {"help": "red blue"})
    assert list(public_text.stdlib_word_counts().items()) == [
        ("red", 3.0),
        ("blue", 2.0),
        ("green", 2.0),
    ]
