"""A family whose canary units send what the audit wants; everything else is the family's own code, and the client's.

A unit is a canary when its column ``canary`` holds its number; ordinary elements hold -1 there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from common.errors import EvaluationError
from common.families import AdditiveFamily, FamilyOptions, LocalFamily, LocalTraining, RowFamily
from common.table import EmbeddingTable, IntArray, RowDomain
from common.units import ClientStore, Record, Units
from common.update import Parameters, ParameterSpec, RowBatch, UpdateBatch, concatenated, segment_sum, sum_groups
from common.work import Work
from simulations.audit.canaries import REPEATS, Canaries

if TYPE_CHECKING:
    import torch

MARK = "canary"


def marked(store: ClientStore, names: Sequence[str], numbers: Sequence[IntArray]) -> ClientStore:
    """``store`` with clients more, called ``names``; client k holds the canaries ``numbers[k]``, one unit each."""
    real, extra = store.units, np.concatenate([np.empty(0, np.int64), *numbers])
    columns = {
        name: np.concatenate([column, np.zeros((len(extra), *column.shape[1:]), column.dtype)])
        for name, column in real.columns.items()
    }
    columns[MARK] = np.concatenate([np.full(int(real.offsets[-1]), -1, np.int64), extra])
    offsets = np.concatenate([real.offsets, real.offsets[-1] + 1 + np.arange(len(extra))]).astype(np.int64)
    clients = store.offsets[-1] + np.cumsum([len(own) for own in numbers])
    return ClientStore(
        (*store.names, *names), np.concatenate([store.offsets, clients]).astype(np.int64), Units(offsets, columns)
    )


def canaried(work: Work, canaries: Canaries, round_number: Callable[[], int]) -> Work:
    """``work`` with a family that knows the canaries.

    Args:
        round_number: tells the round that is being computed, from 1.

    Raises:
        EvaluationError: an encoder in mode example, whose layers have no rows that only a canary touches.
    """
    kind: type[_Canaried]
    if work.plan.mode == "example":
        if not any(spec.is_table for spec in work.specs):
            raise EvaluationError(
                f"family {work.family.name!r} in mode 'example' has no rows of their own for canaries",
                remedy="Audit it by `fedembed conformance`, which tries its clip and noise exactly.",
            )
        kind = _ModuleCanaries
    elif isinstance(work.family, AdditiveFamily):
        kind = _AdditiveCanaries
    else:
        kind = _VotingCanaries if isinstance(work.family, RowFamily) else _LocalCanaries
    return replace(work, family=kind(work, canaries, round_number))


class _Canaried:
    """What every family has, taken from the one that is audited."""

    def __init__(self, work: Work, canaries: Canaries, round_number: Callable[[], int]) -> None:
        self._work, self._real = work, work.family
        self._canaries, self._round = canaries, round_number
        self.name: str = self._real.name
        self.Options: type[FamilyOptions] = self._real.Options
        self.records: str = self._real.records
        self.row_domain: str | None = self._real.row_domain

    def specs(self, options: Any, rows: int) -> tuple[ParameterSpec, ...]:
        return self._real.specs(options, rows)  # type: ignore[no-any-return]

    def initial(self, options: Any, specs: Sequence[ParameterSpec], domain: RowDomain | None, seed: int) -> Parameters:
        return self._real.initial(options, specs, domain, seed)  # type: ignore[no-any-return]

    def encode(self, records: Iterable[Record], domain: RowDomain | None, options: Any) -> Units:
        return self._real.encode(records, domain, options)  # type: ignore[no-any-return]

    def export(self, parameters: Parameters, domain: RowDomain | None, options: Any) -> dict[str, EmbeddingTable]:
        return self._real.export(parameters, domain, options)  # type: ignore[no-any-return]

    def _merged(self, real: UpdateBatch, others: IntArray, planted: IntArray, numbers: IntArray) -> UpdateBatch:
        """Contributions in order: ``real``'s at the places ``others``, canary ``numbers[k]``'s at ``planted[k]``."""
        if not len(planted):
            return real
        crafted = self._canaries.contributions(numbers, self._round())
        both = concatenated([real, crafted]) if real.count else crafted
        places, count = np.concatenate([others, planted]).astype(np.int64), len(others) + len(np.unique(planted))
        if self._work.plan.mode == "none":  # no clip comes that would sum repeated rows
            return sum_groups(both, places, count, specs=self._work.update_specs)
        return _regrouped(both, places, count)


class _AdditiveCanaries(_Canaried):
    """A sum of one contribution a unit."""

    def contributions(self, parameters: Parameters, units: Units, options: Any) -> UpdateBatch:
        owners = _owners(units)
        others = np.flatnonzero(owners < 0)
        real = UpdateBatch(0)
        if len(others):
            real = self._real.contributions(parameters, ordinary(units.take(others)), options)
        planted = np.flatnonzero(owners >= 0)
        return self._merged(real, others, planted, owners[planted])

    def natural_clip(self, options: Any) -> float:
        return self._real.natural_clip(options)  # type: ignore[no-any-return]

    def server_step(self, parameters: Parameters, noised_sum: Parameters, options: Any, **how: Any) -> Parameters:
        return self._real.server_step(parameters, noised_sum, options, **how)  # type: ignore[no-any-return]

    def statistics_specs(self, options: Any, rows: int) -> tuple[ParameterSpec, ...]:
        return self._real.statistics_specs(options, rows)  # type: ignore[no-any-return]


class _LocalCanaries(_Canaried):
    """Local steps, or the SGD of a module; a client that holds a canary sends what that sends."""

    # exception: the signature of every local family.
    def local_update(
        self,
        parameters: Parameters,
        clients: Sequence[Units],
        domain: RowDomain | None,
        options: Any,
        *,
        training: LocalTraining,
        seeds: Sequence[int],
    ) -> UpdateBatch:
        held = [c.columns[MARK][c.columns[MARK] >= 0] for c in clients]
        others = np.array([k for k, own in enumerate(held) if not len(own)], dtype=np.int64)
        units, own_seeds = [ordinary(clients[k]) for k in others], [seeds[k] for k in others]
        real = UpdateBatch(0)
        if units and isinstance(self._real, LocalFamily):
            real = self._real.local_update(parameters, units, domain, options, training=training, seeds=own_seeds)
        elif units:
            from client.module_training import module_sgd

            pairs = zip(units, own_seeds, strict=True)
            real = concatenated([module_sgd(self._work, parameters, u, training, s) for u, s in pairs])
        planted = np.repeat(np.arange(len(clients)), [len(own) for own in held])
        return self._merged(real, others, planted, np.concatenate([np.empty(0, np.int64), *held]))


class _VotingCanaries(_LocalCanaries):
    """The same, for families that tell which rows a client holds."""

    def held_rows(self, units: Units) -> IntArray:
        planted = units.columns[MARK][units.columns[MARK] >= 0]
        if len(planted):
            return self._canaries.rows[planted]
        return self._real.held_rows(ordinary(units))  # type: ignore[no-any-return]


class _ModuleCanaries(_Canaried):
    """A module whose loss holds, for a canary, a linear term in its row: its gradient is what the canary sends."""

    def module(self, options: Any, rows: int) -> torch.nn.Module:
        return self._real.module(options, rows)  # type: ignore[no-any-return]

    def batch(
        self, units: Units, domain: RowDomain | None, options: Any, rng: np.random.Generator
    ) -> Mapping[str, torch.Tensor]:
        import torch

        owners = _owners(units)
        planted = np.flatnonzero(owners >= 0)
        rows = np.full((len(owners), REPEATS), self._canaries.first_row, np.int64)
        rows[planted] = self._canaries.rows[owners[planted]][:, None]
        found = dict(self._real.batch(ordinary(units), domain, options, rng))
        found["rows.canary"] = torch.from_numpy(rows)
        crafted = self._canaries.contributions(owners[planted], self._round())
        for name, table in crafted.rows.items():
            values = np.zeros((*rows.shape, table.values.shape[1]), np.float32)
            part = np.arange(len(table.ids)) - table.offsets[table.owners]
            values[planted[table.owners], part] = table.values
            found[f"canary {name}"] = torch.from_numpy(values)
        return found

    def loss(self, module: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        crafted = {name: value for name, value in batch.items() if name.startswith("canary ")}
        real = {name: v for name, v in batch.items() if name not in crafted and name != "rows.canary"}
        total: torch.Tensor = self._real.loss(module, real)
        for name, wanted in crafted.items():
            layer = module.get_submodule(name.removeprefix("canary ").removesuffix(".weight"))
            total = total - (layer(batch["rows.canary"]) * wanted).sum((1, 2))
        return total


def _regrouped(batch: UpdateBatch, places: IntArray, count: int) -> UpdateBatch:
    """Contribution k as a part of contribution ``places[k]``; rows that are named twice stay so until the clip."""
    rows, dense = {}, {}
    for name, table in batch.rows.items():
        owners = places[table.owners]
        order = np.argsort(owners, kind="stable")
        offsets = np.searchsorted(owners[order], np.arange(count + 1)).astype(np.int64)
        rows[name] = RowBatch(offsets, table.ids[order], table.values[order])
    for name, array in batch.dense.items():
        summed = segment_sum(array.reshape(batch.count, -1), places, count)
        dense[name] = summed.reshape(count, *array.shape[1:])
    return UpdateBatch(count, rows, dense)


def _owners(units: Units) -> IntArray:
    """Number of the canary that each unit is; -1 for all others. Shape (units,)."""
    filled = np.diff(units.offsets) > 0
    found = np.full(units.count, -1, np.int64)
    found[filled] = units.columns[MARK][units.offsets[:-1][filled]]
    return found


def ordinary(units: Units) -> Units:
    """Units as the real family knows them."""
    return Units(units.offsets, {name: column for name, column in units.columns.items() if name != MARK})
