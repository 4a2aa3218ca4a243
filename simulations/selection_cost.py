"""What selecting rows by votes would cost and cover, told before a run, and whether it is worth it.

Nobody's data are read: rows are taken to occur by Zipf's law with exponent 1 over the V rows, and each client's data to
hold ``DRAWS`` times as many occurrences as it has votes. It votes for a random choice of its distinct rows, so that a
row of probability q gets its vote with the chance h min(1, m / H), h = 1 - (1 - q)^draws and H the sum of all h. Votes
of a row are a binomial number plus noise, both taken as normal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from common.privacy.distributed import vector_length
from common.privacy.grid import padded
from common.work import Work

DRAWS = 5  # occurrences in a client's data for each of its votes
LEAST_COVERED, LEAST_GAIN = 0.05, 2.0  # of the update, and of dense bytes over those sent: below, it is not worth it
_DENSE_BITS = 16  # of a number in the dense vector that is compared
_STEPS = 60  # of a bisection
Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Coverage:
    """Expected rows selected, how many of these somebody voted for, and the share of all votes that lies in them."""

    selected: float
    useful: float
    mass: float


@dataclass(frozen=True)
class Cohort:
    """V rows of Zipf's law, n clients with m votes each, and the noise in the sum of the votes."""

    rows: int
    clients: int
    votes: int
    noise_stddev: float


def expected_coverage(cohort: Cohort, *, threshold: float, most: int | None = None) -> Coverage:
    """What votes select.

    Args:
        threshold: in votes.
        most: K; where more rows reach the threshold it is raised until so many are expected.
    """
    mean, spread, nobody = _vote_law(cohort)

    def chance(at: float) -> Reals:
        return special.ndtr((mean - at) / spread)

    if most is not None and float(chance(threshold).sum()) > most:
        low, high = threshold, float(cohort.clients + 40 * spread.max())
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if float(chance(middle).sum()) > most else (low, middle)
        threshold = high
    found = chance(threshold)
    by_noise = nobody * float(special.ndtr(-threshold / cohort.noise_stddev))
    return Coverage(
        float(found.sum()), max(0.0, float((found - by_noise).sum())), float((found * mean).sum() / mean.sum())
    )


def _vote_law(cohort: Cohort) -> tuple[Reals, Reals, Reals]:
    """Of every row: mean and standard deviation of its noised votes, and the chance that nobody votes for it."""
    q = 1.0 / np.arange(1, cohort.rows + 1)
    held = -np.expm1(DRAWS * cohort.votes * np.log1p(-q / q.sum() * (1 - 1e-12)))
    chance = held * min(1.0, cohort.votes / float(held.sum()))
    n = cohort.clients
    spread = np.sqrt(cohort.noise_stddev**2 + n * chance * (1 - chance))
    return n * chance, spread, np.exp(n * np.log1p(-chance))


def votes_selection(work: Work) -> dict[str, Any]:
    """How rows are selected in mode distributed, what that covers and costs, and a sentence of advice."""
    plan = work.plan
    grid, terms, secure = plan.vote_grid, plan.vote_grid.terms, plan.grid.secure
    n = secure.max_clients
    cohort = Cohort(terms.rows, n, terms.rows_per_client, grid.noise_stddev(n))
    found = expected_coverage(cohort, threshold=grid.threshold, most=terms.max_selected_rows)
    sizes = bytes_of_phases(work)
    every = plan.selections(plan.rounds) / plan.rounds
    gain = sizes["dense"] / (every * sizes["votes"] + sizes["values"])
    return {
        "ratio": plan.selection_ratio,
        "threshold": plan.selection_threshold,
        "vote_multiplier": plan.vote_multiplier,
        "value_multiplier": plan.value_multiplier,
        "vote_noise_stddev": grid.stddev,
        "vote_bits": grid.bits,
        "votes_that_select_a_row": grid.threshold,
        "share_of_clients_that_must_hold_it": grid.threshold / n,
        "selections_a_run": plan.selections(plan.rounds),
        "untouched_rows_reach_threshold": terms.rows * float(special.ndtr(-grid.threshold / grid.noise_stddev(n))),
        "assumed": f"Zipf's law, {n:,} clients, {DRAWS} occurrences a vote",
        "rows_selected": found.selected,
        "of_these_held_by_a_client": found.useful,
        "update_covered": found.mass,
        "bytes_a_client_sends_as_votes": sizes["votes"],
        "bytes_a_client_sends_as_values": sizes["values"],
        "bytes_a_client_would_send_dense": sizes["dense"],
        "bytes_a_client_receives_as_selection": 4 * terms.max_selected_rows,
        "times_less_sent_than_dense": gain,
        "advice": advice(found.mass, gain, share=grid.threshold / n),
    }


def bytes_of_phases(work: Work) -> dict[str, int]:
    """Bytes of one client's masked vectors: its votes, its values, and all rows at 16 bits for comparison."""
    plan = work.plan
    grid, terms = plan.vote_grid, plan.vote_grid.terms
    bits = plan.grid.secure.bits
    dense = padded(sum(math.prod(spec.shape) for spec in work.update_specs))
    return {
        "votes": -(-terms.rows * grid.bits // 8),
        "values": -(-vector_length(plan, work.sum_specs) * bits // 8),
        "dense": dense * _DENSE_BITS // 8,
    }


def advice(mass: float, gain: float, *, share: float) -> str:
    """One sentence: whether selecting rows is worth it.

    Args:
        mass: share of the update that is covered.
        gain: bytes of a dense vector over those that are sent.
        share: of the clients that must hold a row.
    """
    if mass < LEAST_COVERED:
        return (
            f"Not worth it: a row needs the votes of {share:.0%} of the clients, so that about {mass:.1%} of the "
            "update is covered; use dense rows, or more clients, fewer rows_per_client, a lower selection_ratio or "
            "fewer votes (select_every)."
        )
    if gain < LEAST_GAIN:
        return f"Not worth it: a client sends {gain:.1f} times less than with dense rows, which lose nothing."
    return (
        f"Worth it where bytes matter: a client sends {gain:.0f} times less than with dense rows, and about {mass:.0%} "
        "of the update is covered; rows that few clients hold never change."
    )
