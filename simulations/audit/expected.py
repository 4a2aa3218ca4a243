"""The noise in a canary's trace if the mechanism is as claimed: silence is judged by it, never by what was seen.

Noise that is too small makes canaries look strong, which would turn an audit that sees nothing into evidence.
"""

from __future__ import annotations

import math

from common.evaluation.conformance import Finding
from common.evaluation.conformance.findings import scale_finding
from common.families import AdditiveFamily
from simulations.audit.planting import Planted
from simulations.audit.watching import Watched


def claimed_stddev(planted: Planted, view: str) -> float:
    """Standard deviation of the noise in a trace over all rounds, in clips; infinite where it is not known.

    sigma sqrt(T) for a Gaussian sum of T rounds; sqrt(n) times as much where each of n clients adds its own; in mode
    example every one of S local steps adds noise, and updates are lr / B times their sums. The table has the sums
    times the server's learning rate over the public denominator, where the server takes plain steps.
    """
    plan, work = planted.work.plan, planted.work
    clients = len(planted.store)
    if plan.secure is not None:
        noise = plan.grid.noise_stddev(clients) / plan.l2_clip_norm
    else:
        noise = plan.noise_stddev / plan.l2_clip_norm
    noise *= math.sqrt(plan.rounds)
    if plan.mode == "example":
        noise *= math.sqrt(plan.local_steps) * work.scenario.training.lr / work.scenario.training.batch_size
    own = plan.mode in ("local", "example")
    if view == "updates":
        return noise if own else math.inf
    noise *= math.sqrt(clients * plan.rate) if own else 1.0
    return noise if view == "sums" else noise * _steps(planted)


def noise_of_those_left_out(planted: Planted, watched: Watched) -> list[Finding]:
    """T2 of the audited run itself: traces of canaries that took no part hold noise of the claimed size."""
    plan, left_out = planted.work.plan, ~planted.canaries.included & (planted.canaries.design == 0)
    if plan.rows == "selected" or plan.test_mode or not planted.canaries.tables:
        return []  # rows that are not selected hold none; a seed's noise proves nothing; canaries overlap in encoders
    seen = {"sums": watched.sums}
    if watched.updates is not None and plan.mode in ("local", "example"):
        seen["updates"] = watched.updates
    return [
        scale_finding("T2", f"noise of canaries left out, {view}", parts[0, left_out] / claimed_stddev(planted, view))
        for view, parts in seen.items()
    ]


def _steps(planted: Planted) -> float:
    """What one unit of a sum becomes in the final table."""
    server, work = planted.work.scenario.server, planted.work
    if isinstance(work.family, AdditiveFamily) or server.optimizer != "sgd" or server.momentum:
        return math.inf
    expected = max(1.0, work.plan.rate * len(planted.store))
    return server.lr / (server.denominator if server.denominator is not None else expected)
