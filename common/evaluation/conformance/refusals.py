"""T1 for what has no guarantee at all: it is refused, not trained."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from common.errors import FedembedError
from common.evaluation.conformance.engine import EngineSubject
from common.evaluation.conformance.findings import Finding
from common.privacy.rng import NoiseSource


def _tied() -> nn.Module:
    tied = nn.ModuleDict({"a": nn.Embedding(4, 4), "b": nn.Linear(4, 4, bias=False)})
    tied["b"].weight = tied["a"].weight
    return tied


def _embedding(**settings: Any) -> Callable[[], nn.Module]:
    return lambda: nn.ModuleDict({"a": nn.Embedding(4, 4, **settings)})


MODULES: dict[str, Callable[[], nn.Module]] = {
    "tables with one weight": _tied,
    "batch norm": lambda: nn.Sequential(nn.Embedding(4, 4), nn.BatchNorm1d(4)),
    "max_norm": _embedding(max_norm=1.0),
    "scale_grad_by_freq": _embedding(scale_grad_by_freq=True),
    "sparse gradients": _embedding(sparse=True),
}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "weight decay": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
}


def refusals(subject: EngineSubject, seed: int = 0) -> list[Finding]:
    """Modules that couple units, and optimizers under which lazy noise is not exact, are refused."""

    def plain(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1)

    found = [_refused(subject, name, make(), plain) for name, make in MODULES.items()]
    return found + [_refused(subject, name, _embedding()(), make) for name, make in OPTIMIZERS.items()]


def _refused(
    subject: EngineSubject, name: str, module: nn.Module, optimizer: Callable[[Any], torch.optim.Optimizer]
) -> Finding:
    loader = DataLoader(TensorDataset(torch.zeros(4, 2, dtype=torch.int64)), batch_size=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            subject.engine(NoiseSource.seeded_for_tests(0)).make_private(
                module=module,
                optimizer=optimizer(module.parameters()),
                data_loader=loader,
                noise_multiplier=1.0,
                max_grad_norm=1.0,
                unit_rate=0.5,
                steps=1,
            )
        except (FedembedError, NotImplementedError):
            return Finding("T1", f"training with {name}", "refused", True)
        except Exception as error:  # Opacus' validators raise kinds of their own
            refused = type(error).__module__.startswith("opacus")
            return Finding("T1", f"training with {name}", f"stopped by {type(error).__name__}", refused)
    return Finding("T1", f"training with {name}", "accepted", False)
