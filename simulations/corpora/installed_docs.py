"""The documentation strings of the Python packages installed beside this one: the embedded default.

Real text from several hundred authors, naturally uneven, and on every machine. A client is a package, or a subpackage
where a package has many strings; a unit is one documentation string. Test folders are left out, and so are strings of
fewer than five words. A string that occurs twice inside one client (copied or generated code) is kept once; copies in
different clients stay, because clients that cannot see each other could not remove them.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from itertools import groupby
from pathlib import Path, PurePosixPath

from common.public_text import SKIPPED_FOLDERS, read_documentation
from common.units import Record
from simulations.corpora import python_stdlib

MIN_WORDS = 5
SPLIT_ABOVE = 400
OWN_NAME = "fedembed"

Strings = list[tuple[PurePosixPath, str]]


class InstalledDocs:
    """``installed-docs``: deterministic for a given environment; names and files are sorted."""

    unit = "docstring"

    def records(self) -> Iterator[Record]:
        """One record a documentation string, client after client."""
        for name, files in _packages():
            for client, strings in sorted(_split(name, _strings(files), depth=1)):
                for number, text in enumerate(dict.fromkeys(text for _, text in strings)):
                    yield Record(client=client, unit=str(number), value=text)

    def vocabulary(self) -> Mapping[str, float]:
        """The standard library's words: the packages' own words are private."""
        return python_stdlib.CORPUS.vocabulary()


def _packages() -> list[tuple[str, list[tuple[PurePosixPath, Path]]]]:
    """(name, [(path inside site-packages, file)]) of every distribution but this project, sorted by name."""
    found: dict[str, list[tuple[PurePosixPath, Path]]] = {}
    for distribution in metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if name and name != OWN_NAME and name not in found:  # the first on the path is the one that is imported
            found[name] = _source_files(distribution)
    return sorted(found.items())


def _source_files(distribution: metadata.Distribution) -> list[tuple[PurePosixPath, Path]]:
    listing = distribution.read_text("RECORD")
    if listing is None:
        return []
    paths = (PurePosixPath(row[0]) for row in csv.reader(listing.splitlines()) if row and row[0].endswith(".py"))
    inside = sorted({p for p in paths if ".." not in p.parts and SKIPPED_FOLDERS.isdisjoint(p.parts)})
    return [(p, Path(str(distribution.locate_file(str(p))))) for p in inside]


def _strings(files: Sequence[tuple[PurePosixPath, Path]]) -> Strings:
    return [
        (inner, text) for inner, path in files for text in read_documentation(path) if len(text.split()) >= MIN_WORDS
    ]


def _split(name: str, strings: Strings, *, depth: int) -> Iterator[tuple[str, Strings]]:
    """Cut a package with many strings at its folders; files directly inside a folder stay with that folder's client."""
    folders = Counter(path.parts[:depth] for path, _ in strings if len(path.parts) > depth)
    if len(strings) <= SPLIT_ABOVE or not folders:
        if strings:
            yield name, strings
        return
    by_folder = sorted(strings, key=lambda item: _folder(item[0], depth))  # stable: files keep their order
    for folder, group in groupby(by_folder, key=lambda item: _folder(item[0], depth)):
        label = "/".join(folder) if len(folder) == depth else f"{name} (top)"
        if len(folder) == depth:
            yield from _split(label, list(group), depth=depth + 1)
        else:
            yield label, list(group)


def _folder(path: PurePosixPath, depth: int) -> tuple[str, ...]:
    return path.parts[: min(depth, len(path.parts) - 1)]


CORPUS = InstalledDocs()
