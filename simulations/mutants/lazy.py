"""Lazy noise gone wrong: not before the read, not at the end, not as much, not independent."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from common.privacy.lazy import LazyTable
from common.privacy.rng import NoiseSource
from simulations.mutants import Mutant, Replacement, instead_of

_read, _step, _add_noise = LazyTable.read, LazyTable.step, LazyTable._add_noise


def _after_the_read(self: LazyTable, rows: torch.Tensor) -> torch.Tensor:
    """Settles a row only after its value was used."""
    self._close()
    stale = self._weight.index_select(0, rows)
    _read(self, rows)
    self._close()
    return stale


def _never_settled(self: LazyTable, rows: torch.Tensor) -> torch.Tensor:
    """Forgets what a row was owed when it is read."""
    self._paid.index_fill_(0, rows, self._owed)
    return _read(self, rows)


def _no_flush(self: LazyTable) -> None:
    """Lets the table go without the noise that is owed."""
    self._close()


def _half_owed(self: LazyTable, values: torch.Tensor, stddev: torch.Tensor) -> None:
    """Half of the noise that is owed, as if four steps were one."""
    _add_noise(self, values, stddev / 2)


def _lr_scaled(self: LazyTable, sums: Any, *, scale: float, stddev: float) -> None:
    """The learning rate twice on the noise, once on the sum."""
    _step(self, sums, scale=scale, stddev=0.7 * stddev)


def _empty_skipped(self: LazyTable, sums: Any, *, scale: float, stddev: float) -> None:
    """An empty batch makes no step: that it was empty is seen."""
    if sums is not None:
        _step(self, sums, scale=scale, stddev=stddev)


def _read_rows_only(self: LazyTable, sums: Any, *, scale: float, stddev: float) -> None:
    """Noise on the rows of a batch, none owed to the others."""
    before = self._owed
    _step(self, sums, scale=scale, stddev=stddev)
    self._owed = before
    self._paid.clamp_(max=before)


def _from_torch(self: LazyTable, rows: int) -> torch.Tensor:
    return torch.randn(rows, self._weight.shape[1])


def _same_every_time(self: LazyTable, rows: int) -> torch.Tensor:
    return torch.from_numpy(NoiseSource.seeded_for_tests(0).normal((rows, self._weight.shape[1]), 1.0))


def _one_a_row(self: LazyTable, rows: int) -> torch.Tensor:
    drawn = torch.from_numpy(self._source.normal((rows, 1), 1.0))
    return drawn.expand(rows, self._weight.shape[1]).clone()


def _global_numpy(self: NoiseSource, shape: Any, stddev: float) -> Any:
    """Normals from torch's global generator, whatever the source."""
    return (torch.randn(shape) * stddev).numpy()


def _float24(self: NoiseSource, shape: Any, stddev: float) -> Any:
    """Box and Muller's transform on uniforms of 24 bits, as float32 holds them: nothing above 5.77 deviations."""
    n = int(np.prod(shape))
    u = ((self.words(n) >> np.uint64(40)).astype(np.float64) + 1) * 2.0**-24
    angles = (self.words(n) >> np.uint64(40)).astype(np.float64) * 2.0**-24 * 2 * math.pi
    return (np.sqrt(-2 * np.log(u)) * np.cos(angles) * stddev).astype(np.float32).reshape(shape)


def _uniform32(self: NoiseSource, n: int) -> Any:
    return (self.words(n) >> np.uint64(40)).astype(np.float64) * 2.0**-24


def _lazy(name: str, by: Any) -> Replacement:
    return instead_of(LazyTable, name, by)


MUTANTS = (
    Mutant("noise added after the read", "table_reads", replacing=_lazy("read", _after_the_read)),
    Mutant("owed noise forgotten at the read", "table_reads", replacing=_lazy("read", _never_settled)),
    Mutant("no flush before the table leaves", "table_noise", replacing=_lazy("flush", _no_flush)),
    Mutant("noise of one step for many that are owed", "table_noise", replacing=_lazy("_add_noise", _half_owed)),
    Mutant("noise scaled by the learning rate twice", "table_noise", replacing=_lazy("step", _lr_scaled)),
    Mutant("empty batch skipped without noise", "table_noise", replacing=_lazy("step", _empty_skipped)),
    Mutant("noise on the rows of the batch alone", "table_noise", replacing=_lazy("step", _read_rows_only)),
    Mutant("table noise from torch's global generator", "own_randomness", replacing=_lazy("_normal", _from_torch)),
    Mutant(
        "all noise from torch's global generator",
        "own_randomness",
        replacing=instead_of(NoiseSource, "normal", _global_numpy),
    ),
    Mutant("the same noise in every step", "table_whiteness", replacing=_lazy("_normal", _same_every_time)),
    Mutant("one draw for a row of the table", "table_whiteness", replacing=_lazy("_normal", _one_a_row)),
    Mutant(
        "24-bit uniforms cap the tail at 5.77 deviations",
        "tails",
        replacing=instead_of(NoiseSource, "normal", _float24),
    ),
    Mutant("uniforms of 24 bits", "tails", replacing=instead_of(NoiseSource, "uniform", _uniform32)),
)
