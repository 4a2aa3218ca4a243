"""Votes on rows in mode distributed, T1 to T5: what a client casts, what is selected, what both sums are accounted as.

The sums are taken in the clear here, as in ``secure_sum``.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from scipy import special

from common.config import FederationConfig, PrivacyConfig, TrainingConfig
from common.errors import PrivacyConfigError
from common.evaluation.conformance.checks import Check
from common.evaluation.conformance.claims import gaussian_epsilon
from common.evaluation.conformance.findings import (
    Finding,
    binomial_finding,
    correlation_finding,
    dispersion_finding,
    scale_finding,
)
from common.privacy import selected_rows
from common.privacy.distributed import released_from_sum
from common.privacy.plan import PrivacyPlan, make_plan
from common.privacy.plan_sizing import sized
from common.privacy.rng import NoiseSource
from common.privacy.row_votes import slot_specs
from common.table import IntArray
from common.update import ParameterSpec, RowBatch, UpdateBatch

ROWS, WIDTH, VOTES, SLOTS, CLIENTS = 600, 4, 12, 500, 9
SPECS = (ParameterSpec("centre", (ROWS, WIDTH), "words"), ParameterSpec("bias", (5,)))
_HELD = np.arange(40, 80)  # of one client: more than it has votes
_CHOICES = 200


def toy_vote_plan(noise: float = 1.3, threshold: float = 1.0, **federation: Any) -> PrivacyPlan:
    """A plan for ``SPECS``: nine clients, of whom six are sure and two collude."""
    terms = {"secure_aggregation": "full", "min_clients": 6, "max_clients": CLIENTS, "colluders": 2, "rows": "selected"}
    terms |= {"rows_per_client": VOTES, "max_selected_rows": SLOTS}
    privacy = {"mode": "distributed", "noise_multiplier": noise, "delta": 1e-5, "l2_clip_norm": 0.5, "test_mode": True}
    plan = make_plan(
        PrivacyConfig.model_validate(privacy | {"selection_ratio": 1.25, "selection_threshold": threshold}),
        FederationConfig.model_validate(terms | federation),
        TrainingConfig(),
        unit="client",
        additive=False,
        natural_clip=None,
    )
    votes = plan.votes
    if votes is None:
        raise PrivacyConfigError("these settings have clients vote on rows")
    slots = slot_specs(SPECS, dataclasses.replace(votes, rows=ROWS))
    return sized(plan, sum(math.prod(s.shape) for s in slots), ROWS)


def _votes(plan: PrivacyPlan, held: IntArray, source: NoiseSource) -> IntArray:
    return selected_rows.client_votes(plan.vote_grid.terms, held, source)


def _sent(plan: PrivacyPlan, votes: IntArray, source: NoiseSource) -> IntArray:
    """One client's noised votes around zero."""
    half = 2 ** (plan.vote_grid.bits - 1)
    found = selected_rows.noised_votes(plan.vote_grid, votes, source, test_mode=True).astype(np.int64)
    return (found + half) % (2 * half) - half


def row_votes_sensitivity(seed: int) -> list[Finding]:
    """A client that is zeroed out moves the votes by no more than the event says, whatever rows it holds."""
    plan = toy_vote_plan()
    event: Any = plan.vote_grid.event()
    found = []
    tried = {
        "every row": np.arange(ROWS),
        "one row often": np.full(500, 7),
        "rows that there are not": np.array([-1, ROWS]),
    }
    for name, held in tried.items():
        votes = _votes(plan, np.concatenate([held, held]), NoiseSource.seeded_for_tests(seed))
        l1, l2 = float(np.abs(votes).sum()), math.sqrt(float((votes**2).sum()))
        within = l1 <= event.l1_sensitivity and l2 <= event.l2_sensitivity
        told = f"L1 {l1:g} of {event.l1_sensitivity:g}, L2 {l2:.3f} of {event.l2_sensitivity:.3f}"
        found.append(Finding("T1", f"votes of a client with {name}", told, within))
    for name, bad in {"too many": np.ones(ROWS, np.int64), "twice": 2 * np.eye(1, ROWS, dtype=np.int64)[0]}.items():
        try:
            _sent(plan, bad, NoiseSource.seeded_for_tests(seed))
            told = "sent"
        except PrivacyConfigError:
            told = "refused"
        found.append(Finding("T1", f"votes that are {name}", told, told == "refused"))
    return found


def row_votes_choice(seed: int) -> list[Finding]:
    """Of more rows than votes, any is as likely as any other to get one."""
    plan, parent = toy_vote_plan(), NoiseSource.seeded_for_tests(seed)
    cast = sum(_votes(plan, _HELD, parent.derive(k))[_HELD] for k in range(_CHOICES))
    share = VOTES / len(_HELD)
    variance = (
        _CHOICES * share * (1 - share) * len(_HELD) / (len(_HELD) - 1)
    )  # the votes of a client are fixed in number
    return [dispersion_finding("T4", "rows that a client votes for", cast, variance)]


