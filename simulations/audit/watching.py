"""An audited run: trained by the very code of node and coordinator; what each adversary sees is written down."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.app import build_app
from client.ledger import Ledger
from client.policy import Policy
from client.session import Session
from common import wire
from common.errors import FedembedError, WireError
from common.evaluation.view import RoundView, View
from common.families import AdditiveFamily
from common.privacy.private_sum import Released
from common.table import EmbeddingTable, FloatArray, IntArray
from common.units import ClientStore, Units
from common.update import RowBatch, UpdateBatch, concatenated
from common.work import Work
from server.exchange import Exchange
from server.progress import Reporter
from server.run import FederatedRun
from simulations.audit.canaries import Canaries
from simulations.audit.planting import Planted
from simulations.audit.rehearsal import with_rehearsal
from simulations.engine import InProcessGrid
from simulations.federation import GivenStore
from simulations.progress import Silent

MOST_WATCHED_CLIENTS, MOST_WATCHED_ROUNDS = 40, 12  # whose updates are kept whole: single updates can be tables


@dataclass(frozen=True)
class Watched:
    """What an audited run showed.

    Attributes:
        sums: shape (arrays, m), how much of each canary the sums of all rounds held in every array, in clips; where a
            canary alternates, its signs are taken back.
        supports: shape (rounds, m), 1 where its row came at all.
        updates: the same of the one update of each round that would hold it; ``None`` where the coordinator sees no
            single update.
        table: shape (arrays, m), trace of each canary in the final parameters; one array where columns were mixed.
        view: what attacks on the real clients may look at; rows of canaries are cut off.
    """

    sums: NDArray[np.float64]
    supports: NDArray[np.float64]
    updates: NDArray[np.float64] | None
    table: NDArray[np.float64]
    view: View


@dataclass
class _Notes:
    """Collected while the run goes on."""

    planted: Planted
    round: int = 1
    sums: list[NDArray[np.float64]] = field(default_factory=list)
    supports: list[NDArray[np.float64]] = field(default_factory=list)
    updates: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    updates_seen: bool = False
    rounds: list[RoundView] = field(default_factory=list)
    participants: list[IntArray] = field(default_factory=list)
    kept: list[tuple[IntArray, UpdateBatch]] = field(default_factory=list)

    def round_left(self, number: int, released: Released) -> None:
        """The coordinator has the sum of a round."""
        canaries, rows = self.planted.canaries, self.planted.real_rows
        self.sums.append(canaries.projections(released, number) * _signs(canaries, number))
        self.supports.append(canaries.supports(released))
        seen = np.unique(np.concatenate([np.empty(0, np.int64), *self.participants]))
        if not len(seen) and self.planted.work.plan.sampling == "full":
            seen = np.arange(self.planted.real_clients)
        clients = np.concatenate([np.empty(0, np.int64), *(c for c, _ in self.kept)])
        if number <= MOST_WATCHED_ROUNDS:
            total = _cut_sum(released, rows)
            self.rounds.append(RoundView(seen, total=total))
            if len(clients):
                one = concatenated([batch for _, batch in self.kept])
                self.rounds.append(RoundView(clients, updates=_cut_batch(one, rows)))
        self.round, self.participants, self.kept = number + 1, [], []

    def answered(self, reply: Any) -> None:
        """The coordinator has a node's answer, a message of Flower."""
        try:
            payload = wire.unpack(reply.content)
            clients = payload.array("clients", np.int64, 1)
            status = payload.array("status", np.int8, 1)
            done = clients[(status == wire.OK) | (status == wire.LATE)]
            batch = wire.decode_updates(payload, self.planted.work.update_specs, len(done))
        except WireError:
            return  # nothing of single clients is in it
        real = np.flatnonzero(done < self.planted.real_clients)
        self.participants.append(done[real])
        self._of_canaries(done, batch)
        wanted = real[: MOST_WATCHED_CLIENTS - sum(len(c) for c, _ in self.kept)]
        if len(wanted) and self.round <= MOST_WATCHED_ROUNDS:
            self.kept.append((done[wanted], _chosen(batch, wanted)))

    def _of_canaries(self, clients: IntArray, batch: UpdateBatch) -> None:
        """Each canary's trace in the update of the client that would hold it."""
        canaries = self.planted.canaries
        found = self.updates.setdefault(self.round, np.zeros((len(canaries.specs), len(canaries))))
        holder = np.full(int(self.planted.clients_of.max()) + 1, -1, np.int64)
        holder[clients[clients < len(holder)]] = np.flatnonzero(clients < len(holder))
        places = holder[self.planted.clients_of]
        chosen = np.flatnonzero(places >= 0)
        self.updates_seen |= bool(len(chosen))
        found[:, chosen] = canaries.traces(batch, places[chosen], chosen) * _signs(canaries, self.round)[:, chosen]


def watch(
    planted: Planted, reporter: Reporter | None = None, *, witness: Callable[[Any], None] = lambda reply: None
) -> Watched:
    """Train what was planted and note what adversaries see. Nothing of the run is kept on disk.

    Args:
        witness: is shown every answer to the coordinator too.

    Raises:
        FedembedError: the run failed.
    """
    notes = _Notes(planted)

    def answered(reply: Any) -> None:
        notes.answered(reply)
        witness(reply)

    work = planted.with_canaries(lambda: notes.round)
    final = trained(work, planted.store, reporter or Silent(), answered=answered, left=notes.round_left)
    return _watched(notes, work, final)


