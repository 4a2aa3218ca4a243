"""The compact table: only the rows that a piece of work touches, renumbered 0..R-1.

Families name the row numbers in a batch so that others can renumber them: every int64 tensor of row numbers of table
``t`` is called ``rows.t``, with a suffix where a batch has several (``rows.context.weight.negatives``). Nothing else
in a batch begins with ``rows.``. Positions that only pad hold any valid row number; the loss masks them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from common.errors import ConfigError
from common.table import IntArray

if TYPE_CHECKING:
    import torch

ROW_PREFIX = "rows."


def holds_rows(key: str) -> bool:
    """Whether the batch entry ``key`` holds row numbers."""
    return key.startswith(ROW_PREFIX)


def touched_rows(batches: Iterable[Mapping[str, torch.Tensor]], *, rows: int) -> IntArray:
    """Sorted distinct row numbers in ``batches``, shape (R,), int64; row 0 alone when there are none.

    All tables of a family share one row domain, so one set serves them all.

    Raises:
        ConfigError: a row number outside [0, rows): the family broke its contract.
    """
    parts = [np.unique(tensor.numpy()) for batch in batches for key, tensor in batch.items() if holds_rows(key)]
    touched = np.unique(np.concatenate([np.zeros(0, np.int64), *parts]))
    if not len(touched):
        return np.zeros(1, dtype=np.int64)
    if touched.dtype != np.int64 or touched[0] < 0 or touched[-1] >= rows:
        raise ConfigError(f"a batch holds row numbers that are not int64 in [0, {rows})")
    return touched


def renumbered(batch: Mapping[str, torch.Tensor], kept: IntArray) -> dict[str, torch.Tensor]:
    """``batch`` with every row number replaced by its position in ``kept`` (sorted, and holding all of them)."""
    import torch  # heavy: only where numbers are crunched

    return {
        key: torch.from_numpy(np.searchsorted(kept, tensor.numpy())) if holds_rows(key) else tensor
        for key, tensor in batch.items()
    }