def row_votes_noise(seed: int) -> list[Finding]:
    """A sum over exactly T - c clients has the declared noise, on rows with votes and without; shares are unrelated."""
    plan, parent = toy_vote_plan(noise=3.0), NoiseSource.seeded_for_tests(seed)
    grid, nothing = plan.vote_grid, np.zeros(ROWS, np.int64)
    shares = [_sent(plan, nothing, parent.derive(k)) for k in range(grid.secure.honest)]
    votes = nothing.copy()
    votes[:VOTES] = 1
    alone = [_sent(plan, votes, parent.derive("with votes", k)) - votes for k in range(grid.secure.honest)]
    spread = math.sqrt(2 * grid.share)
    return [
        scale_finding("T2", "noise of the guaranteed shares", np.sum(shares, axis=0) / (3.0 * 1.25 * math.sqrt(VOTES))),
        scale_finding("T2", "the same with votes", np.sum(alone, axis=0) / grid.stddev),
        scale_finding("T2", "the same on the rows without", np.sum(alone, axis=0)[VOTES:] / grid.stddev),
        correlation_finding("T3", "shares of two clients", shares[0] / spread, shares[1] / spread),
    ]


def row_votes_selection(seed: int) -> list[Finding]:
    """Rows are selected from noised votes: of those that nobody voted for, as many as their noise makes."""
    plan, parent = toy_vote_plan(noise=2.0), NoiseSource.seeded_for_tests(seed)
    grid, modulus = plan.vote_grid, 2**plan.vote_grid.bits
    voted = np.concatenate([np.ones(VOTES, np.int64), np.zeros(ROWS - VOTES, np.int64)])
    total = sum(_sent(plan, voted, parent.derive(k)) for k in range(CLIENTS)) % modulus
    rows = selected_rows.selected_rows(grid, total.astype(np.uint8 if grid.bits == 8 else np.uint16))
    reached = math.ceil(grid.threshold) - 0.5
    chance = float(special.ndtr(-reached / grid.noise_stddev(CLIENTS)))
    by_noise = int(np.count_nonzero(rows >= VOTES))
    return [
        binomial_finding("T2", "rows without votes that are selected", by_noise, ROWS - VOTES, rate=chance),
        Finding("T3", "order of the selection", "ascending", bool(np.all(np.diff(rows) > 0))),
    ]


def row_votes_values(seed: int) -> list[Finding]:
    """What is clipped is what is sent: a large row that is not selected takes nothing from one that is."""
    plan = toy_vote_plan(noise=0.05)
    slots = slot_specs(SPECS, plan.vote_grid.terms)
    rows = np.arange(0, 2 * SLOTS, 2)[: SLOTS // 2]
    values = np.array([[0.1] * WIDTH, [50.0] * WIDTH], np.float32)
    update = UpdateBatch(
        1, {"centre": RowBatch(np.array([0, 2]), np.array([4, 5]), values)}, {"bias": np.zeros((1, 5), np.float32)}
    )
    sources = [NoiseSource.seeded_for_tests(seed)]
    (sent,) = selected_rows.selected_vectors(plan, slots, update, sources, rows=rows, rotation_seed=seed)
    ids, found = selected_rows.on_rows(released_from_sum(plan, slots, sent, rotation_seed=seed), rows).rows["centre"]
    share = float(found[2].mean()) / 0.1
    noise = 6 * plan.grid.noise_stddev(1) / math.sqrt(WIDTH) / 0.1
    return [
        Finding("T1", "a selected row beside a large one", f"{share:.2f} of its length", abs(share - 1) < noise + 0.1),
        Finding("T3", "rows that values are for", f"{len(found)}", ids is not None and np.array_equal(ids, rows)),
    ]


def row_votes_account(seed: int) -> list[Finding]:
    """Votes and values are accounted together, every time they are cast, whoever asks."""
    plan = dataclasses.replace(toy_vote_plan(noise=2.0, rounds=4), test_mode=False)
    found = []
    for observer in ("coordinator", "public"):
        epsilon, least = plan.epsilon(observer, 4), gaussian_epsilon(1.0, 1e-5)  # four rounds of multiplier 2
        found.append(
            Finding("T5", f"four rounds, {observer}", f"epsilon {epsilon:.4f} >= {least:.4f}", epsilon >= least)
        )
    once = dataclasses.replace(toy_vote_plan(noise=2.0, rounds=4, select_every=0), test_mode=False)
    least = gaussian_epsilon(1 / math.sqrt(4 / once.value_multiplier**2 + 1 / once.vote_multiplier**2), 1e-5)
    epsilon = once.epsilon("public", 4)
    return [*found, Finding("T5", "votes once a run", f"epsilon {epsilon:.4f} >= {least:.4f}", epsilon >= least)]


def row_vote_checks() -> tuple[Check, ...]:
    """All of them."""
    tests = {
        row_votes_sensitivity: "T1",
        row_votes_choice: "T4",
        row_votes_noise: "T2",
        row_votes_selection: "T2",
        row_votes_values: "T1",
        row_votes_account: "T5",
    }
    return tuple(
        Check(check.__name__, test, lambda bench, seed, check=check: check(seed), check is not row_votes_account)  # type: ignore[misc]
        for check, test in tests.items()
    )
