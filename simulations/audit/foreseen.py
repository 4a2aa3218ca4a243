"""What an audit will be able to notice, before anything is trained: audits of a correct Gaussian mechanism, simulated.

``python -m simulations.audit.foreseen`` prints the table of docs/auditor.md. Four designs count, of seven that share
one error rate with a second view, as in a run of two tables; canaries are independent, and only chance varies.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from common.evaluation.audit import CanaryScores, Outcome, Verdict, audited
from common.evaluation.audit.verdict import ALPHA
from common.privacy.accounting import calibrate
from simulations.audit.canaries import DESIGNS

DELTA = 1e-5
CLAIMS = (1.0, 3.0, 8.0)
RUNS = 20
VIEWS, TESTED = 2, 7  # verdicts that share the error rate, and designs of each
_SEED = 20_260_307


@dataclass(frozen=True)
class Sampling:
    """Every client takes part in each of ``rounds`` releases with probability ``rate``."""

    rate: float
    rounds: int


@dataclass(frozen=True)
class Foreseen:
    """Of simulated audits: the share that is CONSISTENT, and the median of what those would have noticed."""

    consistent: float
    noticed: float | None


FULL, SAMPLED = Sampling(1.0, 4), Sampling(0.1, 32)
_ROWS = (  # what they are called, how many canaries, and how many audits: sampled designs take longer to simulate
    ("in all of 4 rounds", FULL, 1000, RUNS),
    ("in all of 4 rounds", FULL, 3000, RUNS),
    ("in a tenth of 32 rounds", SAMPLED, 1000, 2),
    ("in a tenth of 32 rounds", SAMPLED, 3000, 2),
)


def foreseen(canaries: int, claimed_epsilon: float, sampling: Sampling, *, runs: int = RUNS) -> Foreseen:
    """What so many canaries of each design say of a mechanism that is as claimed, from a public seed."""
    stddev = _noise(claimed_epsilon, sampling)
    found = [
        _verdict(canaries, claimed_epsilon, sampling, stddev=stddev, rng=np.random.default_rng((_SEED, run)))
        for run in range(runs)
    ]
    heard = [v.noticed for v in found if v.outcome is Outcome.CONSISTENT and v.noticed is not None]
    return Foreseen(len(heard) / runs, statistics.median_high(heard) if heard else None)


def _noise(claimed_epsilon: float, sampling: Sampling) -> float:
    """Standard deviation of the noise of all rounds together, in clips, calibrated to the claim."""
    from dp_accounting import dp_event

    def event(noise_multiplier: float) -> dp_event.DpEvent:
        once: dp_event.DpEvent = dp_event.GaussianDpEvent(noise_multiplier)
        if sampling.rate < 1:
            once = dp_event.PoissonSampledDpEvent(sampling.rate, once)
        return dp_event.SelfComposedDpEvent(once, sampling.rounds)

    return math.sqrt(sampling.rounds) * calibrate(event, epsilon=claimed_epsilon, delta=DELTA)


def _verdict(
    canaries: int, claimed_epsilon: float, sampling: Sampling, *, stddev: float, rng: np.random.Generator
) -> Verdict:
    scores = []
    for design in DESIGNS:
        included = rng.random(canaries) < 0.5
        releases = rng.binomial(sampling.rounds, sampling.rate, size=canaries) * included
        trace = releases + stddev * rng.normal(size=canaries)
        scores.append(CanaryScores(trace, included, design, "sums", claimed_stddev=stddev, sampled=sampling.rate < 1))
    alpha = ALPHA / VIEWS * len(DESIGNS) / TESTED  # the rest belongs to designs that only add alarms
    return audited(scores, claimed_epsilon=claimed_epsilon, delta=DELTA, alpha=alpha)


def lines() -> Iterator[str]:
    """The table, in Markdown."""
    yield "| takes part | canaries | claim 1 | claim 3 | claim 8 |"
    yield "|---|---|---|---|---|"
    for name, sampling, count, runs in _ROWS:
        cells = (_cell(foreseen(count, claim, sampling, runs=runs), runs) for claim in CLAIMS)
        yield f"| {name} | {count:,} | {' | '.join(cells)} |"


def _cell(found: Foreseen, runs: int) -> str:
    told = "none" if found.noticed is None else f"{found.noticed:g}"
    return f"{told}; {round(found.consistent * runs)} of {runs}"


if __name__ == "__main__":
    for line in lines():
        print(line)
