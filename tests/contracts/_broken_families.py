"""Families that break one promise each, with the name of the check that must notice."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from common import families
from common.update import RowBatch, UpdateBatch, scaled, squared_norms

Additive: Any = type(families.load("spectral"))
Trained: Any = type(families.load("word2vec"))
MAIN = "rows"  # the table of the additive family


def _with_rows(batch: UpdateBatch, name: str, **changes: Any) -> UpdateBatch:
    table = batch.rows[name]
    fields = {"offsets": table.offsets, "ids": table.ids, "values": table.values} | changes
    return UpdateBatch(batch.count, {**batch.rows, name: RowBatch(**fields)}, batch.dense)


class InitialHasAnExtraRow(Additive):
    def initial(self, options, specs, domain, seed):
        return {n: np.vstack([a, a[:1]]) for n, a in super().initial(options, specs, domain, seed).items()}


class InitialIgnoresTheSeed(Additive):
    def initial(self, options, specs, domain, seed):
        return super().initial(options, specs, domain, 0)


class InitialDrawsGlobally(Additive):
    def initial(self, options, specs, domain, seed):
        return super().initial(options, specs, domain, seed + int(np.random.random() < 2) - 1)


class EncodeRaisesOnUnknownKeys(Trained):
    def encode(self, records, domain, options):
        records = list(records)
        units = super().encode(records, domain, options)
        assert all(np.diff(units.offsets) > 0), "unknown word"
        return units


class EncodeDropsEmptyUnits(Trained):
    def encode(self, records, domain, options):
        units = super().encode(records, domain, options)
        return units.take(np.flatnonzero(np.diff(units.offsets) > 0))


class ExportsOtherKeys(Additive):
    def export(self, parameters, domain, options):
        tables = super().export(parameters, domain, options)
        return {n: type(t)(t.keys[::-1], t.vectors) for n, t in tables.items()}


class ExportsNothing(Additive):
    def export(self, parameters, domain, options):
        return {}


class ContributionsAreNotNormalised(Additive):
    def contributions(self, parameters, units, options):
        return scaled(super().contributions(parameters, units, options), np.diff(units.offsets).astype(float))


class ContributionsShareTheClip(Additive):
    def contributions(self, parameters, units, options):
        batch = super().contributions(parameters, units, options)
        return scaled(batch, np.full(batch.count, 1 / max(1.0, float(np.sqrt(squared_norms(batch).sum())))))


class ContributionsDependOnTheFirstUnit(Additive):
    def contributions(self, parameters, units, options):
        batch = super().contributions(parameters, units, options)
        return scaled(batch, np.full(batch.count, 1 / (1.0 + float(units.offsets[1]))))


class ContributionsAreUnsorted(Additive):
    def contributions(self, parameters, units, options):
        batch = super().contributions(parameters, units, options)
        table = batch.rows[MAIN]
        order = np.lexsort((-table.ids, table.owners))
        return _with_rows(batch, MAIN, ids=table.ids[order], values=table.values[order])


class ContributionsOfNothingAreNaN(Additive):
    def contributions(self, parameters, units, options):
        batch = super().contributions(parameters, units, options)
        table = batch.rows[MAIN]
        values = np.vstack([table.values, np.full((1, table.values.shape[1]), np.nan, np.float32)])
        offsets = np.concatenate([table.offsets[:-1], [len(values)]])
        return _with_rows(batch, MAIN, offsets=offsets, ids=np.append(table.ids, 39), values=values)


class ContributionsAreDense(Additive):
    """Every unit sends every row: correct sums at a cost that follows V."""

    def contributions(self, parameters, units, options):
        batch = super().contributions(parameters, units, options)
        table, rows = batch.rows[MAIN], len(parameters[MAIN])
        values = np.zeros((batch.count * rows, table.values.shape[1]), np.float32)
        values[table.owners * rows + table.ids] = table.values
        ids = np.tile(np.arange(rows), batch.count)
        return _with_rows(batch, MAIN, offsets=np.arange(batch.count + 1) * rows, ids=ids, values=values)


class ServerStepEditsItsInput(Additive):
    def server_step(self, parameters, noised_sum, options, *, noise_stddev, final):
        step = super().server_step(parameters, noised_sum, options, noise_stddev=noise_stddev, final=final)
        noised_sum[MAIN] += 1
        return step


class ServerStepDividesByTheSum(Additive):
    def server_step(self, parameters, noised_sum, options, *, noise_stddev, final):
        with np.errstate(all="ignore"):
            return {MAIN: (noised_sum[MAIN] / np.linalg.norm(noised_sum[MAIN])).astype(np.float32)}


class UpdateDependsOnNeighbours(Trained):
    def local_update(self, parameters, clients, domain, options, *, training, seeds):
        batch = super().local_update(parameters, clients, domain, options, training=training, seeds=seeds)
        return scaled(batch, np.full(batch.count, 1 / len(clients)))


class UpdateUsesOneSeed(Trained):
    def local_update(self, parameters, clients, domain, options, *, training, seeds):
        seeds = [seeds[0]] * len(seeds)
        return super().local_update(parameters, clients, domain, options, training=training, seeds=seeds)


class UpdateIgnoresItsSeed(Trained):
    def local_update(self, parameters, clients, domain, options, *, training, seeds):
        seeds = [0] * len(seeds)
        return super().local_update(parameters, clients, domain, options, training=training, seeds=seeds)


class EmptyClientsMove(Trained):
    def local_update(self, parameters, clients, domain, options, *, training, seeds):
        spare = [c if c.count else self.encode([_filler()], domain, options) for c in clients]
        return super().local_update(parameters, spare, domain, options, training=training, seeds=seeds)


class UpdateIsOutOfRange(Trained):
    def local_update(self, parameters, clients, domain, options, *, training, seeds):
        batch = super().local_update(parameters, clients, domain, options, training=training, seeds=seeds)
        name = next(iter(batch.rows))
        return _with_rows(batch, name, ids=batch.rows[name].ids + 20)


class UpdateLearnsNothing(Trained):
    def local_update(self, parameters, clients, domain, options, *, training, seeds):
        batch = super().local_update(parameters, clients, domain, options, training=training, seeds=seeds)
        return scaled(batch, np.full(batch.count, 1e-3))


class UpdateIgnoresTheLearningRate(Trained):
    def local_update(self, parameters, clients, domain, options, *, training, seeds):
        batch = super().local_update(parameters, clients, domain, options, training=training, seeds=seeds)
        return scaled(batch, np.full(batch.count, 0.1 / training.lr))


class ModuleHasOtherNames(Trained):
    def module(self, options, rows):
        return torch.nn.ModuleDict({"left": torch.nn.Embedding(rows, 8), "right": torch.nn.Embedding(rows, 8)})


class BatchDrawsGlobally(Trained):
    def batch(self, units, domain, options, rng):
        return super().batch(units, domain, options, np.random.default_rng())


class BatchHidesItsRows(Trained):
    """Row numbers under another name are not renumbered, so the compact table is read at the wrong places."""

    def batch(self, units, domain, options, rng):
        batch = super().batch(units, domain, options, rng)
        return {key.replace("rows.context", "index.context"): tensor for key, tensor in batch.items()}

    def loss(self, module, batch):
        named = {key.replace("index.context", "rows.context"): tensor for key, tensor in batch.items()}
        return super().loss(module, named)


class LossIsReduced(Trained):
    def loss(self, module, batch):
        return super().loss(module, batch).mean()


class LossCouplesUnits(Trained):
    def loss(self, module, batch):
        losses = super().loss(module, batch)
        return losses + 0.1 * losses.mean()


class LossDependsOnTheOrder(Trained):
    def loss(self, module, batch):
        losses = super().loss(module, batch)
        return losses + 0.1 * losses.roll(1)


class LossOfNothingIsNotZero(Trained):
    def loss(self, module, batch):
        return super().loss(module, batch) + 1.0


class LossFlattensItsLookups(Trained):
    """The first axis of a lookup no longer counts units, so the gradients of one unit cannot be told apart."""

    def loss(self, module, batch):
        rows = batch["rows.context.weight"]
        flat = module.context(rows.reshape(-1)).reshape(*rows.shape, -1)
        return super().loss(module, batch) + 0.01 * flat.square().sum((1, 2))


class LossDecaysTheWholeTable(Trained):
    """Weight decay in the loss touches every row of the table, outside the lookups."""

    def loss(self, module, batch):
        return super().loss(module, batch) + 0.01 * module.context.weight.square().sum()


def _filler() -> Any:
    from common.units import Record

    return Record("c", "u", "waa wab wac wad " * 50)


BROKEN: list[tuple[Any, str]] = [
    (InitialHasAnExtraRow(), "initial"),
    (InitialIgnoresTheSeed(), "initial"),
    (InitialDrawsGlobally(), "initial"),
    (EncodeRaisesOnUnknownKeys(), "encode"),
    (EncodeDropsEmptyUnits(), "encode"),
    (ExportsOtherKeys(), "export"),
    (ExportsNothing(), "export"),
    (ContributionsAreNotNormalised(), "contribution norms"),
    (ContributionsShareTheClip(), "contributions"),
    (ContributionsDependOnTheFirstUnit(), "additive over chunks"),
    (ContributionsAreUnsorted(), "contributions"),
    (ContributionsOfNothingAreNaN(), "contributions"),
    (ContributionsAreDense(), "contributions"),
    (ServerStepEditsItsInput(), "server step"),
    (ServerStepDividesByTheSum(), "server step"),
    (UpdateDependsOnNeighbours(), "local update"),
    (UpdateUsesOneSeed(), "local update"),
    (UpdateIgnoresItsSeed(), "local update"),
    (EmptyClientsMove(), "local update"),
    (UpdateIsOutOfRange(), "local update"),
    (UpdateLearnsNothing(), "learns"),
    (UpdateIgnoresTheLearningRate(), "bounded work"),
    (ModuleHasOtherNames(), "module"),
    (BatchDrawsGlobally(), "batch"),
    (BatchHidesItsRows(), "compact module"),
    (LossIsReduced(), "loss"),
    (LossCouplesUnits(), "loss"),
    (LossDependsOnTheOrder(), "loss"),
    (LossOfNothingIsNotZero(), "loss"),
    (LossFlattensItsLookups(), "unit gradients"),
    (LossDecaysTheWholeTable(), "unit gradients"),
]
