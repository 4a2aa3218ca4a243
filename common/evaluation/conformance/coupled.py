"""T1 for the coordinator: with the same noise, one contribution more moves the release by at most C, whatever it is.

Source: notes on auditing; the test is exact, since neighbours share their noise and only the sensitivity is left.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from common.errors import FedembedError
from common.evaluation.conformance.findings import Finding, bound_finding
from common.evaluation.conformance.subject import Setup, Subject, arrays, contribution, flat, run
from common.update import UpdateBatch, concatenated

SIZES = (1, 2, 3, 7, 8, 9, 15, 16)  # of a cohort: int(n * rate) steps inside
ENROLLED = 64
_FLOAT_BITS = 22
BAD = {"NaN": math.nan, "Inf": math.inf, "-Inf": -math.inf, "3e38": 3e38, "denormal": 1e-45}


def adversaries(setup: Setup, rng: np.random.Generator) -> dict[str, UpdateBatch]:
    """Contributions that stress the clip, by name; norms are in units of C, as the entries stand."""

    def made(norm: float, **how: object) -> UpdateBatch:
        return contribution(setup, rng, norm, **how)  # type: ignore[arg-type]

    return {
        "over-norm": made(20.0),
        "just over": made(1.2),
        "repeated rows": made(0.9, repeats=9, parts="tables"),
        "repeated rows, over-norm": made(60.0, repeats=9),
        "joint tables": made(1.3, parts="tables"),
        "heavy weight: many rows": made(0.9, most_rows=10**9),
        "few rows": made(5.0, most_rows=1, parts="first"),
        "dense parts alone": made(1.4, parts="dense"),
        "tiny": made(1e-44),
        "huge": made(1e37),
    }


def sensitivity(subject: Subject, setup: Setup, seed: int = 0) -> list[Finding]:
    """Neighbours with the same noise, for every kind of adversarial contribution."""
    rng = np.random.default_rng(seed)
    others = _others(setup, rng)
    without = flat(setup, run(subject, setup, others or [contribution(setup, rng, 0.0)], seed))
    found, slack = [], _rounding(setup, without)
    for name, extra in (adversaries(setup, rng) | not_finite(setup, rng)).items():
        try:
            moved = float(np.linalg.norm(flat(setup, run(subject, setup, [*others, extra], seed)) - without))
        except FedembedError as error:  # that a round fails tells something about the data
            found.append(Finding("T1", f"contribution {name}", f"raises {type(error).__name__}", False))
            continue
        found.append(bound_finding("T1", f"contribution {name}", moved, setup.plan.l2_clip_norm, slack=slack))
    return found


def total_clip(subject: Subject, setup: Setup, seed: int = 0) -> list[Finding]:
    """NaN, Inf and absurd values end as finite values of norm at most C."""
    rng = np.random.default_rng(seed)
    found = []
    for name, batch in not_finite(setup, rng).items():
        both = concatenated([batch, contribution(setup, rng, 0.1)])
        done = subject.clip(both, setup.plan.l2_clip_norm).batch
        values = [t.values for t in done.rows.values()] + list(done.dense.values())
        finite = all(bool(np.isfinite(v).all()) for v in values)
        found.append(Finding("T1", f"clip of {name}", "finite" if finite else "not finite", finite))
    return found


def cardinality(subject: Subject, setup: Setup, seed: int = 0) -> list[Finding]:
    """A client that is enrolled and contributes nothing changes nothing, at any size of the cohort."""
    if not setup.plan.unit_is_client or setup.alone:
        return []
    rng = np.random.default_rng(seed)
    idle, moved = contribution(setup, rng, 0.0), 0.0
    for size in SIZES:
        cohort = [contribution(setup, rng, 0.5) for _ in range(size)]
        fewer, more = (_mean(subject, setup, batches, seed) for batches in (cohort, [*cohort, idle]))
        difference = float(np.linalg.norm(fewer - more)) * subject.divisor(setup.plan, ENROLLED, size)
        moved = max(moved, difference) if math.isfinite(difference) else math.inf  # max() would lose a NaN
    subject_line = f"an idle client, {SIZES[0]} to {SIZES[-1]} beside it"
    return [Finding("T1", subject_line, f"moves the mean by {moved / setup.plan.l2_clip_norm:.3f} of C", moved == 0.0)]


def support(subject: Subject, setup: Setup, seed: int = 0) -> list[Finding]:
    """Which coordinates are exactly zero or present tells nothing: every row of every table is released, noised."""
    rng = np.random.default_rng(seed)
    released = run(subject, setup, [contribution(setup, rng, 0.1)], seed)
    found = []
    for spec in setup.tables:
        ids, _ = released.rows[spec.name]
        empty = int(np.count_nonzero(~arrays(setup, released)[spec.name].any(axis=1)))
        complete = ids is None and empty == 0
        found.append(Finding("T3", f"rows of {spec.name}", f"{empty} of {spec.shape[0]} are exactly zero", complete))
    return found


def _others(setup: Setup, rng: np.random.Generator) -> list[UpdateBatch]:
    """The contributions beside the adversary's; where the client itself adds noise for its whole update: none."""
    return [] if setup.alone else [contribution(setup, rng, 0.1) for _ in range(3)]


def not_finite(setup: Setup, rng: np.random.Generator) -> dict[str, UpdateBatch]:
    """A contribution of each kind that no clip may pass on; the first array has the bad value."""
    found = {}
    for name, bad in BAD.items():
        batch = contribution(setup, rng, 0.3)
        first = next((t.values for t in batch.rows.values()), None)
        values = next(iter(batch.dense.values())) if first is None else first
        values.reshape(-1)[3 % values.size] = bad
        found[name] = batch
    return found


def _mean(subject: Subject, setup: Setup, batches: list[UpdateBatch], seed: int) -> np.ndarray:
    taking_part = len(batches)
    return flat(setup, run(subject, setup, batches, seed)) / subject.divisor(setup.plan, ENROLLED, taking_part)


def _rounding(setup: Setup, released: NDArray[np.float64]) -> float:
    """How far apart rounding alone may put two releases: every coordinate by one step of the mechanism's public grid.

    Rounding what is noised costs no privacy. The grid is the coarsest power of two that holds all that was released,
    up to an eighth of the noise; what has none was rounded to float32.
    """
    exponent = math.floor(math.log2(setup.plan.noise_stddev))
    for bits in range(3, _FLOAT_BITS):
        steps = np.ldexp(released, bits - exponent)
        if bool(np.all(steps == np.rint(steps))):
            return float(np.ldexp(1.0, exponent - bits) * math.sqrt(setup.coordinates))
    return 2.0**-11 * setup.plan.noise_stddev * math.sqrt(setup.coordinates)
