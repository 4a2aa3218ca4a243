"""T2 and T3 for the coordinator: the noise has the declared scale on every array, and nothing repeats or is shared."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from common.evaluation.conformance.findings import ENOUGH, Finding, correlation_finding, scale_finding
from common.evaluation.conformance.subject import Setup, Subject, residuals
from common.privacy.rng import NoiseSource

_MOST_RUNS = 24
_ROUNDS = 4


def noise_scale(subject: Subject, setup: Setup, seed: int = 0) -> list[Finding]:
    """Every array's residual has the declared variance; small arrays are looked at over several releases."""
    smallest = min(int(np.prod(spec.shape)) for spec in setup.specs)
    runs = min(_MOST_RUNS, -(-ENOUGH // max(smallest, 1)))
    found = [residuals(subject, setup, _seed(seed, k)) for k in range(runs)]
    return [
        scale_finding("T2", f"noise on {name}", np.concatenate([f[name].ravel() for f in found])) for name in found[0]
    ]


def whiteness(subject: Subject, setup: Setup, seed: int = 0) -> list[Finding]:
    """No correlation between neighbouring columns, rows or arrays."""
    return white("T3", residuals(subject, setup, _seed(seed, 0)))


def fresh_noise(subject: Subject, setup: Setup, seed: int = 0) -> list[Finding]:
    """Consecutive rounds have unrelated noise: the lag-1 correlation over time."""
    rounds = [_joined(residuals(subject, setup, _seed(seed, k))) for k in range(_ROUNDS)]
    before, after = np.concatenate(rounds[:-1]), np.concatenate(rounds[1:])
    return [correlation_finding("T3", "lag-1 over rounds", before, after)]


def secret_source(subject: Subject, setup: Setup, seed: int = 0) -> list[Finding]:
    """Sources made at the same moment have nothing in common."""
    first = {subject.secure().uniform(4).tobytes() for _ in range(5)}
    return [Finding("T3", "5 sources made at one moment", f"{len(first)} are distinct", len(first) == 5)]


class _Extreme(NoiseSource):
    """A source whose random bits are all zero: its first normal is the largest that can be drawn."""

    __slots__ = ()

    def words(self, n: int) -> NDArray[np.uint64]:
        """No bit is set."""
        return np.zeros(n, dtype=np.uint64)


def tails(subject: Subject, setup: Setup, seed: int = 0) -> list[Finding]:
    """Uniforms have 53 bits: with 24 of them normals end at 5.77 standard deviations."""
    drawn = subject.seeded(seed).uniform(4096) * 2.0**24
    coarse = int(np.count_nonzero(drawn == np.floor(drawn)))
    largest = float(np.abs(_Extreme(bytes(32), test_mode=True).normal(2, 1.0)).max())
    return [
        Finding("T3", "uniforms finer than 2^-24", f"{4096 - coarse} of 4096", coarse < 8),
        Finding("T3", "largest normal", f"{largest:.2f} standard deviations, at least 8", largest >= 8),
    ]


def white(test: str, found: dict[str, NDArray[np.float64]]) -> list[Finding]:
    """Lag-1 correlations inside each array (columns, rows), and of each array with the next one."""
    lines = []
    for name, array in found.items():
        table = array.reshape(len(array), -1) if array.ndim > 1 else array.reshape(1, -1)
        if table.shape[1] > 1:
            lines.append(correlation_finding(test, f"columns of {name}", table[:, 1:], table[:, :-1]))
        if len(table) > 1:
            lines.append(correlation_finding(test, f"neighbouring rows of {name}", table[1:], table[:-1]))
    for (one, a), (other, b) in pairwise(found.items()):
        same = min(a.shape[-1], b.shape[-1])
        left, right = (x.reshape(-1, x.shape[-1])[:, :same] for x in (a, b))
        rows = min(len(left), len(right))
        lines.append(correlation_finding(test, f"{one} with {other}", left[:rows], right[:rows]))
    return lines


def _joined(found: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate([array.ravel() for array in found.values()])


def _seed(seed: int, run: int) -> int:
    """Seeds of the runs of one check: no two seeds of a series share one."""
    return seed * 100 + run