def trained(
    work: Work,
    store: ClientStore,
    reporter: Reporter,
    *,
    answered: Callable[[Any], None] = lambda reply: None,
    left: Callable[[int, Released], None] = lambda number, released: None,
) -> dict[str, FloatArray]:
    """Final parameters of a run whose nodes hold ``store``. Nothing of it is kept on disk.

    Args:
        answered: is shown every answer to the coordinator.
        left: is shown the sum of every round.

    Raises:
        FedembedError: the run failed.
    """
    raised: list[Exception] = []
    with tempfile.TemporaryDirectory() as folder, Ledger.open(Path(folder) / "ledger.sqlite") as ledger:
        session = Session(
            GivenStore(store),
            ledger,
            Policy.permissive(),
            keeps_table=True,
            simulated=True,
            work_of=lambda scenario, domain: work,
        )
        grid = InProcessGrid(build_app(lambda context: session, raised.append), [{}], witness=answered)
        exchange = Exchange(grid, work.scenario.federation.round_timeout_s)
        run = FederatedRun(work, exchange, Path(folder) / "state", reporter, left)
        try:
            return run.execute().state.parameters
        except FedembedError as error:
            causes = [*raised, *grid.raised]
            raise (causes[-1] if causes else error) from error


def _watched(notes: _Notes, work: Work, final: dict[str, FloatArray]) -> Watched:
    planted = notes.planted
    values = planted.work.family.initial(work.options, work.specs, work.domain, work.scenario.seed)
    start = {name: np.asarray(value, dtype=np.float32) for name, value in values.items()}
    tables = planted.work.family.export(final, work.domain, work.options)
    main = next(iter(tables.values()), None)
    rows, view_table = planted.real_rows, None
    if main is not None:
        view_table = EmbeddingTable(main.keys[:rows], main.vectors[:rows])
    prior = np.ones(rows) if work.domain is None else work.domain.probabilities[:rows]
    before = next(iter(planted.work.family.export(start, work.domain, work.options).values()), None)
    return Watched(
        sums=np.sum(notes.sums, axis=0),
        supports=np.array(notes.supports),
        updates=np.sum(list(notes.updates.values()), axis=0) if notes.updates_seen else None,
        table=_traces(planted, final, start, main),
        view=View(
            clients=planted.real_clients,
            prior=prior,
            rounds=with_rehearsal(tuple(notes.rounds), planted, start),
            table=view_table,
            start=None if before is None else before.vectors[:rows],
        ),
    )


def _signs(canaries: Canaries, number: int) -> NDArray[np.float64]:
    """-1 in the rounds in which a canary's sign is turned; shape (1, m)."""
    return np.where(canaries.shares(number).sum(axis=0) < 0, -1.0, 1.0)[None]


def _traces(
    planted: Planted, final: dict[str, FloatArray], start: dict[str, FloatArray], main: EmbeddingTable | None
) -> NDArray[np.float64]:
    """Trace of each canary in the final parameters: along its direction, or by length where columns were mixed."""
    canaries = planted.canaries
    if isinstance(planted.work.family, AdditiveFamily) and main is not None:
        return np.linalg.norm(main.vectors[canaries.rows].astype(np.float64), axis=1)[None]
    moved = {name: final[name] - value for name, value in start.items()}
    tables: dict[str, tuple[IntArray | None, FloatArray]] = {}
    tables |= {spec.name: (None, moved[spec.name]) for spec in canaries.specs if spec.is_table}
    dense = {spec.name: moved[spec.name] for spec in canaries.specs if not spec.is_table}
    return canaries.projections(Released(tables, dense), 1)


def _chosen(batch: UpdateBatch, wanted: IntArray) -> UpdateBatch:
    """The contributions with these numbers."""
    rows = {}
    for name, table in batch.rows.items():
        taken = Units(table.offsets, {"ids": table.ids, "values": table.values}).take(wanted)
        rows[name] = RowBatch(taken.offsets, taken.columns["ids"], taken.columns["values"])
    return UpdateBatch(len(wanted), rows, {name: array[wanted] for name, array in batch.dense.items()})


def _cut_batch(batch: UpdateBatch, rows: int) -> UpdateBatch:
    """Without the rows of canaries."""
    cut = {}
    for name, table in batch.rows.items():
        real = table.ids < rows
        offsets = np.concatenate([[0], np.cumsum(real)])[table.offsets].astype(np.int64)
        cut[name] = RowBatch(offsets, table.ids[real], table.values[real])
    return UpdateBatch(batch.count, cut, batch.dense)


def _cut_sum(released: Released, rows: int) -> Released:
    """Without the rows of canaries."""
    cut: dict[str, tuple[IntArray | None, FloatArray]] = {}
    for name, (ids, values) in released.rows.items():
        real = slice(None, rows) if ids is None else ids < rows
        cut[name] = (None if ids is None else ids[real], values[real])
    return Released(cut, released.dense)
