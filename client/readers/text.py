"""Text: plain lines, JSON lines and tables with a text column; .gz and .xz are opened by suffix.

* ``.txt``: every line that is not blank is a document. With a folder as path and unit ``document`` a whole file is
  one document instead (its size is then held to ``max_line_bytes``).
* ``.jsonl`` and ``.json``: one object a line; ``text_field`` holds the text, the other fields may be keys.
* ``.csv`` and ``.tsv`` with a header: column ``text_field`` holds the text.

Units: ``record``, ``document`` and ``docstring`` are one document each; ``sentence`` cuts a document after ``.``,
``!`` or ``?`` before a blank, and at line ends; every piece with a letter or digit is one unit.
"""

from __future__ import annotations

import gzip
import json
import lzma
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from client.readers._keys import Keys, virtual_fields
from client.readers._limits import Place, decoded, files, lines, opened, suffix_of
from client.readers._rows import HeaderedRows
from common.config import DataConfig
from common.discovery import nearest
from common.errors import DataFormatError
from common.units import Record

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][\"'”’)\]])\s+|[\r\n]+")
_SOMETHING = re.compile(r"\w")


def sentences(text: str) -> Iterator[str]:
    """The sentences of a document, stripped; pieces without a letter or digit are left out.

    A plain rule without a language model: abbreviations end a sentence too early, which only makes units smaller.
    """
    for piece in _SENTENCE_END.split(text):
        if _SOMETHING.search(piece):
            yield piece.strip()


class TextReader:
    """Yields records whose value is a ``str``."""

    name = "text"
    records = "text"
    suffixes = (".txt", ".jsonl", ".json", ".csv", ".tsv")

    def read(self, data: DataConfig) -> Iterator[Record]:
        """See ``Reader.read``."""
        keys = Keys.of(data, "document", "docstring", "sentence")
        split = data.unit == "sentence"
        number = 0
        for path, name in files(data.path, self.suffixes):
            virtual = virtual_fields(name)
            for place, text, fields in _documents(path, data):
                fields = {**virtual, **fields} if fields else virtual
                client = keys.client(fields, place)
                for piece in sentences(text) if split else (text,):
                    yield Record(client, keys.unit_of(fields, client, number, place), piece)
                    number += 1

    def samples(self, directory: Path) -> Sequence[DataConfig]:
        """See ``Reader.samples``."""
        rows = [
            {"author": "Ada", "text": "The engine weaves patterns. It does so without thread!"},
            {"author": "Bo", "text": "Rain fell — all night, über alles.\nNobody minded."},
            {"author": "Ada", "text": "One more."},
        ]
        plain = "".join(str(row["text"]).replace("\n", " ") + "\n" for row in rows).encode()
        objects = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        table = b'author,text\r\nAda,"One line, quoted ""so""."\r\nBo,"Two\r\nlines."\r\n'
        (directory / "folder" / "inner").mkdir(parents=True)
        written = {
            "plain.txt": plain,
            "lines.jsonl": objects,
            "lines.jsonl.gz": gzip.compress(objects, mtime=0),
            "lines.jsonl.xz": lzma.compress(objects),
            "table.csv": table,
            "folder/first.txt": plain,
            "folder/inner/second.txt": plain,
        }
        for name, content in written.items():
            (directory / name).write_bytes(content)
        where = {name: str(directory / name) for name in (*written, "folder")}
        return (
            DataConfig(reader=self.name, path=where["plain.txt"], unit="sentence"),
            *(
                DataConfig(reader=self.name, path=where[name], client_key=("author",), unit="document")
                for name in ("lines.jsonl", "lines.jsonl.gz", "lines.jsonl.xz", "table.csv")
            ),
            DataConfig(reader=self.name, path=where["folder"], unit="document"),
        )


def _documents(path: Path, data: DataConfig) -> Iterator[tuple[Place, str, Mapping[str, Any]]]:
    kind = suffix_of(path)
    if kind == ".txt":
        whole = data.unit == "document" and Path(data.path).is_dir()
        found = _whole_file(path, data.max_line_bytes) if whole else lines(path, data.max_line_bytes)
        return ((place, text, {}) for place, text in found)
    if kind in (".csv", ".tsv"):
        return _table_rows(path, data, tabs=kind == ".tsv")
    return _json_lines(path, data)


def _whole_file(path: Path, max_bytes: int) -> Iterator[tuple[Place, str]]:
    place = Place(path)
    with opened(path) as stream:
        text = decoded(stream.read(max_bytes + 1), place, max_bytes)
    if not text.strip():
        raise DataFormatError(f"{path}: the file is empty", remedy="Remove the file, or choose another data.path.")
    yield place, text


def _table_rows(path: Path, data: DataConfig, *, tabs: bool) -> Iterator[tuple[Place, str, Mapping[str, Any]]]:
    rows = HeaderedRows(path, tabs=tabs, max_line_bytes=data.max_line_bytes)
    for row in rows:
        fields = dict(zip(rows.header, row, strict=True))
        text = _text_of(fields, data.text_field, rows.place)
        if text.strip():
            yield rows.place, text, fields


def _json_lines(path: Path, data: DataConfig) -> Iterator[tuple[Place, str, Mapping[str, Any]]]:
    for place, line in lines(path, data.max_line_bytes):
        fields = _json_object(line, place)
        text = _text_of(fields, data.text_field, place)
        if text.strip():
            yield place, text, fields


def _text_of(fields: Mapping[str, Any], name: str, place: Place) -> str:
    if name not in fields:
        raise DataFormatError(
            f"{place}: no field {name!r}{nearest(name, sorted(fields))}", remedy="Set data.text_field."
        )
    text = fields[name]
    if not isinstance(text, str):
        raise DataFormatError(f"{place}: field {name!r} is not a string")
    return text


def _json_object(line: str, place: Place) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise DataFormatError(f"{place}: a JSON object names a key twice")
        return fields

    def refuse(_constant: str) -> NoReturn:
        raise ValueError("NaN and Infinity are not JSON")

    try:
        fields = json.loads(line, object_pairs_hook=once, parse_constant=refuse)
        if "\\u" in line:
            json.dumps(fields, ensure_ascii=False).encode()  # a lone surrogate escape is not text
    except (ValueError, RecursionError):
        raise DataFormatError(f"{place}: not one JSON object", remedy="Write one JSON object a line.") from None
    if not isinstance(fields, dict):
        raise DataFormatError(f"{place}: not one JSON object", remedy="Write one JSON object a line.")
    return fields


READER = TextReader()
