"""The standard library's documentation: public to all parties, one client a module, one unit a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from common.public_text import stdlib_documentation, stdlib_word_counts
from common.units import Record


class PythonStdlib:
    """``python-stdlib``: docstrings of the running Python's own modules and the topics of ``help()``."""

    unit = "docstring"

    def records(self) -> Iterator[Record]:
        """One record a text."""
        for number, (source, text) in enumerate(stdlib_documentation()):
            client = source.removesuffix(".py").split("#")[0]
            yield Record(client=client, unit=str(number), value=text)

    def vocabulary(self) -> Mapping[str, float]:
        """Word counts over all texts."""
        return stdlib_word_counts()


CORPUS = PythonStdlib()
