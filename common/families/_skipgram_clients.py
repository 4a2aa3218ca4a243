"""Local word2vec training of many clients at once, on the rows that they touch.

Every client gets its own copy of its rows in one compact table (row key: client * V + row), so clients never meet, and
a step of a hundred small clients is one set of tensor operations. No array of this module has V rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from common.families import LocalTraining
from common.families._skipgram import Objective, Step, draw_negatives, keep_probabilities, train_step
from common.families._skipgram_layout import NOISE_BLOCKS, STEP_TOKENS, Layout, Tokens, lay_out, noise_groups
from common.seeds import Streams
from common.table import FloatArray, IntArray, RowDomain
from common.units import Units, joined
from common.update import Parameters, RowBatch, UpdateBatch

TABLES = ("centre.weight", "context.weight")
GROUP_TOKENS = 65_536  # tokens of clients that train together at most: bounds memory, and keeps rows in the cache


@dataclass(frozen=True)
class Settings:
    """Public settings: the objective, the subsampling threshold, and N, the negatives that a group of blocks shares."""

    objective: Objective
    subsample: float
    shared_negatives: int
    training: LocalTraining

    @property
    def lr(self) -> float:
        """Learning rate of this round: linear decay to 1e-4 of its start, as word2vec has it."""
        return self.training.lr * max(1.0 - self.training.progress, 1e-4)


@dataclass(frozen=True)
class _Visit:
    """Pass ``number`` over a group: the units in order, the batch of each, and the negatives of every group of blocks.

    ``negatives`` has shape (groups, N); client c's begin at ``first_group[c]``.
    """

    number: int
    units: IntArray
    batch: IntArray
    negatives: IntArray
    first_group: IntArray


@dataclass(frozen=True)
class _Group:
    """Clients that train together: their data one after the other, and their streams of random numbers."""

    owners: IntArray
    units: Units
    first_unit: IntArray
    batch_size: IntArray
    streams: Streams
    block: int

    @property
    def count(self) -> int:
        return len(self.owners)

    @property
    def client_of_unit(self) -> IntArray:
        return np.repeat(np.arange(self.count), np.diff(self.first_unit))


def train_clients(
    parameters: Parameters, clients: Sequence[Units], domain: RowDomain, settings: Settings, *, seeds: Sequence[int]
) -> UpdateBatch:
    """Local minus global rows of every client, see ``LocalFamily.local_update``."""
    parts: dict[str, list[tuple[IntArray, IntArray, FloatArray]]] = {name: [] for name in TABLES}
    for chosen, block in _grouped(clients, settings.training.batch_size):
        group = _gathered(clients, chosen, block, settings.training, seeds)
        for name, part in _train_group(parameters, group, domain, settings).items():
            parts[name].append(part)
    return UpdateBatch(len(clients), {name: _row_batch(p, len(clients)) for name, p in parts.items() if p})


def _grouped(clients: Sequence[Units], batch_size: int) -> list[tuple[list[int], int]]:
    """Clients whose steps have like sizes, and the block that suits them: it depends on the client's own data alone."""
    kinds: dict[tuple[int, int], list[int]] = {}
    for k, units in enumerate(clients):
        tokens = int(units.offsets[-1] - units.offsets[0])
        if tokens:
            step = min(STEP_TOKENS, -(-tokens * min(batch_size, units.count) // units.count))
            block = 8 if step <= 16 else 16 if step <= 64 else 32
            kinds.setdefault((block, (-(-step // block) - 1).bit_length()), []).append(k)
    groups: list[tuple[list[int], int]] = []
    for (block, _), members in sorted(kinds.items()):
        size = GROUP_TOKENS
        for k in members:
            tokens = int(clients[k].offsets[-1] - clients[k].offsets[0])
            if size + tokens > GROUP_TOKENS:
                groups.append(([], block))
                size = 0
            groups[-1][0].append(k)
            size += tokens
    return groups


def _gathered(
    clients: Sequence[Units], chosen: list[int], block: int, training: LocalTraining, seeds: Sequence[int]
) -> _Group:
    """Put the chosen clients' data in one set of arrays; with ``local_steps``, only the units those steps visit."""
    streams = Streams([seeds[k] for k in chosen])
    units = joined([clients[k] for k in chosen])
    counts = np.array([clients[k].count for k in chosen])
    batch_size = np.minimum(training.batch_size, counts)
    if training.local_steps:
        needed = batch_size * training.local_steps
        units = units.take(_cycled(counts, needed, streams) + np.repeat(np.cumsum(counts) - counts, needed))
        counts = needed
    return _Group(np.array(chosen), units, np.concatenate([[0], np.cumsum(counts)]), batch_size, streams, block)


def _cycled(counts: IntArray, needed: IntArray, streams: Streams) -> IntArray:
    """``needed[k]`` of client k's ``counts[k]`` units in random order: each comes once before any comes again."""
    first = np.cumsum(needed) - needed
    chosen = np.empty(int(needed.sum()), np.int64)
    for number in range(int((-(-needed // counts)).max())):
        sizes = np.where(number * counts < needed, counts, 0)
        order = streams.permutations(sizes, "units", number)
        place = np.arange(len(order)) + np.repeat(number * counts - (np.cumsum(sizes) - sizes), sizes)
        wanted = place < np.repeat(needed, sizes)
        chosen[(place + np.repeat(first, sizes))[wanted]] = order[wanted]
    return chosen


def _train_group(
    parameters: Parameters, group: _Group, domain: RowDomain, settings: Settings
) -> Mapping[str, tuple[IntArray, IntArray, FloatArray]]:
    rows = len(domain)
    passes = 1 if settings.training.local_steps else settings.training.local_epochs
    visits = [_visit(group, settings, domain, number) for number in range(passes)]
    owner = np.repeat(group.client_of_unit, np.diff(group.units.offsets))
    known, local = np.unique(owner * rows + group.units.columns["rows"], return_inverse=True)
    drawn, position = np.unique(np.concatenate([v.negatives.reshape(-1) for v in visits]), return_inverse=True)
    keys, place = _merged(known, drawn)
    wanted = dict(zip(TABLES, (known, keys), strict=True))
    start = {name: _compact(parameters[name], key % rows) for name, key in wanted.items()}
    tables = {name: values.to(settings.training.device, copy=True) for name, values in start.items()}
    negatives = np.split(place[position], np.cumsum([v.negatives.size for v in visits])[:-1])
    window = settings.objective.window
    for visit, ids in zip(visits, negatives, strict=True):
        tokens = _tokens(group, visit, local + 1, domain, settings)
        layout = lay_out(tokens, clients=group.count, block=group.block, window=window, padding_row=0)
        _run(tables, layout, ids.reshape(-1, settings.shared_negatives), visit.first_group, settings)
    delta = {name: table.cpu().sub_(start[name])[1:] for name, table in tables.items()}
    return {name: _changed(key, delta[name], group.owners, rows) for name, key in wanted.items()}


def _visit(group: _Group, settings: Settings, domain: RowDomain, number: int) -> _Visit:
    """Draw pass ``number``: the order of units (already drawn where ``local_steps`` rules) and the negatives."""
    counts = np.diff(group.first_unit)
    if settings.training.local_steps:
        units = np.arange(group.units.count)
    else:
        units = group.streams.permutations(counts, "units", number) + np.repeat(group.first_unit[:-1], counts)
    batches = -(-counts // group.batch_size)
    in_client = np.arange(len(units)) - np.repeat(group.first_unit[:-1], counts)
    first_batch = np.concatenate([[0], np.cumsum(batches)])
    batch = np.repeat(first_batch[:-1], counts) + in_client // np.repeat(group.batch_size, counts)
    size = np.bincount(batch, weights=np.diff(group.units.offsets)[units], minlength=first_batch[-1]).astype(np.int64)
    groups = np.array([noise_groups(size[a:b], group.block) for a, b in pairwise(first_batch)])
    each = settings.shared_negatives * groups
    drawn = draw_negatives(domain, each, group.streams, "negatives", number)
    negatives = np.repeat(np.arange(group.count) * len(domain), each) + drawn
    return _Visit(number, units, batch, negatives.reshape(-1, settings.shared_negatives), np.cumsum(groups) - groups)


def _merged(known: IntArray, drawn: IntArray) -> tuple[IntArray, IntArray]:
    """Keys of the context table: ``known``, then what is new in ``drawn``; and each drawn key's row there (from 1)."""
    place = np.searchsorted(known, drawn)
    new = known[np.minimum(place, len(known) - 1)] != drawn
    place[new] = len(known) + np.arange(int(new.sum()))
    return np.concatenate([known, drawn[new]]), place + 1


def _compact(table: FloatArray, rows: IntArray) -> torch.Tensor:
    """The rows wanted, behind a row of zeros that stands for padding."""
    out = torch.empty((len(rows) + 1, table.shape[1]))
    out[0] = 0.0
    torch.index_select(torch.from_numpy(table), 0, torch.from_numpy(rows), out=out[1:])
    return out


def _tokens(group: _Group, visit: _Visit, local: IntArray, domain: RowDomain, settings: Settings) -> Tokens:
    """Tokens of one pass after subsampling, in the order of training."""
    offsets = group.units.offsets
    lengths = np.diff(offsets)[visit.units]
    ends = np.cumsum(lengths)
    index = np.repeat(offsets[visit.units] - (ends - lengths), lengths) + np.arange(ends[-1])
    client = np.repeat(group.client_of_unit, lengths)
    sizes = np.bincount(client, minlength=group.count)
    rows, sentences = group.units.columns["rows"][index], group.units.columns["sentence"]
    chance = keep_probabilities(domain, settings.subsample)[rows]
    kept = np.flatnonzero(group.streams.uniform(sizes, "subsample", visit.number) < chance)
    radius = group.streams.uniform(sizes, "window", visit.number)[kept]
    visited = np.repeat(np.arange(len(lengths)), lengths)[kept]
    chosen = index[kept]
    return Tokens(
        words=local[chosen],
        sentence=visited * (int(sentences.max(initial=0)) + 1) + sentences[chosen],
        batch=visit.batch[visited],
        client=client[kept],
        radius=1 + (radius * settings.objective.window).astype(np.int64),
    )


def _run(
    tables: Mapping[str, torch.Tensor], layout: Layout, negatives: IntArray, first_group: IntArray, settings: Settings
) -> None:
    """All steps of one pass, in place; step s of every client that has one is one set of operations."""
    device, window = settings.training.device, settings.objective.window
    arrays = (layout.words, layout.reach, negatives)
    words, reach, draws = (torch.from_numpy(array).to(device) for array in arrays)
    middle = torch.arange(layout.block, device=device)
    around = torch.arange(-window, layout.block + window, device=device)
    for places, groups in _steps(layout, first_group):
        begin = torch.from_numpy(places).to(device)[:, None]
        step = Step(words[begin + around], reach[begin + middle], draws[torch.from_numpy(groups).to(device)])
        train_step(tables[TABLES[0]], tables[TABLES[1]], step, settings.objective, lr=settings.lr)
        for table in tables.values():
            table[0] = 0.0  # a row of NaN must not reach another client through the padding


def _steps(layout: Layout, first_group: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """First position of every block of a step, and the number of every group of negatives.

    Every client of the step gets as many blocks as the longest has, in full groups; what it lacks are empty blocks.
    """
    groups = -(-layout.blocks // NOISE_BLOCKS)
    first = first_group[:, None] + np.cumsum(groups, axis=1) - groups
    for s in range(layout.starts.shape[1]):
        active = np.flatnonzero(layout.blocks[:, s])
        count = layout.blocks[active, s, None]
        most = int(count.max())
        wide = int(groups[active, s].max())
        number = np.arange(most if wide == 1 else wide * NOISE_BLOCKS)
        places = np.where(number < count, layout.starts[active, s, None] + number * layout.block, layout.empty)
        within = np.minimum(np.arange(wide), groups[active, s, None] - 1)
        yield places.reshape(-1), (first[active, s, None] + within).reshape(-1)


def _changed(keys: IntArray, delta: torch.Tensor, owners: IntArray, rows: int) -> tuple[IntArray, IntArray, FloatArray]:
    """(client, row, delta) of the rows that moved, ordered by client of the group, then row."""
    moved = np.flatnonzero(delta.abs().amax(dim=1).numpy())  # NaN counts as moved
    moved = moved[np.argsort(keys[moved])]
    values = delta.index_select(0, torch.from_numpy(moved)).numpy()
    return owners[keys[moved] // rows], keys[moved] % rows, values


def _row_batch(parts: Sequence[tuple[IntArray, IntArray, FloatArray]], count: int) -> RowBatch:
    owners, ids, values = parts[0] if len(parts) == 1 else (np.concatenate([p[i] for p in parts]) for i in range(3))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=count))])
    if np.any(owners[1:] < owners[:-1]):
        order = np.argsort(owners, kind="stable")
        ids, values = ids[order], values[order]
    return RowBatch(offsets, ids, values)
