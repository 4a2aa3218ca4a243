"""Rows of running text, the same for every family that reads words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from common.table import IntArray
from common.text import words


def token_rows(text: str, row_of: Mapping[str, int]) -> IntArray:
    """Row numbers of the known words of ``text`` in order, shape (n,), int64; unknown words are dropped."""
    known = (row_of.get(token) for token in words(text))
    return np.fromiter((row for row in known if row is not None), dtype=np.int64)
