"""The engine benchmark's work in Apple's pfl-research, run by the Python of pfl's own environment: ``... FILE JOB``.

``SimulatedBackend`` and ``FederatedAveraging`` over two ``torch.nn.Embedding`` tables, as pfl's own examples have it.
JOB is the JSON object that ``_engine_ours`` takes too; one JSON object goes to stdout.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import numpy as np


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds and clients of every round after the first."""
    import torch
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.model.pytorch import PyTorchModel

    with np.load(job["data"]) as data:
        rows = len(data["frequencies"])
        examples = [torch.from_numpy(data[n].astype(np.int64)) for n in ("centres", "contexts", "negatives")]
    module = skip_gram(torch, rows, job["dimensions"])
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
    clock = round_clock()
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=job["rounds"],
            evaluation_frequency=10**9,
            train_cohort_size=job["cohort"],
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=federated_data(examples), val_data=None),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=0.05, local_batch_size=examples[0].shape[1] // job["steps"]
        ),
        callbacks=[clock],
    )
    return {
        "seconds": np.diff(clock.ends).tolist(),
        "clients": [job["cohort"]] * (len(clock.ends) - 1),
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def skip_gram(torch: Any, rows: int, dimensions: int) -> Any:
    """Centre and context tables with the summed skip-gram loss."""

    class SkipGram(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.centre = torch.nn.Embedding(rows, dimensions)
            self.context = torch.nn.Embedding(rows, dimensions)

        def loss(self, centres: Any, contexts: Any, negatives: Any, **_: Any) -> Any:
            self.train()
            hidden = self.centre(centres)
            positive = (hidden * self.context(contexts)).sum(1)
            negative = torch.bmm(self.context(negatives), hidden[:, :, None])
            log_sigmoid = torch.nn.functional.logsigmoid
            return -(log_sigmoid(positive).sum() + log_sigmoid(-negative).sum())

        def metrics(self, *_: Any, **__: Any) -> dict[str, Any]:
            return {}

    return SkipGram()


def federated_data(examples: list[Any]) -> Any:
    """One user a row of the examples, drawn as pfl advises: each once before any comes again."""
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler

    users = [Dataset(raw_data=tuple(column[k] for column in examples)) for k in range(len(examples[0]))]
    return FederatedDataset(lambda k: users[k], get_user_sampler("minimize_reuse", list(range(len(users)))))


def round_clock() -> Any:
    """A callback that notes when each round ended."""
    from pfl.callback.base import TrainingProcessCallback
    from pfl.metrics import Metrics

    class RoundClock(TrainingProcessCallback):
        def __init__(self) -> None:
            self.ends: list[float] = []

        def after_central_iteration(
            self, aggregate_metrics: Any, model: Any, *, central_iteration: int
        ) -> tuple[bool, Any]:
            self.ends.append(time.perf_counter())
            return False, Metrics()

    return RoundClock()


def main(arguments: list[str]) -> int:
    """Measure the job given as JSON and print the result as JSON."""
    print(json.dumps(measure(json.loads(arguments[0]))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
