"""The engine benchmark's work in Flower's Ray simulation, run by the Python of Flower's environment: ``... FILE JOB``.

``FedAvg`` and the Message API over two ``torch.nn.Embedding`` tables, one CPU a client, so one Ray actor a core; every
actor keeps its module and the data. JOB is the JSON object that ``_engine_ours`` takes too; JSON goes to stdout.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds and clients of every round after the first."""
    folder, name = str(Path(__file__).parent), Path(__file__).stem
    # Actors import this file by name: what comes with a pickled app would be made anew for every message.
    os.environ["PYTHONPATH"] = folder
    sys.path.insert(0, folder)
    shared = importlib.import_module(name)
    from flwr.simulation import run_simulation

    ends: list[float] = []
    run_simulation(
        server_app=shared.server_app(job, ends),
        client_app=shared.client_app(job),
        num_supernodes=len(shared.loaded(job["data"])["centres"]),
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    return {"seconds": np.diff(ends).tolist(), "clients": [job["cohort"]] * (len(ends) - 1)}


def server_app(job: dict[str, Any], ends: list[float]) -> Any:
    """Rounds of FedAvg; the end of each is noted in ``ends``."""
    from flwr.app import ArrayRecord
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg

    class Clocked(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            replies = list(replies)
            usable = sum(not reply.has_error() for reply in replies)
            if usable != job["cohort"]:
                raise RuntimeError(f"{usable} of {job['cohort']} clients answered without an error")
            result = super().aggregate_train(server_round, replies)
            ends.append(time.perf_counter())
            return result

    app = ServerApp()

    @app.main()
    def main(grid: Any, context: Any) -> None:
        population = len(loaded(job["data"])["centres"])
        strategy = Clocked(
            fraction_train=job["cohort"] / population,
            fraction_evaluate=0.0,
            min_train_nodes=job["cohort"],
            min_available_nodes=population,
        )
        start = ArrayRecord(module(job["data"], job["dimensions"]).state_dict())
        strategy.start(grid=grid, initial_arrays=start, num_rounds=job["rounds"])

    return app


def client_app(job: dict[str, Any]) -> Any:
    """Load the global tables, take the steps, send the tables back."""
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.train()
    def train(message: Any, context: Any) -> Any:
        from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

        net = module(job["data"], job["dimensions"])
        net.load_state_dict(message.content["arrays"].to_torch_state_dict())
        data = loaded(job["data"])
        mine = [data[n][context.node_config["partition-id"]] for n in ("centres", "contexts", "negatives")]
        local_steps(net, mine, job["steps"])
        content = RecordDict()
        content["arrays"] = ArrayRecord(net.state_dict())
        content["metrics"] = MetricRecord({"num-examples": len(mine[0])})
        return Message(content, reply_to=message)

    return app


def local_steps(net: Any, mine: list[Any], steps: int) -> None:
    """Plain SGD on the summed skip-gram loss, one equal part of the pairs a step."""
    import torch

    log_sigmoid = torch.nn.functional.logsigmoid
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for centres, contexts, negatives in zip(*(column.chunk(steps) for column in mine), strict=True):
        hidden = net["centre"](centres)
        positive = (hidden * net["context"](contexts)).sum(1)
        negative = torch.bmm(net["context"](negatives), hidden[:, :, None])
        optimizer.zero_grad()
        (-(log_sigmoid(positive).sum() + log_sigmoid(-negative).sum())).backward()
        optimizer.step()


@lru_cache(maxsize=1)
def loaded(path: str) -> dict[str, Any]:
    """The clients' pairs and negatives as tensors, and the frequencies."""
    import torch

    with np.load(path) as data:
        return {n: torch.from_numpy(data[n].astype(np.int64)) for n in ("centres", "contexts", "negatives")} | {
            "rows": len(data["frequencies"])
        }


@lru_cache(maxsize=1)
def module(path: str, dimensions: int) -> Any:
    """Centre and context tables."""
    import torch

    torch.set_num_threads(1)  # Ray runs as many of these processes as there are cores
    rows = loaded(path)["rows"]
    return torch.nn.ModuleDict({n: torch.nn.Embedding(rows, dimensions) for n in ("centre", "context")})


def main(arguments: list[str]) -> int:
    """Measure the job given as JSON and print the result as JSON."""
    print(json.dumps(measure(json.loads(arguments[0]))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
