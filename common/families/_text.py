"""Tokens of running text, the same for every family that reads words."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from common.table import IntArray

# Letters of any script: a word character that is neither a digit nor the underscore.
_WORD = re.compile(r"[^\W\d_]+")


def tokenize(text: str) -> list[str]:
    """Lower-cased words of ``text`` in order; digits, punctuation and underscores separate words.

    Lower-casing comes first, because it may change the number of characters (``"İ"``).
    """
    return _WORD.findall(text.lower())


def token_rows(text: str, row_of: Mapping[str, int]) -> IntArray:
    """Row numbers of the known words of ``text`` in order, shape (n,), int64; unknown words are dropped."""
    known = (row_of.get(token) for token in tokenize(text))
    return np.fromiter((row for row in known if row is not None), dtype=np.int64)
