"""Small plans of mode distributed, and what their clients send."""

from __future__ import annotations

from typing import Any

import numpy as np

from common.config import FederationConfig, PrivacyConfig, TrainingConfig
from common.privacy.plan import PrivacyPlan, make_plan
from common.privacy.plan_sizing import sized
from common.update import ParameterSpec, RowBatch, UpdateBatch

SPECS = (
    ParameterSpec("centre", (40, 8), "words"),
    ParameterSpec("context", (40, 4), "words"),
    ParameterSpec("bias", (30,)),
)
DIMENSION = 40 * 8 + 40 * 4 + 30
FEDERATION = {"secure_aggregation": "full", "min_clients": 4, "max_clients": 8, "rounds": 2}


def open_plan(unit: str = "client", **settings: Any) -> PrivacyPlan:
    """A plan whose dimension is not known yet; every keyword goes to the section that has it."""
    privacy: dict[str, Any] = {"mode": "distributed", "l2_clip_norm": 0.5, "delta": 1e-5}
    federation: dict[str, Any] = dict(FEDERATION)
    for name, value in settings.items():
        (privacy if name in PrivacyConfig.model_fields else federation)[name] = value
    if "epsilon" not in privacy:
        privacy.setdefault("noise_multiplier", 2.0)
    return make_plan(
        PrivacyConfig(**privacy),
        FederationConfig(**federation),
        TrainingConfig(),
        unit=unit,
        additive=unit != "client",
        natural_clip=None,
    )


def plan(unit: str = "client", *, dimension: int = DIMENSION, **settings: Any) -> PrivacyPlan:
    """A complete plan for updates in the shapes of ``SPECS``, in test mode unless said otherwise."""
    return sized(open_plan(unit, **({"test_mode": True} | settings)), dimension)


def contributions(count: int, seed: int = 0, *, norm: float = 0.4) -> UpdateBatch:
    """Sparse rows in both tables and a dense part; every contribution has L2 norm ``norm``."""
    rng = np.random.default_rng(seed)
    ids = [np.sort(rng.choice(40, 3, replace=False)) for _ in range(2 * count)]
    offsets = 3 * np.arange(count + 1)
    first, second = rng.normal(size=(3 * count, 8)), rng.normal(size=(3 * count, 4))
    bias = rng.normal(size=(count, 30))
    squares = [x.reshape(count, -1) ** 2 for x in (first, second, bias)]
    factor = norm / np.sqrt(sum(s.sum(axis=1) for s in squares))
    rows = np.repeat(factor, 3)[:, None]
    return UpdateBatch(
        count,
        {
            "centre": RowBatch(offsets, np.concatenate(ids[:count]), (first * rows).astype(np.float32)),
            "context": RowBatch(offsets, np.concatenate(ids[count:]), (second * rows).astype(np.float32)),
        },
        {"bias": (bias * factor[:, None]).astype(np.float32)},
    )


def dense(batch: UpdateBatch) -> np.ndarray:
    """Every contribution as a vector, shape (K, DIMENSION), float64: the slow way."""
    out = np.zeros((batch.count, DIMENSION))
    for k in range(batch.count):
        for name, start, width in (("centre", 0, 8), ("context", 320, 4)):
            table = batch.rows[name]
            for i in range(table.offsets[k], table.offsets[k + 1]):
                at = start + width * int(table.ids[i])
                out[k, at : at + width] += table.values[i]
        out[k, 480:] = batch.dense["bias"][k]
    return out


def flat(released: Any) -> np.ndarray:
    """Every number of a release in the order of ``SPECS``."""
    tables = [released.rows[name][1].ravel() for name in ("centre", "context")]
    return np.concatenate([*tables, released.dense["bias"].ravel()]).astype(np.float64)
