"""Keys as text: one key a line, UTF-8, so that any editor and any language reads them.

Backslash, newline and carriage return are written as ``\\\\``, ``\\n`` and ``\\r``; every other character stands for
itself. A file of V keys has exactly V newlines, hence the empty key is an empty line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from common.errors import DataFormatError

_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_UNESCAPES = {"\\": "\\", "n": "\n", "r": "\r"}
_SPECIAL = re.compile(r"[\\\n\r]")
_SEQUENCE = re.compile(r"\\(.?)")


def encode_keys(keys: Iterable[str]) -> bytes:
    """Bytes of a key file.

    Raises:
        DataFormatError: a key holds half a surrogate pair, which no UTF-8 file can.
    """
    try:
        return "".join(_SPECIAL.sub(lambda m: _ESCAPES[m.group()], key) + "\n" for key in keys).encode()
    except UnicodeEncodeError:
        raise DataFormatError(
            "a key holds half of a surrogate pair, which is not valid Unicode text",
            remedy="Rename that key in the row domain; UTF-8 cannot hold it.",
        ) from None


def decode_keys(data: bytes) -> tuple[str, ...]:
    """Inverse of ``encode_keys``.

    Raises:
        DataFormatError: not UTF-8, the last line is cut off, or an escape is unknown.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise DataFormatError(f"the key file is not UTF-8 (byte {error.start})") from None
    if text and not text.endswith("\n"):
        raise DataFormatError("the key file does not end with a newline: its last key may be cut off")
    if "\\" not in text:
        return tuple(text.split("\n")[:-1])
    return tuple(_SEQUENCE.sub(_unescaped, line) for line in text.split("\n")[:-1])


def _unescaped(match: re.Match[str]) -> str:
    if match.group(1) not in _UNESCAPES:
        raise DataFormatError(f"unknown escape {match.group()!r} in the key file")
    return _UNESCAPES[match.group(1)]
