"""Exact lazy noise: DP-SGD on a whole table at the cost of the rows that are read.

Textbook DP-SGD adds fresh noise to every row at every step, theta_t[i] = theta_{t-1}[i] - a_t (S_t[i] + z_t[i]) with
a_t = lr_t / B and z_t ~ N(0, s^2 I). A row that is not read only collects noise, and independent normals add up:

    sum_{t in T} a_t z_t[i]  ~  N(0, s^2 sum_{t in T} a_t^2),

which is one draw (LazyDP, Lim et al. 2024, arXiv 2404.08847). So a row's pending noise is drawn when the row is next
read, before the value is used, and every row's at ``flush``, before anything leaves: what is read, and what is
released, has exactly the distribution of the textbook. This needs plain SGD: with momentum, Adam or weight decay a
row's update is no sum of independent noise.

The noise of a step itself is added to the touched rows together with their clipped sum, before the result is rounded to
float32. Were it left pending as well, the rounding would happen before the noise, and a rounding error is as much a
function of one unit's data as the sum is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from common.errors import PrivacyConfigError
from common.privacy.rng import NoiseSource
from common.privacy.table_gradients import BLOCK_ROWS, RowSums
from common.table import IntArray

FLUSH_ROWS = 65_536


@dataclass(frozen=True)
class _Open:
    """Rows that were read, with their settled values, and are not written back yet."""

    rows: torch.Tensor
    values: torch.Tensor


class LazyTable:
    """The weight of one table with the noise that its rows are owed. ``read``, ``step`` and ``flush`` move it.

    What a row is owed follows from ``_paid``, the value of ``_owed`` when it last received noise. That tells which rows
    were touched, so it is as secret as the data: it is never saved, sent or logged.

    Args:
        weight: (V, D), float32 or float64; changed in place.
        source: secret randomness of this table.
        padding_row: a row that gets no noise.
    """

    def __init__(self, weight: torch.Tensor, *, source: NoiseSource, padding_row: int | None = None) -> None:
        self._weight = weight
        self._source = source
        self._padding_row = padding_row
        self._owed = 0.0  # sum over all steps of the squared stddev of a row's noise
        self._paid = torch.zeros(len(weight), dtype=torch.float64, device=weight.device)
        self._open: _Open | None = None

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        """Current values of distinct ``rows``, shape (R, D), after they received all that they are owed."""
        self._close()
        values = self._weight.index_select(0, rows)
        stddev = (self._owed - self._paid.index_select(0, rows)).sqrt_()
        if self._padding_row is not None:
            stddev[rows == self._padding_row] = 0.0
        for start in range(0, len(rows) if self._owed else 0, BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            self._add_noise(values[block], stddev[block])
        self._paid.index_fill_(0, rows, self._owed)
        self._open = _Open(rows, values)
        return values

    def _add_noise(self, values: torch.Tensor, stddev: torch.Tensor) -> None:
        """Add independent noise to every row of ``values``, in place; rows of stddev zero cost nothing."""
        late = torch.nonzero(stddev).reshape(-1)
        if len(late) == len(stddev):
            values.add_(self._normal(len(stddev)).mul_(stddev[:, None]))
        elif len(late):
            values.index_add_(0, late, self._normal(len(late)).mul_(stddev[late, None]).to(values.dtype))

    def step(self, sums: RowSums | None, *, scale: float, stddev: float) -> None:
        """Take one step: ``- scale * (S + z)`` on every row, ``z ~ N(0, stddev^2)``; untouched rows are owed theirs.

        Args:
            sums: of rows that were all read since the last step; ``None`` where the batch touched none.
            scale: learning rate over the public denominator.
        """
        self._owed += (scale * stddev) ** 2
        if sums is None:
            return
        values = self._values_of(sums.rows)
        for positions, block in sums.blocks():
            z = self._normal(len(block))
            values[positions].add_(block.add_(z, alpha=stddev).to(values.dtype), alpha=-scale)
        self._weight.index_copy_(0, sums.rows, values)
        self._paid.index_fill_(0, sums.rows, self._owed)

    def _values_of(self, rows: torch.Tensor) -> torch.Tensor:
        """The settled values of ``rows``, which were all read before: those just read need no second look."""
        if self._open is not None and self._open.rows is rows:
            values, self._open = self._open.values, None
            return values
        self._close()
        return self._weight.index_select(0, rows)

    def _close(self) -> None:
        if self._open is not None:
            self._weight.index_copy_(0, self._open.rows, self._open.values)
            self._open = None

    def flush(self) -> None:
        """Pay every row what it is owed: to be called before the table leaves, in whatever form."""
        for start in range(0, len(self._weight), FLUSH_ROWS):
            self.read(torch.arange(start, min(start + FLUSH_ROWS, len(self._weight)), device=self._weight.device))
        self._close()

    def changed(self) -> tuple[IntArray, torch.Tensor]:
        """Numbers and values of the rows that the noise reached: all of them."""
        self.flush()
        return np.arange(len(self._weight)), self._weight

    def _normal(self, rows: int) -> torch.Tensor:
        drawn = torch.from_numpy(self._source.normal((rows, self._weight.shape[1]), 1.0))
        return drawn.to(self._weight.device)


def check_plain_sgd(optimizer: torch.optim.Optimizer) -> None:
    """Refuse optimizers under which lazy noise would not be exact.

    Raises:
        PrivacyConfigError: not SGD, or SGD with momentum or weight decay.
    """
    remedy = "Use torch.optim.SGD without momentum or weight decay here, and the server's optimizer for the rest."
    if type(optimizer) is not torch.optim.SGD:
        raise PrivacyConfigError(
            f"lazy noise is exact for plain SGD alone, not {type(optimizer).__name__}", remedy=remedy
        )
    for group in optimizer.param_groups:
        wrong = [name for name in ("momentum", "weight_decay", "maximize") if group.get(name)]
        if wrong:
            raise PrivacyConfigError(f"lazy noise is not exact with {' or '.join(wrong)}", remedy=remedy)
        if not 0 < float(group["lr"]) < math.inf:
            raise PrivacyConfigError(f"the learning rate must be positive and finite, not {group['lr']}")
