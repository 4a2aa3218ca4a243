"""A small family with two tables and a dense layer, for the tests of example mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from common.privacy.dpsgd import train_example_mode
from common.privacy.plan import PrivacyPlan
from common.privacy.rng import NoiseSource
from common.table import RowDomain
from common.units import Units
from common.update import ParameterSpec, UpdateBatch

ROWS, DIMENSIONS, CLIP = 40, 6, 0.5
DOMAIN = RowDomain(keys=tuple(f"k{i}" for i in range(ROWS)))


class Toy(nn.Module):
    """Two tables of one domain and a dense layer: a unit's mean row predicts its rows in the other table."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.centre = nn.Embedding(rows, DIMENSIONS)
        self.mix = nn.Linear(DIMENSIONS, DIMENSIONS)
        self.context = nn.Embedding(rows, DIMENSIONS)


class ToyFamily:
    """Column ``row`` holds the rows of a unit, column ``scale`` multiplies its loss."""

    def specs(self, options: object, rows: int) -> tuple[ParameterSpec, ...]:
        table = (rows, DIMENSIONS)
        return (
            ParameterSpec("centre.weight", table, "words"),
            ParameterSpec("mix.weight", (DIMENSIONS, DIMENSIONS)),
            ParameterSpec("mix.bias", (DIMENSIONS,)),
            ParameterSpec("context.weight", table, "words"),
        )

    def module(self, options: object, rows: int) -> nn.Module:
        return Toy(rows)

    def batch(
        self, units: Units, domain: RowDomain | None, options: object, rng: np.random.Generator
    ) -> Mapping[str, torch.Tensor]:
        lengths = np.diff(units.offsets)
        width = max(1, int(lengths.max()))
        rows = np.zeros((units.count, width), dtype=np.int64)
        mask = np.arange(width) < lengths[:, None]
        rows[mask] = units.columns["row"]
        scale = np.zeros(units.count)
        scale[lengths > 0] = units.columns["scale"][units.offsets[:-1][lengths > 0]]
        return {
            "rows.centre.weight": torch.from_numpy(rows),
            "rows.context.weight/self": torch.from_numpy(rows[:, ::-1].copy()),
            "rows.context.weight/negatives": torch.from_numpy(rng.integers(0, 5, (units.count, 2))),
            "mask": torch.from_numpy(mask.astype(np.float32)),
            "scale": torch.tensor(scale, dtype=torch.float32),
        }

    def loss(self, module: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        mask, turned = batch["mask"], batch["mask"].flip(1)
        looked_up = (module.centre(batch["rows.centre.weight"]) * mask[..., None]).sum(1)
        hidden = torch.tanh(module.mix(looked_up))
        good = (module.context(batch["rows.context.weight/self"]) * hidden[:, None]).sum(-1)
        bad = (module.context(batch["rows.context.weight/negatives"]) * hidden[:, None]).sum(-1)
        losses = (nn.functional.softplus(-good) * turned).sum(1) + nn.functional.softplus(bad).sum(1)
        return losses * batch["scale"] * (mask.sum(1) > 0)


FAMILY = ToyFamily()


def units_of(*rows: list[int], scale: float = 1.0) -> Units:
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    flat = np.array([r for unit in rows for r in unit], dtype=np.int64)
    return Units(offsets, {"row": flat, "scale": np.full(len(flat), scale, dtype=np.float32)})


def joined(first: Units, second: Units) -> Units:
    columns = {n: np.concatenate([first.columns[n], second.columns[n]]) for n in first.columns}
    return Units(np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]]), columns)


def initial(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {s.name: rng.normal(0, 0.5, s.shape).astype(np.float32) for s in FAMILY.specs(None, ROWS)}


def loaded_toy(seed: int = 0) -> Toy:
    module = Toy(ROWS)
    module.load_state_dict({n: torch.from_numpy(a) for n, a in initial(seed).items()})
    return module


def plan_of(**changes: Any) -> PrivacyPlan:
    """A plan of example mode; the tests need settings that no epsilon would give."""
    usual: dict[str, Any] = {
        "mode": "example",
        "unit": "sentence",
        "unit_is_client": False,
        "adjacency": "add or remove one sentence",
        "l2_clip_norm": CLIP,
        "noise_multiplier": 1.0,
        "delta": 1e-6,
        "target_epsilon": None,
        "rounds": 1,
        "sampling": "full",
        "rate": 1.0,
        "local_steps": 3,
        "unit_rate": 1.0,
        "test_mode": True,
    }
    return PrivacyPlan(**(usual | changes))


@dataclass(frozen=True)
class Training:
    local_steps: int = 3
    batch_size: int = 8
    lr: float = 0.1
    device: str = "cpu"


def run(
    units: Units, seed: int = 1, *, plan: PrivacyPlan | None = None, source: object = None, **training
) -> UpdateBatch:
    plan = plan or plan_of()
    return train_example_mode(
        FAMILY,
        initial(),
        units,
        DOMAIN,
        None,
        plan=plan,
        training=Training(local_steps=plan.local_steps, **training),
        source=source if source is not None else NoiseSource.seeded_for_tests(seed),
    )


def arrays(update: UpdateBatch) -> dict[str, np.ndarray]:
    return {n: t.values for n, t in update.rows.items()} | {n: a[0] for n, a in update.dense.items()}


def flat(update: UpdateBatch) -> np.ndarray:
    return np.concatenate([a.ravel() for _, a in sorted(arrays(update).items())]).astype(np.float64)


class Silent:
    """A source whose normals are zero: what is left is the clipped sum."""

    def __init__(self, source: NoiseSource) -> None:
        self.source = source

    def derive(self, *context: str | int) -> Silent:
        return Silent(self.source.derive(*context))

    def normal(self, shape: tuple[int, ...], stddev: float) -> np.ndarray:
        return np.zeros(shape, dtype=np.float32)

    def bernoulli(self, n: int, rate: float) -> np.ndarray:
        return self.source.bernoulli(n, rate)

    def integers(self, n: int, high: int) -> np.ndarray:
        return self.source.integers(n, high)


def silent(seed: int = 1) -> Silent:
    return Silent(NoiseSource.seeded_for_tests(seed))
