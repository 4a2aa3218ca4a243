"""Row support of single clients, mode by mode: what whoever sees every message to the coordinator can read of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from common import wire
from common.config import Scenario, build_scenario
from common.errors import WireError
from common.evaluation import leakage
from common.evaluation.leak import Leak
from common.evaluation.view import RoundView, View
from common.secagg.packing import unpacked
from common.secure_terms import VALUES, phases_of
from common.update import RowBatch, UpdateBatch
from simulations.audit.attacks import truth_of
from simulations.audit.planting import Planted, plant, unprotected
from simulations.audit.watching import watch
from simulations.progress import Silent

_WORDS = {"family": "word2vec", "dimension": 8, "subsample": 0.0}
_SPECTRAL = {"family": "spectral", "dimension": 8}
_EXAMPLE = {"local_steps": 4, "unit_rate": 0.25, "batch_size": 8}
_FEWEST = 100  # canaries, which are not looked at here


def leaks(folder: Path) -> Iterator[tuple[str, Leak]]:
    """(mode, F1 of row support) of an unprotected run and of every mode that hides rows from the coordinator."""
    for name, scenario in _cases().items():
        masked = scenario.privacy.mode == "distributed"
        planted = plant(scenario, folder, Silent(), count=_FEWEST, seed=1, masked=masked)
        view = _masked_view(planted) if masked else watch(planted).view
        found = leakage.load("row_support").run(view, truth_of(planted), seed=0)
        yield name, next(leak for leak in found if leak.metric == "f1")


def _cases() -> dict[str, Scenario]:
    clip = {"l2_clip_norm": 0.5}
    statistics = _scenario(_SPECTRAL, "record", "distributed", federation={"secure_aggregation": "full"})
    local_steps = _scenario(_WORDS, "client", "local", privacy=clip)
    example = _scenario(_WORDS, "record", "example", privacy=clip, training=_EXAMPLE)
    selected = _scenario(_WORDS, "record", "example", privacy=clip, training=_EXAMPLE, federation={"rows": "selected"})
    return {
        "unprotected, statistics": unprotected(statistics),
        "unprotected, local steps": unprotected(local_steps),
        "example": example,
        "example, selected rows": selected,
        "local": local_steps,
        "distributed, masked vectors": statistics,
    }


def _scenario(task: dict[str, Any], unit: str, mode: str, **sections: dict[str, Any]) -> Scenario:
    return build_scenario(
        {
            "task": task,
            "data": {"reader": "corpus", "path": "planted", "unit": unit},
            "vocabulary": {"source": "hashed", "buckets": 200},
            "privacy": {"mode": mode, "epsilon": 8.0, "delta": 1e-5} | sections.get("privacy", {}),
            "federation": {"rounds": 2} | sections.get("federation", {}),
            "training": sections.get("training", {}),
        }
    )


def _masked_view(planted: Planted) -> View:
    """Each client's masked vector, read as numbers around zero: all that a coordinator has of a single client."""
    plan, spec = planted.work.plan, planted.work.update_specs[0]
    bits = plan.grid.secure.bits
    bodies: list[bytes] = []

    def kept(reply: Any) -> None:
        try:
            payload = wire.unpack(reply.content)
            answered = int(np.count_nonzero(payload.array("status", np.int8, 1) == wire.OK))
            blobs = wire.decode_blobs(payload, 2 * answered)
        except WireError:
            return  # another hop
        length = phases_of(planted.work, 1)[-1].length
        bodies.extend(blob for blob in blobs[1::2] if 8 * len(blob) >= bits * length)

    view = watch(planted, witness=kept).view
    length = next(phase.length for phase in phases_of(planted.work, 1) if phase.name == VALUES)
    signed = np.array([unpacked(body, bits, length).astype(np.int64) for body in bodies[: planted.real_clients]])
    signed = np.where(signed >= 2 ** (bits - 1), signed - 2**bits, signed).astype(np.float32)
    rows, width = planted.real_rows, spec.shape[1]
    values = signed[:, : rows * width].reshape(len(signed) * rows, width)
    table = RowBatch(np.arange(len(signed) + 1) * rows, np.tile(np.arange(rows), len(signed)), values)
    seen = RoundView(np.arange(len(signed)), UpdateBatch(len(signed), {spec.name: table}))
    return replace(view, rounds=(*view.rounds, seen))
