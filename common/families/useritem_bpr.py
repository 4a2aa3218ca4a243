"""Users and items by Bayesian personalised ranking, with stateless clients.

The item table (V, D) is shared. A user's vector is personal and kept nowhere: each round it is reconstructed from the
table by a fixed number of gradient steps from zero on the user's own pairs of an item had and an item not had; with
it fixed, the client then takes local steps on the item rows, and their change is its update.

The loss of a pair is ``-log sigmoid(x . (y_i - y_j))``. The items j are drawn uniformly from ALL items that the user
does not have in the training data: a client is never told which item is held out, and published code that leaves it
out of the negatives leaks it. Step sizes of the reconstruction are divided by the table's mean squared row length,
which is public, so that the scale of the table does not matter.

Cost follows the rows that a client touches: all clients of a call work side by side on one compact table, in which
every (client, row) pair has a row of its own.

Sources: Rendle, Freudenthaler, Gantner and Schmidt-Thieme, "BPR" (2009), section 4.3.1; Singhal, Sidahmed, Garrett,
Wu, Rush and Prakash, "Federated reconstruction" (2021), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from pydantic import Field

from common.families import FamilyOptions, LocalTraining
from common.families._interactions import encode_interactions, required
from common.families._pairs import Pairs, drawn_pairs
from common.table import EmbeddingTable, FloatArray, IntArray, RowDomain
from common.units import Record, Units
from common.update import Parameters, ParameterSpec, RowBatch, UpdateBatch, concatenated

TABLE = "items"
# A row that many pairs share in one step moves by at most this many steps' worth: a sum of hundreds of steps taken from
# the same starting point diverges.
_STEPS_A_ROW = 8.0
_ELEMENTS_A_CHUNK = 1 << 16


class BprOptions(FamilyOptions):
    """``[task]`` of the BPR family."""

    dimension: int = Field(32, ge=1, le=512, description="columns of the item table")
    reconstruction_steps: int = Field(8, ge=1, le=1000, description="gradient steps from zero to a user's vector")
    reconstruction_lr: float = Field(4.0, gt=0, description="their step size, relative to the table's scale")
    negatives: int = Field(4, ge=1, le=1000, description="items drawn for each item had, in every pass")
    ridge: float = Field(0.01, ge=0, description="weight decay of the rows in a pair, and of the user's vector")
    max_items_per_user: int = Field(512, ge=1, description="items of one user beyond this many are left out (by hash)")


class Bpr:
    """``useritem_bpr``: see the module's text. Local steps, so what it protects is the client."""

    name = "useritem_bpr"
    Options = BprOptions
    records = "interactions"
    row_domain = "items"

    def specs(self, options: BprOptions, rows: int) -> tuple[ParameterSpec, ...]:
        """The item table (V, D)."""
        return (ParameterSpec(TABLE, (rows, options.dimension), self.row_domain),)

    def initial(
        self, options: BprOptions, specs: Sequence[ParameterSpec], domain: RowDomain | None, seed: int
    ) -> Parameters:
        """Gaussian rows of expected squared length 1."""
        values = np.random.default_rng(seed).standard_normal(specs[0].shape) / np.sqrt(options.dimension)
        return {TABLE: values.astype(np.float32)}

    def encode(self, records: Iterable[Record], domain: RowDomain | None, options: BprOptions) -> Units:
        """As ``useritem`` does: columns ``items`` and ``users``."""
        return encode_interactions(records, domain, max_items_per_user=options.max_items_per_user)

    def local_update(
        self,
        parameters: Parameters,
        clients: Sequence[Units],
        domain: RowDomain | None,
        options: BprOptions,
        *,
        training: LocalTraining,
        seeds: Sequence[int],
    ) -> UpdateBatch:
        """Change of the item rows that each client's pairs touch."""
        table = parameters[TABLE]
        parts: list[RowBatch] = []
        for lo, hi in _chunks(clients):
            with np.errstate(over="ignore"):
                parts.append(_train(table, clients[lo:hi], options, training, seeds[lo:hi]))
        batches = [UpdateBatch(len(part.offsets) - 1, {TABLE: part}) for part in parts]
        return concatenated(batches) if batches else UpdateBatch(0)

    def held_rows(self, units: Units) -> IntArray:
        """The items had."""
        return units.columns["items"].astype(np.int64)

    def export(
        self, parameters: Parameters, domain: RowDomain | None, options: BprOptions
    ) -> dict[str, EmbeddingTable]:
        """The item table."""
        return {TABLE: EmbeddingTable(required(domain).keys, parameters[TABLE])}


