"""The un-noised sum, and the only gate through which it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from common.errors import PrivacyConfigError, WireError
from common.privacy import mechanisms
from common.privacy.clipping import canonical
from common.privacy.plan import PrivacyPlan
from common.privacy.rng import NoiseSource
from common.table import FloatArray, IntArray
from common.update import ParameterSpec, RowBatch, UpdateBatch, coalesce


@dataclass(frozen=True)
class Released:
    """What may be seen: the noised sum, or the plain one in modes that add no noise here.

    Attributes:
        rows: table name -> (row ids or ``None`` for all rows, values of shape (rows, D)).
        dense: dense parameter name -> array.
    """

    rows: dict[str, tuple[IntArray | None, FloatArray]]
    dense: dict[str, FloatArray]


class _TableSum:
    """A sum of rows: a list of parts while they are few, a full table once their entries exceed its rows."""

    __slots__ = ("entries", "full", "parts", "spec")

    def __init__(self, spec: ParameterSpec) -> None:
        self.spec = spec
        self.parts: list[tuple[IntArray, FloatArray]] = []
        self.entries = 0
        self.full: NDArray[np.float64] | None = None

    def add(self, table: RowBatch) -> None:
        self.entries += len(table.ids)
        if self.full is not None or self.entries >= self.spec.shape[0]:
            self.parts.append((table.ids, table.values))
            self.full = self.dense()
        else:
            self.parts.append((table.ids.copy(), table.values.copy()))  # the caller may reuse its buffers

    def dense(self) -> NDArray[np.float64]:
        """The whole table, shape (V, D); cost follows the pending entries once the table exists."""
        import torch  # index_add_ is several times faster than numpy's ufunc.at

        full = self.full if self.full is not None else np.zeros(self.spec.shape)
        target = torch.from_numpy(full)
        for ids, values in self.parts:
            target.index_add_(0, torch.tensor(ids), torch.from_numpy(values.astype(np.float64)))
        self.parts.clear()
        return full

    def sparse(self) -> tuple[IntArray | None, FloatArray]:
        """Row ids and values; ids is ``None`` when the table is full."""
        if self.full is not None:
            return None, self.full.astype(np.float32)
        ids = np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in self.parts)])
        width = self.spec.shape[1]
        values = np.concatenate([np.empty((0, width), np.float32), *(values for _, values in self.parts)])
        merged = coalesce(np.zeros(len(ids), np.int64), ids, values, count=1, rows=self.spec.shape[0])
        return merged.ids, merged.values


class PrivateSum:
    """The sum of all contributions of a round, before noise. It shows nothing; only ``release`` takes it.

    It is taken in float64: in float32 its rounding errors would add to what a unit changes.
    """

    __slots__ = ("__dense", "__released", "__specs", "__tables")

    def __init__(self, specs: Sequence[ParameterSpec]) -> None:
        self.__specs = {spec.name: spec for spec in specs}
        self.__tables = {spec.name: _TableSum(spec) for spec in specs if spec.is_table}
        self.__dense = {s.name: np.zeros(s.shape) for s in specs if not s.is_table}
        self.__released = False

    def add(self, batch: UpdateBatch) -> None:
        """Add every contribution of ``batch``. Cost follows its entries. Nothing is added when it is malformed.

        Raises:
            WireError: unknown names, wrong shapes, rows outside the table, NaN or Inf.
            PrivacyConfigError: the sum has already been released.
        """
        if self.__released:
            raise PrivacyConfigError("this sum has been released; start a new one for the next round")
        batch = canonical(batch)
        for name, table in batch.rows.items():
            self.__check_table(name, table)
        for name, array in batch.dense.items():
            self.__check_dense(name, array)
        for name, table in batch.rows.items():
            self.__tables[name].add(table)
        for name, array in batch.dense.items():
            self.__dense[name] += array.sum(axis=0, dtype=np.float64)

    @property
    def table_names(self) -> list[str]:
        """Names of the tables."""
        return [name for name, spec in self.__specs.items() if spec.is_table]

    def __check_table(self, name: str, table: RowBatch) -> None:
        spec = self.__specs.get(name)
        if spec is None or not spec.is_table:
            raise WireError(f"an update has a table {name!r} that the model lacks")
        rows, width = spec.shape
        if table.values.shape[1] != width or (len(table.ids) and int(table.ids.max()) >= rows):
            raise WireError(f"an update of table {name!r} does not fit its shape {spec.shape}")
        if not np.isfinite(table.values).all():
            raise WireError(f"an update of table {name!r} has values that are not finite: clip it first")

    def __check_dense(self, name: str, array: FloatArray) -> None:
        spec = self.__specs.get(name)
        if spec is None or spec.is_table or array.shape[1:] != spec.shape:
            raise WireError(f"an update of {name!r} does not fit the model")
        if not np.isfinite(array).all():
            raise WireError(f"an update of {name!r} has values that are not finite: clip it first")

    def _open(self) -> Released:
        """Hand the sum to the gate, once, rounded to float32: for modes that add no noise here."""
        tables, dense = self.__taken()
        rows = {name: table.sparse() for name, table in tables.items()}
        return Released(rows, {name: array.astype(np.float32) for name, array in dense.items()})

    def _open_full(self) -> dict[str, NDArray[np.float64]]:
        """Hand every coordinate to the gate, once, in float64: the noise comes before any rounding."""
        tables, dense = self.__taken()
        return {name: table.dense() for name, table in tables.items()} | dense

    def __taken(self) -> tuple[dict[str, _TableSum], dict[str, NDArray[np.float64]]]:
        if self.__released:
            raise PrivacyConfigError("a sum is released once: a second release would need noise and budget of its own")
        self.__released = True
        taken = self.__tables, self.__dense
        self.__tables, self.__dense = {}, {}
        return taken

    def __repr__(self) -> str:
        return f"PrivateSum({len(self.__specs)} arrays, values not shown)"

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError("a sum without noise cannot be copied, pickled or saved; release it")

    __copy__ = __deepcopy__ = __reduce__ = __reduce_ex__ = __getstate__ = _refuse


def release(private_sum: PrivateSum, plan: PrivacyPlan, source: NoiseSource) -> Released:
    """Let a sum out, once: in mode central with noise on every coordinate of every table and dense layer.

    In the other modes the noise is already inside the contributions (or there is none), and tables stay sparse while
    few rows were touched.

    Raises:
        PrivacyConfigError: second release; a seeded source under a plan that is not in test mode.
    """
    if source.test_mode and not plan.test_mode and plan.mode != "none":
        raise PrivacyConfigError(
            "a seeded noise source may be used under privacy.test_mode = true alone: its noise can be subtracted",
            remedy="Use NoiseSource.from_os(), or set privacy.test_mode = true and accept a void claim.",
        )
    if plan.mode == "distributed":
        raise PrivacyConfigError("mode 'distributed' sums integers: see common.privacy.distributed.released_from_sum")
    if plan.mode != "central":
        return private_sum._open()
    tables = private_sum.table_names
    noised = mechanisms.load(plan.mechanism).add_noise(private_sum._open_full(), plan.noise_stddev, source)
    return Released({n: (None, noised[n]) for n in tables}, {n: a for n, a in noised.items() if n not in tables})
