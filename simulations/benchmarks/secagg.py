"""Secure aggregation: time beside the floor of the same primitives and Flower's SecAgg+, bytes, selection, dropouts.

CPU time of one thread; ratios come from work done in turns in one process, so that a busy machine slows both sides.
A client's time is the sum of the hops' medians over clients. Graphs as ``graph.degree`` gives them for a tenth of the
clients colluding and a tenth dropping out. The floor (``_secagg_floor``) is one client's or server's primitive
operations and nothing else. Flower's side is its legacy mod and workflow in the same process (``_secagg_flower``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np

from common.secagg.graph import degree
from common.secagg.terms import PhaseTerms
from simulations.benchmarks import _peers
from simulations.benchmarks._harness import Row, at_least, at_most, reported, unjudged
from simulations.benchmarks._secagg_round import (
    CLIENT_FLOOR,
    DOWN,
    HOPS,
    SERVER_FLOOR,
    UP,
    Outcome,
    Setting,
    run,
)
from simulations.benchmarks._secagg_selection import Table, coverage_rows, upload_rows

FLOWER = "simulations.benchmarks._secagg_flower"
COLLUDING, DROPPING = 0.1, 0.1
BITS = 16
MOST_CLIENT, MOST_SERVER = 1.5, 2.0  # times the floor
MOST_BYTES = 2.1  # a parameter
LEAST_CLIENT, LEAST_SERVER, LEAST_UPLOAD = 5.0, 25.0, 60.0
SAMPLE = 40  # clients that mask where not all can


@dataclass(frozen=True)
class Size:
    """A cohort and a vector; how often the round is run; whether every client masks and the sum is opened."""

    clients: int
    length: int
    repetitions: int
    whole: bool = True


SIZES = (
    Size(10, 100_000, 7),
    Size(10, 1_000_000, 5),
    Size(10, 10_000_000, 3),
    Size(100, 100_000, 3),
    Size(100, 1_000_000, 2),
    Size(100, 10_000_000, 1),
    Size(1000, 100_000, 1),
    Size(1000, 1_000_000, 1),
    Size(1000, 10_000_000, 1, whole=False),
)
BYTES_AT = 1_000_000
TABLE = Table(rows=1_000_000, columns=64, selected=2_000, clients=100, degree=32, threshold=17)
COHORTS = (100, 1_000, 10_000)


@dataclass(frozen=True)
class Peers:
    """What both sides of the comparison with Flower do."""

    clients: int
    degree: int
    threshold: int
    length: int
    repetitions: int


PEERS = Peers(clients=100, degree=14, threshold=8, length=1_000_000, repetitions=2)
DROPOUTS = Size(1000, 100_000, 1)
GONE = 0.3


class SecaggBenchmark:
    """See the module."""

    name = "secagg"

    def run(self, quick: bool) -> list[Row]:
        """Measure; ``quick``: tiny cohorts and vectors, and no bar but that the sums are exact."""
        if quick:
            return _quick()
        rows = [row for size in SIZES for row in _sizes(size)]
        rows += _against_flower(PEERS)
        rows += upload_rows(TABLE, LEAST_UPLOAD) + coverage_rows(TABLE.rows, COHORTS)
        return rows + _dropouts(DROPOUTS)


def _quick() -> list[Row]:
    timed = [row for size in (Size(6, 500, 1), Size(40, 300, 1, whole=False)) for row in _sizes(size)]
    timed += _against_flower(replace(PEERS, clients=6, degree=4, threshold=3, length=500, repetitions=1))
    timed += upload_rows(Table(rows=2_000, columns=4, selected=20, clients=5, degree=4, threshold=3), LEAST_UPLOAD)
    timed += coverage_rows(2_000, (50,))
    return unjudged(timed) + [row for row in _dropouts(Size(30, 300, 1)) if row.bar]


def _sizes(size: Size) -> list[Row]:
    """Time against the floor, and bytes."""
    k, t = degree(size.clients, colluding=COLLUDING, dropping=DROPPING)
    setting = Setting(
        size.clients,
        k,
        t,
        (PhaseTerms("values", BITS, size.length),),
        least=max(t + 1, int((1 - DROPPING) * size.clients)),
        masking=None if size.whole else min(SAMPLE, size.clients),
        floor_every=max(1, size.clients // 100),
    )
    found = [run(setting, seed) for seed in range(size.repetitions)]
    _require_exact(found)
    name = f"n={size.clients:,} d={size.length:,} k={k} t={t}"
    return _client_rows(name, size, found) + (_server_rows(name, size, found) if size.whole else [])


def _client_rows(name: str, size: Size, found: list[Outcome]) -> list[Row]:
    what = "client" if size.whole else f"{min(SAMPLE, size.clients)} clients, up to the masked vector"
    own = np.array([outcome.client_ms() for outcome in found])
    floor = np.array([outcome.client_ms(CLIENT_FLOOR) for outcome in found])
    rows = [
        reported(f"{name}: {what}, CPU ms", float(np.median(own))),
        reported(f"{name}: {what}, floor, CPU ms", float(np.median(floor))),
        at_most(f"{name}: {what} / floor", float(np.median(own / floor)), MOST_CLIENT),
    ]
    if size.whole:
        sent = found[0].bytes_of(UP)
        rows.append(at_most(f"{name}: bytes a client sends, a parameter", sent / size.length, MOST_BYTES))
        rows += _hop_bytes(name, found[0]) if size.length == BYTES_AT else []
    return rows


def _hop_bytes(name: str, outcome: Outcome) -> list[Row]:
    return [
        reported(f"{name}: bytes {way}, {message}", outcome.bytes_of(way, message))
        for way in (UP, DOWN)
        for side, message in outcome.sizes
        if side == way
    ]


def _server_rows(name: str, size: Size, found: list[Outcome]) -> list[Row]:
    own = np.array([outcome.total_ms() for outcome in found]) / size.clients
    floor = np.array([outcome.total_ms(SERVER_FLOOR) for outcome in found]) / size.clients
    return [
        reported(f"{name}: server, CPU ms a client", float(np.median(own))),
        reported(f"{name}: server, floor, CPU ms a client", float(np.median(floor))),
        at_most(f"{name}: server / floor", float(np.median(own / floor)), MOST_SERVER),
    ]


def _against_flower(peers: Peers) -> list[Row]:
    """Both protocols on one graph, in turns, in a process of their own: Flower keeps state for its process."""
    found = _peers.run_ours(FLOWER, asdict(peers))
    name = f"n={peers.clients} d={peers.length:,} k={peers.degree} t={peers.threshold}"
    rows = [
        reported(f"{name}: {side}, CPU ms{' a client' * side.endswith('server')}", float(np.median(found[side])))
        for side in ("client", "flower client", "server", "flower server")
    ]
    rows.append(reported(f"{name}: bytes a client sends, flower", float(np.median(found["flower upload"]))))
    for side, least in (("client", LEAST_CLIENT), ("server", LEAST_SERVER)):
        ratio = float(np.median(np.array(found[f"flower {side}"]) / np.array(found[side])))
        rows.append(at_least(f"{name}: {side}, flower / ours", ratio, least))
    return rows


def _dropouts(size: Size) -> list[Row]:
    """Three tenths of the clients fall silent, a fifth of them in each hop; the round has to end, the sum be exact."""
    k, t = degree(size.clients, colluding=COLLUDING, dropping=GONE)
    order = np.random.default_rng(0).permutation(size.clients)[: round(GONE * size.clients)].tolist()
    gone = {hop: frozenset(order[i :: len(HOPS)]) for i, hop in enumerate(HOPS)}
    least = round((1 - GONE) * size.clients)
    outcome = run(Setting(size.clients, k, t, (PhaseTerms("values", BITS, size.length),), least=least, gone=gone))
    name = f"n={size.clients:,} d={size.length:,} k={k} t={t}, {GONE:.0%} drop out over all hops"
    return [
        at_most(f"{name}: wrong values in the sum", outcome.wrong, 0),
        reported(f"{name}: clients in the sum", outcome.survivors),
        reported(f"{name}: client, CPU ms", outcome.client_ms()),
        reported(f"{name}: server, CPU s", outcome.total_ms() / 1e3),
        reported(f"{name}: all clients and the server, CPU s", (outcome.total_ms("client") + outcome.total_ms()) / 1e3),
        reported(f"{name}: bytes a client sends", outcome.bytes_of(UP)),
        reported(f"{name}: bytes a client receives", outcome.bytes_of(DOWN)),
        reported(f"{name}: bytes of all clients, both ways", outcome.carried()),
    ]


def _require_exact(found: list[Outcome]) -> None:
    if any(outcome.wrong for outcome in found):
        raise ArithmeticError("a sum is not that of the clients' vectors")


BENCHMARK = SecaggBenchmark()