def _chunks(clients: Sequence[Units]) -> Iterator[tuple[int, int]]:
    """Ranges of clients with a bounded number of elements: memory, nothing else, depends on it."""
    start, held = 0, 0
    for k, client in enumerate(clients):
        if k > start and held + client.offsets[-1] > _ELEMENTS_A_CHUNK:
            yield start, k
            start, held = k, 0
        held += int(client.offsets[-1])
    if clients:
        yield start, len(clients)


def _train(
    table: FloatArray, clients: Sequence[Units], options: BprOptions, training: LocalTraining, seeds: Sequence[int]
) -> RowBatch:
    pairs = drawn_pairs(clients, len(table), options.negatives, training=training, seeds=seeds)
    users = _user_vectors(table, pairs, options)
    owner = pairs.client[pairs.lists.owners] * len(table)
    keys = [owner + pairs.lists.items, *((owner[:, None] + drawn).ravel() for drawn in pairs.negatives)]
    touched, places = np.unique(np.concatenate(keys), return_inverse=True)
    had, *drawn = np.split(places, np.cumsum([len(part) for part in keys])[:-1])
    ids = touched % len(table)
    local = torch.from_numpy(table[ids])
    drawn = [part.reshape(-1, options.negatives) for part in drawn]
    for step in range(int(pairs.steps.max(initial=0))):
        for number, taking in pairs.taking_part(step):
            own = np.flatnonzero(taking[pairs.lists.owners])
            _step(local, had[own], drawn[number][own], users[pairs.lists.owners[own]], options=options, lr=training.lr)
    offsets = np.searchsorted(touched, np.arange(len(clients) + 1) * len(table)).astype(np.int64)
    return RowBatch(offsets, ids, local.numpy() - table[ids])


def _gain(margin: FloatArray) -> FloatArray:
    """``sigmoid(-margin)``: how far a pair is from being ordered well."""
    return (0.5 - 0.5 * np.tanh(0.5 * margin)).astype(np.float32)


def _user_vectors(table: FloatArray, pairs: Pairs, options: BprOptions) -> FloatArray:
    """Reconstruct every user's vector from the table, shape (S, D): full-batch gradient steps from zero."""
    lists = pairs.lists
    users = np.zeros((len(lists.units), table.shape[1]), dtype=np.float32)
    if not len(lists.items):
        return users
    had, drawn = table[lists.items], table[pairs.first]
    scale = max(float(np.mean(np.square(table, dtype=np.float64).sum(axis=1))), float(np.finfo(np.float32).tiny))
    lr = np.float32(options.reconstruction_lr / scale)
    sizes = np.diff(lists.offsets)[:, None].astype(np.float32)
    for _ in range(options.reconstruction_steps):
        x = users[lists.owners]
        margin = np.einsum("rd,rd->r", x, had)[:, None] - np.einsum("rd,rnd->rn", x, drawn)
        gain = _gain(margin) / options.negatives
        pull = gain.sum(axis=1)[:, None] * had - np.einsum("rn,rnd->rd", gain, drawn)
        users += lr * np.add.reduceat(pull, lists.offsets[:-1], axis=0) / sizes
        users *= np.float32(1.0 / (1.0 + options.reconstruction_lr * options.ridge))
    return users


def _step(
    local: torch.Tensor, had: IntArray, drawn: IntArray, x: FloatArray, *, options: BprOptions, lr: float
) -> None:
    """One step on R pairs-of-many, in place: ``had`` (R,) and ``drawn`` (R, N) are places in the compact table."""
    table = local.numpy()
    yes, no = table[had], table[drawn]
    gain = _gain(np.einsum("rd,rd->r", x, yes)[:, None] - np.einsum("rd,rnd->rn", x, no)) / options.negatives
    up = gain.sum(axis=1)[:, None] * x - options.ridge * yes
    down = -gain[:, :, None] * x[:, None, :] - options.ridge / options.negatives * no
    places = np.concatenate([had, drawn.ravel()])
    change = np.concatenate([up, down.reshape(-1, x.shape[1])])
    weight = np.concatenate([np.ones(len(had)), np.full(drawn.size, 1.0 / options.negatives)])
    shared = np.bincount(places, weights=weight, minlength=len(local))[places]
    scale = lr * np.minimum(1.0, _STEPS_A_ROW / np.maximum(shared, 1.0))
    local.index_add_(0, torch.from_numpy(places), torch.from_numpy((change * scale[:, None]).astype(np.float32)))


FAMILY = Bpr()
