"""Canaries: units of which nobody can tell before the run whether they take part, and whose traces are easy to find.

Each has coordinates of its own, in rows that no real record can touch, so that canaries do not disturb one another:
then a sum with Gaussian noise is exactly the problem of telling N(0, s^2) from N(C, s^2), the hardest one for the
mechanism (Nasr et al. 2023; Steinke et al. 2023). Designs (notes of the field: Malek et al. 2021, Maddock et al. 2023):

* ``dedicated``: one number of one row of the first table;
* ``split``: one number of a row of every table and a direction in every dense array, clipped jointly: sees noise that
  is missing in one of them (its arrays are also looked at one by one), and clips that are not joint;
* ``alternating``: as ``dedicated``, with a sign that turns from round to round, in another pattern (Walsh's) for each:
  sees noise that is used again, after whatever number of rounds;
* ``repeated``: as ``dedicated``, in 16 equal parts that all name the same row: sees a clip that takes the norm of the
  parts, or bounds each part, before they are summed.

Every canary asks for ten times the clip, so that a clip which is left out is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from common.privacy.private_sum import Released
from common.table import FloatArray, IntArray
from common.update import ParameterSpec, RowBatch, UpdateBatch

DESIGNS = ("dedicated", "split", "alternating", "repeated")
REPEATS = 16  # times that a repeated canary names its row
OVER_NORM = 10.0  # times the clip
KEY_PREFIX = "canary-"


@dataclass(frozen=True)
class Canaries:
    """The canaries of one audit.

    Attributes:
        included: shape (m,), which take part: each by a coin of its own.
        design: shape (m,), index into ``DESIGNS``.
        specs: what clients send, with the canaries' rows at the end of every table.
        first_row: number of the first row that is no real record's.
        per_row: canaries that share a row, one column each; 1 where the rows themselves must tell them apart.
        l2_clip_norm: what the mechanism clips to.
        rounds: of the run.
    """

    included: NDArray[np.bool_]
    design: IntArray
    specs: tuple[ParameterSpec, ...]
    first_row: int
    per_row: int
    l2_clip_norm: float
    rounds: int = 2

    def __len__(self) -> int:
        return len(self.included)

    @property
    def rows(self) -> IntArray:
        """Row of each canary in every table, shape (m,)."""
        return self.first_row + np.arange(len(self)) // self.per_row

    @cached_property
    def tables(self) -> tuple[ParameterSpec, ...]:
        """The tables among ``specs``."""
        return tuple(spec for spec in self.specs if spec.is_table)

    def of_design(self, name: str) -> IntArray:
        """Numbers of the canaries of a design."""
        return np.flatnonzero(self.design == DESIGNS.index(name))

    def contributions(self, chosen: IntArray, round_number: int) -> UpdateBatch:
        """What the canaries ``chosen`` send in a round, before the clip: one contribution each.

        Those of repeated canaries name a row 16 times, which no update may do after the clip.
        """
        count, rows, dense = len(chosen), {}, {}
        for spec in self.specs:
            weights = self._weights(chosen, spec, round_number)
            if not spec.is_table:
                dense[spec.name] = weights.astype(np.float32)[:, None] * self._directions(chosen, spec)
                dense[spec.name] = dense[spec.name].reshape(count, *spec.shape)
                continue
            touching = np.flatnonzero(weights)
            parts = np.where(self.design[chosen[touching]] == DESIGNS.index("repeated"), REPEATS, 1)
            shares = np.repeat(weights[touching] / parts, parts)
            touching = np.repeat(touching, parts)
            values = np.zeros((len(touching), spec.shape[1]), np.float32)
            values[np.arange(len(touching)), self._columns(chosen[touching], spec)] = shares
            offsets = np.searchsorted(touching, np.arange(count + 1)).astype(np.int64)
            rows[spec.name] = RowBatch(offsets, self.rows[chosen[touching]], values)
        return UpdateBatch(count, rows, dense)

    def shares(self, round_number: int) -> NDArray[np.float64]:
        """How much of each canary, of length 1 once it is clipped, lies in each array; shape (arrays, m)."""
        everyone = np.arange(len(self))
        whole = OVER_NORM * self.l2_clip_norm
        return np.array([self._weights(everyone, spec, round_number) / whole for spec in self.specs])

    def projections(self, released: Released, round_number: int) -> NDArray[np.float64]:
        """How much of each canary every array of a sum seems to hold, in clips: its share or 0, plus noise.

        A table that came as few rows holds zero elsewhere. Shape (arrays, m), in the order of ``specs``.
        """
        everyone, shares = np.arange(len(self)), self.shares(round_number)
        found = np.zeros(shares.shape)
        for a, spec in enumerate(self.specs):
            if not spec.is_table:
                value = released.dense.get(spec.name)
                if value is not None and shares[a].any():
                    found[a] = self._directions(everyone, spec) @ value.reshape(-1).astype(np.float64)
            elif spec.name in released.rows:
                found[a] = _read(released.rows[spec.name], self.rows, self._columns(everyone, spec))
        return found / self.l2_clip_norm

    def traces(self, batch: UpdateBatch, places: IntArray, chosen: IntArray) -> NDArray[np.float64]:
        """As ``projections``, of canary ``chosen[k]`` in contribution ``places[k]`` of a batch. Shape (arrays, k)."""
        found = np.zeros((len(self.specs), len(chosen)))
        for a, spec in enumerate(self.specs):
            if not spec.is_table:
                value = batch.dense[spec.name].reshape(batch.count, -1)[places]
                found[a] = np.einsum("kd,kd->k", value, self._directions(chosen, spec), dtype=np.float64)
            elif spec.name in batch.rows:
                table, rows = batch.rows[spec.name], spec.shape[0]
                keys, wanted = table.owners * rows + table.ids, places * rows + self.rows[chosen]
                found[a] = _read((keys, table.values), wanted, self._columns(chosen, spec))
        return found / self.l2_clip_norm

    def supports(self, released: Released) -> NDArray[np.float64]:
        """In how many tables a canary's row came at all. Shape (m,)."""
        found = np.zeros(len(self))
        for spec in self.tables:
            ids = released.rows[spec.name][0] if spec.name in released.rows else np.empty(0, np.int64)
            found += 1.0 if ids is None else np.isin(self.rows, ids)
        return found

    def _weights(self, chosen: IntArray, spec: ParameterSpec, round_number: int) -> NDArray[np.float64]:
        """Length of each canary's contribution to an array, before the clip."""
        whole = OVER_NORM * self.l2_clip_norm
        design = self.design[chosen]
        first = spec.name == (self.tables[0].name if self.tables else self.specs[0].name)
        sign = np.where((design == 2) & self._turned(chosen, round_number), -1.0, 1.0)
        split = whole / np.sqrt(len(self.specs))
        return np.where(design == 1, split, whole * sign if first else 0.0)

    def _turned(self, chosen: IntArray, round_number: int) -> NDArray[np.bool_]:
        """Whether an alternating canary's sign is turned: Walsh's function number p, 1 or more, at the round."""
        bits = max(1, (self.rounds - 1).bit_length())
        pattern = 1 + np.asarray(chosen, dtype=np.int64) % (2**bits - 1)
        both = pattern & (round_number - 1)
        return sum((both >> bit) & 1 for bit in range(bits)) % 2 == 1

    def _columns(self, chosen: IntArray, spec: ParameterSpec) -> IntArray:
        return np.asarray(chosen, dtype=np.int64) % (self.per_row if self.per_row > 1 else spec.shape[1])

    def _directions(self, chosen: IntArray, spec: ParameterSpec) -> FloatArray:
        """A random unit vector of a dense array for each canary, shape (len(chosen), size)."""
        size = int(np.prod(spec.shape))
        drawn = [np.random.default_rng([7, int(k)]).standard_normal(size, dtype=np.float32) for k in chosen]
        array = np.array(drawn, dtype=np.float32).reshape(len(chosen), size)
        return array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-30)


def left_out(specs: Sequence[ParameterSpec], *, rounds: int, family: str) -> Mapping[str, str]:
    """Designs that a run does not allow, each with the reason in words.

    Nothing declares a weight: a record's is not encoded, and neither units nor messages have one.
    """
    found = {"heavy weight": f"neither a unit of family {family!r} nor a message carries a weight that its owner sets"}
    if len(specs) < 2:
        found["split"] = f"family {family!r} sends one array alone"
    if rounds < 2:
        found["alternating"] = "the run has one round alone"
    if not any(spec.is_table for spec in specs):
        found["repeated"] = f"family {family!r} has no table whose row a unit could name twice"
    return found


def _read(table: tuple[IntArray | None, FloatArray], rows: IntArray, columns: IntArray) -> NDArray[np.float64]:
    ids, values = table
    if ids is None:
        return values[rows, columns].astype(np.float64)
    place = np.searchsorted(ids, rows)
    place = np.minimum(place, max(len(ids) - 1, 0))
    present = np.zeros(len(rows), bool) if not len(ids) else ids[place] == rows
    found = np.zeros(len(rows))
    found[present] = values[place[present], columns[present]]
    return found
