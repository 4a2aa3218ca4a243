"""Flower's legacy SecAgg+ and the real protocol here, round after round in one process of their own: ``... JOB``.

Flower's own mod and workflow, over a grid that hands messages over in memory, without serialization and without a
strategy's averaging. Left out of the client's time, because here they lie outside of the protocol: local training,
scaling by weight and quantization. CPU time on both sides; Flower's threads are added up. The same graph: each client
has 14 others that hold its shares, 8 of them open it; Flower counts a client itself among the 15. JSON goes to stdout.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.compat.common import recorddict_compat as compat
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.supercore.task_identity import TaskIdentity

from common.secagg.terms import PhaseTerms
from simulations.benchmarks._secagg_round import CLIENT, SERVER, VECTORS, Setting, run, uncollected

MOD = sys.modules["flwr.client.mod.secure_aggregation.secaggplus_mod"]
OUTSIDE = ("parameters_multiply", "quantize")  # names in the mod: what is not the protocol's
CONFIG = "secaggplus_configs"
BITS = 16
TOLERANCE = 1e-3  # of a mean of a hundred clients' values in [-1, 1]


def measure(job: dict[str, Any]) -> dict[str, list[float]]:
    """Milliseconds a client of either side, for every repetition; both in one process, in turns."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    found: dict[str, list[float]] = defaultdict(list)
    phases = (PhaseTerms("values", BITS, job["length"]),)
    setting = Setting(job["clients"], job["degree"], job["threshold"], phases, least=job["clients"] * 2 // 3)
    for seed in range(job["repetitions"]):
        ours = run(setting, seed)
        theirs = flower_round(job, seed)
        found["client"].append(ours.client_ms(CLIENT))
        found["server"].append(ours.total_ms(SERVER) / job["clients"])
        found["flower client"].append(theirs.client_ms())
        found["flower server"].append(theirs.server_ms / job["clients"])
        found["flower upload"].append(theirs.upload)
    return found


@dataclass
class FlowerOutcome:
    """CPU seconds of every stage of every client, the server's milliseconds, bytes that a client sends."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    server_ms: float = 0.0
    sent: int = 0
    clients: int = 0

    def client_ms(self) -> float:
        return 1e3 * sum(float(np.median(v)) for v in self.seconds.values())

    @property
    def upload(self) -> float:
        return self.sent / self.clients


def flower_round(job: dict[str, Any], seed: int) -> FlowerOutcome:
    """One round without dropouts; raises ``RuntimeError`` where its mean is not that of the clients' values."""
    _identify()
    generator = np.random.default_rng(seed)
    values = [generator.uniform(-1, 1, job["length"]).astype(np.float32) for _ in range(VECTORS)]
    grid = _Grid(job["clients"], values)
    strategy = _Strategy(grid.names)
    state = RecordDict({"config": ConfigRecord({"current_round": 1})})
    state["parameters"] = compat.parameters_to_arrayrecord(ndarrays_to_parameters([np.zeros(1)]), True)
    context = LegacyContext(_context(0, state), strategy=strategy, client_manager=_Manager(job["clients"]))  # type: ignore[arg-type]
    workflow = SecAggPlusWorkflow(job["degree"] + 1, job["threshold"], max_weight=float(grid.weight))
    with uncollected():
        start = time.process_time()
        workflow(grid, context)  # type: ignore[arg-type]
        grid.out.server_ms = 1e3 * (time.process_time() - start - grid.spent)
    expected = np.mean([values[i % VECTORS] for i in range(job["clients"])], axis=0)
    if strategy.mean is None or float(np.abs(strategy.mean - expected).max()) > TOLERANCE:
        raise RuntimeError("Flower's round gave no mean, or another one")
    return grid.out


class _Strategy:
    """Everybody takes part; the mean is kept and not averaged again."""

    def __init__(self, names: Iterable[int]) -> None:
        self._names = list(names)
        self.mean: Any = None

    def configure_fit(self, *_: Any) -> list[tuple[Any, FitIns]]:
        instructions = FitIns(ndarrays_to_parameters([np.zeros(1)]), {})
        return [(SimpleNamespace(node_id=name), instructions) for name in self._names]

    def aggregate_fit(self, _: int, results: list[Any], failures: list[Any]) -> tuple[None, dict[str, Any]]:
        if not failures:
            self.mean = parameters_to_ndarrays(results[0][1].parameters)[0]
        return None, {}


@dataclass(frozen=True)
class _Manager:
    clients: int

    def num_available(self) -> int:
        return self.clients


class _Grid:
    """Hands each message to its client's mod, in this process."""

    weight = 1000

    def __init__(self, clients: int, values: list[Any]) -> None:
        self.names = range(1, clients + 1)
        self.out, self.spent = FlowerOutcome(clients=clients), 0.0
        self._values = values
        self._contexts = {name: _context(name, RecordDict()) for name in self.names}

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """The replies; what making them took is no time of the server's."""
        start = time.process_time()
        replies = [self._answer(message) for message in messages]
        self.spent += time.process_time() - start
        return replies

    def _answer(self, message: Message) -> Message:
        name = message.metadata.dst_node_id
        config = ConfigRecord(dict(message.content.config_records[CONFIG]))  # Flower's mod takes the stage out of it
        message.content = RecordDict({**message.content, CONFIG: config})
        stage, outside = str(config["stage"]), _Outside(self._values[(name - 1) % VECTORS], self.weight)
        with outside.timed():
            start = time.process_time()
            reply = secaggplus_mod(message, self._contexts[name], outside.train)
            self.out.seconds[stage].append(time.process_time() - start - outside.seconds)
        self.out.sent += sum(_size(value) for value in reply.content.config_records[CONFIG].values())
        return reply


class _Outside:
    """What runs inside of the mod and is no part of the protocol, with its CPU seconds."""

    def __init__(self, values: Any, weight: int) -> None:
        self._values, self._weight = values, weight
        self.seconds = 0.0

    def train(self, message: Message, _: Context) -> Message:
        """What the app under the mod does: its values are ready."""
        start = time.process_time()
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([self._values]), self._weight, {})
        reply = Message(compat.fitres_to_recorddict(result, False), reply_to=message)
        self.seconds += time.process_time() - start
        return reply

    @contextmanager
    def timed(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name in OUTSIDE:
                stack.enter_context(patch.object(MOD, name, self._clocked(getattr(MOD, name))))
            yield

    def _clocked(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def clocked(*arguments: Any) -> Any:
            start = time.process_time()
            result = work(*arguments)
            self.seconds += time.process_time() - start
            return result

        return clocked


def _identify() -> None:
    """Messages name the process that makes them: here the server of a run."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


def _context(name: int, state: RecordDict) -> Context:
    return Context(run_id=1, node_id=name, node_config={}, state=state, run_config={})


def _size(value: Any) -> int:
    """Bytes of a value as sent: numbers as 8."""
    if isinstance(value, bytes):
        return len(value)
    return sum(map(_size, value)) if isinstance(value, list) else 8


def main(arguments: list[str]) -> int:
    """Measure the job given as JSON and print the result as JSON."""
    print(json.dumps(measure(json.loads(arguments[0]))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
