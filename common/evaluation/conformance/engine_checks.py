"""T1 to T3 for the table engine with dense rows: coupled neighbours, the scale of the noise, its independence."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from common.evaluation.conformance.engine import (
    CLIP,
    EVERY_ROW,
    LENGTH,
    LR,
    ROWS,
    TABLES,
    EngineRun,
    EngineSubject,
    Unit,
    flattened,
    step_stddev,
    train,
)
from common.evaluation.conformance.findings import (
    Finding,
    bound_finding,
    correlation_finding,
    scale_finding,
)
from common.evaluation.conformance.noise import white

_QUIET_UNITS: tuple[Unit, ...] = tuple((tuple(range(1, 12)), 0.0) for _ in range(3))  # read rows, gradients are zero
_STEPS, _RUNS = 3, 3
_READ_RUNS = 8
_SEED = 100
_SIZES = (1, 3, 7, 8, 11)  # int(n / 4) steps inside
IDLE: Unit = ((), 0.0)


def adversaries() -> dict[str, Unit]:
    """Units that stress the clip; ``w`` is the scale at which a unit of distinct rows has norm 1.

    The gradient of a unit with multiplicities m has the squared norm scale^2 (2 sum m^2 + 2): two tables, and the
    dense layer's weight and bias.
    """
    distinct, repeated = tuple(range(1, LENGTH + 1)), (3,) * LENGTH
    apart = math.sqrt(2 * LENGTH + 2)  # the norm of LENGTH rows at scale 1, repeats not summed
    return {
        "over-norm": (distinct, 1e3),
        "repeated rows": (repeated, 0.9 * CLIP / apart),
        "repeated rows, over-norm": (repeated, 1e3),
        "joint tables": (distinct, 0.95 * CLIP / math.sqrt(LENGTH)),
        "few rows": ((5,), 10.0),
        "dense layers alone": ((), 0.9 * CLIP),
        "tiny": (distinct, 1e-30),
        "huge": (distinct, 1e36),
        "NaN": (distinct, math.nan),
        "Inf": (distinct, math.inf),
    }


def table_sensitivity(subject: EngineSubject, seed: int = 0) -> list[Finding]:
    """One step with and without one adversarial unit, same noise: the sums differ by at most C."""
    others = [EVERY_ROW, ((4, 5), 0.001)]
    without = flattened(train(subject, EngineRun(others), seed).final)
    found = []
    for name, extra in adversaries().items():
        moved = flattened(train(subject, EngineRun([*others, extra]), seed).final) - without
        norm = float(np.linalg.norm(moved)) * 8 / LR
        found.append(bound_finding("T1", f"unit {name}", norm, CLIP, slack=1e-5 * CLIP))
    return found


def table_units(subject: EngineSubject, seed: int = 0) -> list[Finding]:
    """A unit of six examples, each as long as the bound allows, moves the sum by C and not by six times that."""
    one = adversaries()["joint tables"]
    without = flattened(train(subject, EngineRun([EVERY_ROW]), seed).final)
    found = []
    for name, piece in (("at once", None), ("in virtual steps", 6)):
        run = EngineRun([EVERY_ROW, *[one] * 6], owners=[0, *[1] * 6], piece=piece)
        moved = float(np.linalg.norm(flattened(train(subject, run, seed).final) - without)) * 8 / LR
        found.append(bound_finding("T1", f"unit of six examples, {name}", moved, CLIP, slack=1e-5 * CLIP))
    return found


def table_cardinality(subject: EngineSubject, seed: int = 0) -> list[Finding]:
    """A unit that is not drawn, or holds nothing, changes nothing, at any number of units."""
    moved = 0.0
    for size in _SIZES:
        units = [EVERY_ROW] * size
        fewer, more = (flattened(train(subject, EngineRun(u, rate=0.25), seed).final) for u in (units, [*units, IDLE]))
        moved = max(moved, float(np.linalg.norm(fewer - more)) * 8 / LR)
    line = f"an idle unit beside {_SIZES[0]} to {_SIZES[-1]} others"
    return [Finding("T1", line, f"moves the release by {moved / CLIP:.3f} of C", moved <= 1e-5 * CLIP)]


def table_noise(subject: EngineSubject, seed: int = 0) -> list[Finding]:
    """Rows that are read, rows that are not, and dense layers carry the noise of all steps, in pieces and empty too."""
    settings = {
        "": EngineRun(_QUIET_UNITS, steps=_STEPS, rate=0.5),
        "virtual steps: ": EngineRun(_QUIET_UNITS, steps=2, piece=1),
        "empty batches: ": EngineRun(_QUIET_UNITS, steps=2, rate=1e-12),
    }
    found = []
    for name, run in settings.items():
        seen = [train(subject, run, _SEED * seed + k) for k in range(_RUNS)]
        parts = [_parts(s.final, step_stddev() * math.sqrt(run.steps)) for s in seen]
        found += [scale_finding("T2", name + key, np.concatenate([p[key] for p in parts])) for key in parts[0]]
    return found


def table_reads(subject: EngineSubject, seed: int = 0) -> list[Finding]:
    """A row that is read for the first time in the third step already holds the noise of the two before it."""
    units: list[Unit] = [((row, row + 1), 0.0) for row in range(1, ROWS - 1, 2)]
    first: list[NDArray[np.float64]] = []
    for k in range(_READ_RUNS):
        reads = train(subject, EngineRun(units, rate=0.4, steps=3), _SEED * seed + k).reads
        first += [value for row, value in reads[2].items() if row and row not in reads[0] and row not in reads[1]]
    return [scale_finding("T2", "values read in the third step", np.concatenate(first) / step_stddev() / 2**0.5)]


def table_whiteness(subject: EngineSubject, seed: int = 0) -> list[Finding]:
    """Independent noise over steps, rows, columns and tables; no row without, and none on the padding row."""
    seen = train(subject, EngineRun(_QUIET_UNITS, steps=6, rate=0.5, settled=True), seed)
    states = [{n: np.zeros_like(v) for n, v in seen.final.items()}, *seen.steps]
    steps = [{n: (after[n] - before[n]) / step_stddev() for n in after} for before, after in pairwise(states)]
    vectors = [np.concatenate([s[n].ravel() for n in s]) for s in steps]
    found = [correlation_finding("T3", "lag-1 over steps", np.concatenate(vectors[1:]), np.concatenate(vectors[:-1]))]
    found += white("T3", {n: steps[-1][f"{n}.weight"][1:] for n in TABLES})
    for name in TABLES:
        bare = int(np.count_nonzero(~seen.final[f"{name}.weight"][1:].any(axis=1)))
        padding = bool(seen.final[f"{name}.weight"][0].any())
        found.append(Finding("T3", f"rows of {name}", f"{bare} of {ROWS - 1} are exactly zero", not bare))
        found.append(Finding("T3", f"padding row of {name}", "moves" if padding else "stays as it was", not padding))
    return found


def own_randomness(subject: EngineSubject, seed: int = 0) -> list[Finding]:
    """The noise comes from the engine's own source, and two sources have nothing in common."""
    run, before = EngineRun(_QUIET_UNITS, steps=2), torch.get_rng_state()
    finals: list[NDArray[np.float64]] = []
    try:
        for other in (1, 2):
            torch.default_generator.manual_seed(other)
            finals.append(flattened(train(subject, run, seed).final))
    finally:
        torch.set_rng_state(before)
    same = bool(np.array_equal(finals[0], finals[1]))
    fresh = [train(EngineSubject(lambda _: subject.secure()), run, 0).final for _ in range(2)]
    distinct = not bool(np.array_equal(flattened(fresh[0]), flattened(fresh[1])))
    return [
        Finding("T3", "torch's global seed", "changes nothing" if same else "changes the noise", same),
        Finding("T3", "two engines made at one moment", "differ" if distinct else "share their noise", distinct),
    ]


def _parts(final: dict[str, NDArray[np.float64]], stddev: float) -> dict[str, NDArray[np.float64]]:
    """Residuals of rows that are read (1 to 11), of the others, and of the dense layer."""
    parts = {}
    for name in TABLES:
        parts[f"{name}, rows that are read"] = final[f"{name}.weight"][1:12].ravel() / stddev
        parts[f"{name}, other rows"] = final[f"{name}.weight"][12:].ravel() / stddev
    parts["dense layer"] = np.concatenate([final["mix.weight"].ravel(), final["mix.bias"]]) / stddev
    return parts
