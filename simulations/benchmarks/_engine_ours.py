"""Our side of the engine benchmark, in a process of its own: ``python -m simulations.benchmarks._engine_ours JOB``.

JOB is a JSON object (``EngineJob``); one JSON object goes to stdout. The work takes the whole product path: server
loop, cohort, messages of Flower's own classes, session, ledger, local training, checked replies, sum, step, journal.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from client.ledger import Ledger
from client.policy import Policy
from client.session import Session
from client.training import local_training
from common.config import Scenario, build_scenario
from common.table import RowDomain
from common.units import ClientStore, Units
from common.work import Work, work_for
from server.exchange import Exchange
from server.run import FederatedRun
from simulations.federation import GivenStore

TIMEOUT_S = 3600.0
MEDIAN_OVER = 100


@dataclass(frozen=True)
class EngineJob:
    """What one process measures.

    Attributes:
        data: an ``.npz`` with ``tokens`` (clients, sentences, tokens) and ``frequencies`` (V,).
        dimensions: D.
        cohort: expected clients a round; all of them where it equals their number.
        rounds: rounds, the first of which is not timed.
        steps: local steps, one sentence each.
        negatives: negative rows that the pairs of a step share.
        window: tokens a side at most.
    """

    data: str
    dimensions: int
    cohort: int
    rounds: int
    steps: int
    negatives: int
    window: int


class RoundClock:
    """A reporter that notes when each round ended and how many clients it computed."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.clients: list[int] = []

    def preparing(self, message: str) -> None:
        """Not timed."""

    def round_finished(self, round: int, rounds: int, facts: Mapping[str, object]) -> None:
        self.ends.append(time.perf_counter())
        self.clients.append(int(str(facts.get("ok", 0))))

    def done(self) -> None:
        """Not timed."""


def measure(job: EngineJob) -> dict[str, Any]:
    """Seconds and clients of every round after the first, rows that a client touches, and the process's peak memory."""
    from client.app import build_app
    from simulations.engine import InProcessGrid

    with np.load(job.data) as data:
        store, frequencies = client_store(data["tokens"]), data["frequencies"]
    domain = RowDomain(tuple(f"w{i}" for i in range(len(frequencies))), frequencies)
    work = work_for(scenario(job, len(store)), domain)
    clock = RoundClock()
    with tempfile.TemporaryDirectory() as folder, Ledger.open(Path(folder) / "ledger.sqlite") as ledger:
        session = Session(GivenStore(store), ledger, Policy.permissive(), keeps_table=True, simulated=True)
        grid = InProcessGrid(build_app(lambda context: session), [{}])
        begin = time.perf_counter()
        FederatedRun(work, Exchange(grid, TIMEOUT_S), Path(folder) / "state", clock).execute()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    timed = min(1, job.rounds - 1)  # a single round is timed with its start-up
    return {
        "seconds": np.diff([begin, *clock.ends])[timed:].tolist(),
        "clients": clock.clients[timed:],
        "peak_bytes": 1024 * peak,
        "touched": touched(work, store),
    }


def touched(work: Work, store: ClientStore) -> dict[str, float]:
    """Rows of each table that a client's update holds: median over the first clients."""
    parameters = work.family.initial(work.options, work.specs, work.domain, 0)
    # Context rows begin at zero, and a row of zeros passes no gradient to the centre rows: noise shows every row.
    noise = np.random.default_rng(0)
    parameters = {n: v + noise.normal(0, 0.1, v.shape).astype(np.float32) for n, v in parameters.items()}
    chosen = range(min(len(store), MEDIAN_OVER))
    batch = work.family.local_update(
        parameters,
        [store.client(k) for k in chosen],
        work.domain,
        work.options,
        training=local_training(work, 1),
        seeds=list(chosen),
    )
    return {name: float(np.median(np.diff(rows.offsets))) for name, rows in batch.rows.items()}


def client_store(tokens: np.ndarray) -> ClientStore:
    """Clients of equal size: ``tokens`` has shape (clients, sentences, tokens of one); a sentence is a unit."""
    clients, sentences, length = tokens.shape
    units = Units(
        np.arange(clients * sentences + 1, dtype=np.int64) * length,
        {
            "rows": tokens.reshape(-1).astype(np.int32),
            "sentence": np.repeat(np.tile(np.arange(sentences, dtype=np.int32), clients), length),
        },
    )
    return ClientStore(
        tuple(f"c{i}" for i in range(clients)), np.arange(clients + 1, dtype=np.int64) * sentences, units
    )


def scenario(job: EngineJob, clients: int) -> Scenario:
    """One sentence a step, every sentence once a round, no subsampling; mode none."""
    everybody = job.cohort >= clients
    sampling = {"sampling": "full"} if everybody else {"sampling": "poisson", "rate": job.cohort / clients}
    options = {
        "family": "word2vec",
        "dimension": job.dimensions,
        "window": job.window,
        "subsample": 0.0,
        "shared_negatives": job.negatives,
    }
    training = {"local_steps": job.steps, "batch_size": 1, "device": "cpu"}
    return build_scenario(
        {
            "task": options,
            "privacy": {"mode": "none"},
            "federation": {"rounds": job.rounds, **sampling},
            "training": training,
            "server": {"checkpoint_every": job.rounds},
            "evaluation": {"loss_clients": 0},  # the peers report no loss either
        }
    )


def main(arguments: list[str]) -> int:
    """Measure the job given as JSON and print the result as JSON."""
    print(json.dumps(measure(EngineJob(**json.loads(arguments[0])))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
