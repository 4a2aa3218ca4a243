"""The privacy plan: the only maker of (clip, sampling, noise, event). What it accounts is what it configures."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.config import FederationConfig, PrivacyConfig, TrainingConfig
from common.errors import PrivacyConfigError
from common.privacy import accounting, mechanisms
from common.privacy.claim import OBSERVERS, make_claim
from common.privacy.clipping import check_clip_norm
from common.privacy.events import composed, repeated
from common.privacy.grid import Grid, SecureSum, Shape
from common.privacy.plan_checks import (
    adjacency_of,
    client_rate_of,
    clip_norm_of,
    mechanism_of,
    refuse_unproven,
    row_votes_of,
    secure_sum_of,
)
from common.privacy.plan_sizing import grid_of
from common.privacy.row_votes import RowVotes, VoteGrid, vote_grid

if TYPE_CHECKING:
    from dp_accounting import DpEvent

__all__ = ["OBSERVERS", "PrivacyPlan", "make_plan"]


@dataclass(frozen=True)
class PrivacyPlan:
    """One run's privacy, completely fixed. Make it with ``make_plan``.

    Attributes:
        mode: ``none``, ``central``, ``local``, ``example`` or ``distributed``.
        unit: name of what is hidden; ``unit_is_client`` tells whether that is the whole client.
        adjacency: which two data sets the guarantee compares, in words.
        l2_clip_norm: C, the bound on one unit's contribution; ``inf`` in mode none.
        noise_multiplier: noise stddev divided by C; 0 in mode none.
        delta: the probability the epsilon is stated for.
        target_epsilon: what the noise was calibrated to; ``None`` when the user gave the noise.
        rounds: releases planned.
        sampling: ``full`` or ``poisson``: how clients are drawn.
        rate: chance of a client in a round (1 when full).
        local_steps: noised steps a client takes in a round (mode example; 0 elsewhere).
        unit_rate: chance of a unit in a local step (mode example; 0 elsewhere).
        test_mode: noise comes from a public seed: no guarantee.
        mechanism: name of the noise mechanism.
        rows: ``dense``: every row is noised; ``selected``: privately selected rows alone are updated.
        selection_ratio: noise multiplier of the votes that select rows, over ``noise_multiplier``; 0 when dense.
        selection_threshold: votes that keep a row, in standard deviations of their noise; 0 when dense.
        secure: terms of the secure sum in mode distributed, ``None`` elsewhere; see ``plan_sizing.sized``.
        votes: terms of the votes that select rows in mode distributed, ``None`` elsewhere.
    """

    mode: str
    unit: str
    unit_is_client: bool
    adjacency: str
    l2_clip_norm: float
    noise_multiplier: float
    delta: float
    target_epsilon: float | None
    rounds: int
    sampling: str
    rate: float
    local_steps: int
    unit_rate: float
    test_mode: bool
    mechanism: str = "gaussian"
    rows: str = "dense"
    selection_ratio: float = 0.0
    selection_threshold: float = 0.0
    secure: SecureSum | None = None
    votes: RowVotes | None = None

    @property
    def noise_stddev(self) -> float:
        """Standard deviation of the noise on every coordinate of the sum (or update, or step).

        In mode distributed that of the T - c shares that are accounted; ``grid.noise_stddev(n)`` tells that of n.
        """
        if self.mode == "distributed":
            return self.grid.noise_stddev()
        return 0.0 if self.mode == "none" else self.value_multiplier * self.l2_clip_norm

    @property
    def value_multiplier(self) -> float:
        """Of the clipped sums: with the votes one Gaussian, noise_multiplier^-2 = value^-2 + vote_multiplier^-2."""
        return self.noise_multiplier / math.sqrt(1.0 - (self.selection_ratio or math.inf) ** -2)

    @property
    def vote_multiplier(self) -> float:
        """Noise multiplier of the votes that select rows; their L2 norm is 1 for every unit."""
        return self.selection_ratio * self.noise_multiplier

    @property
    def grid_shape(self) -> Shape:
        """What the grid of mode distributed depends on beside ``secure`` and the noise: whole updates are rotated."""
        return Shape(self.l2_clip_norm, self.mechanism, self.unit_is_client)

    @property
    def grid(self) -> Grid:
        """Scale, bounds and noise shares in mode distributed: a function of the fields above.

        Raises:
            PrivacyConfigError: another mode, or the dimension of an update is not known yet.
        """
        if self.secure is None:
            raise PrivacyConfigError(f"mode {self.mode!r} has no grid")
        return grid_of(self.secure, self.grid_shape, self.value_multiplier)

    @property
    def vote_grid(self) -> VoteGrid:
        """Bits, noise shares and threshold of the votes on rows in mode distributed: a function of the fields above.

        Raises:
            PrivacyConfigError: no votes are cast, or the row domain is not known yet.
        """
        if self.secure is None or self.votes is None:
            raise PrivacyConfigError("no client votes on rows in this plan")
        noise = self.vote_multiplier
        return vote_grid(self.votes, self.secure, noise_multiplier=noise, threshold=self.selection_threshold)

    @property
    def amplified(self) -> bool:
        """Whether the secrecy of who was drawn counts: only whole clients in mode central, drawn by Poisson."""
        return self.mode == "central" and self.unit_is_client and self.sampling == "poisson"

    def protects(self, observer: str) -> bool:
        """Whether anything is promised against ``observer``. Raises ``PrivacyConfigError`` for an unknown one."""
        if observer not in OBSERVERS:
            raise PrivacyConfigError(f"unknown observer {observer!r}; known: {', '.join(OBSERVERS)}")
        if observer != "coordinator":
            return self.mode != "none"
        masked = self.secure is not None and self.secure.aggregation == "full"
        return self.mode in ("local", "example") or (self.mode == "distributed" and masked)

    def round_event(self, observer: str) -> DpEvent:
        """What one round costs against ``observer``; where clients vote on rows, one that begins with votes."""
        import dp_accounting as dp

        if not self.protects(observer):
            return dp.NonPrivateDpEvent()
        if self.mode == "distributed":  # never amplified: the coordinator draws the cohort
            values = self.grid.event()
            return values if self.votes is None else dp.ComposedDpEvent([self.vote_grid.event(), values])
        step = mechanisms.load(self.mechanism).event(self.noise_multiplier)
        if self.mode == "example":
            drawn = dp.PoissonSampledDpEvent(self.unit_rate, step) if self.unit_rate < 1 else step
            return dp.SelfComposedDpEvent(drawn, self.local_steps)
        return dp.PoissonSampledDpEvent(self.rate, step) if self.amplified and self.rate < 1 else step

    def parts(self, observer: str, rounds: int, selections: int | None = None) -> dict[str, tuple[DpEvent, int]]:
        """What ``rounds`` rounds consist of: name -> an event and how often it happens.

        Args:
            selections: how many times clients vote on rows; by default as in so many rounds without a repetition.
        """
        if self.votes is None or not self.protects(observer):
            return {"round": (self.round_event(observer), rounds)}
        times = self.selections(rounds) if selections is None else selections
        return {"values": (self.grid.event(), rounds), "votes": (self.vote_grid.event(), times)}

    def selections(self, rounds: int) -> int:
        """How many of the first ``rounds`` rounds begin with votes on rows."""
        return 0 if self.votes is None else self.votes.selections(rounds)

    def event(self, observer: str, rounds: int, selections: int | None = None) -> DpEvent:
        """What ``rounds`` rounds, of which ``selections`` (default: as planned) begin with votes, cost ``observer``."""
        return composed([repeated(*part) for part in self.parts(observer, rounds, selections).values()])

    def epsilon(self, observer: str, rounds: int | None = None, selections: int | None = None) -> float:
        """Epsilon at ``delta`` against ``observer`` after ``rounds`` (default: all); ``inf`` where nothing protects.

        In test mode this is what the noise would be worth if it were secret; ``claim`` reports no epsilon then.
        """
        event = self.event(observer, self.rounds if rounds is None else rounds, selections)
        return accounting.epsilon(event, self.delta)

    def client_run_event(self) -> DpEvent:
        """What one client's ledger is charged when the whole planned run is reserved before the first draw."""
        return self.event("public", self.rounds)

    def run_event_with(self, noise_multiplier: float) -> DpEvent:
        """What the planned run would cost with another noise."""
        return dataclasses.replace(self, noise_multiplier=noise_multiplier).client_run_event()

    def max_rounds(self) -> int:
        """Rounds that fit the target epsilon against every observer that is protected; ``rounds`` without a target."""
        target = self.target_epsilon
        if self.mode == "none" or target is None:
            return self.rounds

        def fits(rounds: int) -> bool:
            return self.epsilon("public", rounds) <= target

        low, step = (self.rounds, 1) if fits(self.rounds) else (0, 1)
        while fits(low + step):
            low, step = low + step, step * 2
        while step > 1:  # low fits, low + step does not
            step //= 2
            low = low + step if fits(low + step) else low
        return low

    @property
    def digest(self) -> str:
        """SHA-256 over every field: two parties with one digest mean the same plan."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()

    def claim(self, rounds_released: int, selections_released: int | None = None) -> dict[str, Any]:
        """The certificate: what is promised to whom after ``rounds_released`` rounds. See ``common.privacy.claim``."""
        return make_claim(self, rounds_released, selections_released)


def make_plan(
    privacy: PrivacyConfig,
    federation: FederationConfig,
    training: TrainingConfig,
    *,
    unit: str,
    additive: bool,
    natural_clip: float | None,
) -> PrivacyPlan:
    """Fix clip, sampling, noise and event together, or refuse.

    Args:
        unit: privacy unit; ``"client"`` is the whole client, anything else a group of records inside a client.
        additive: whether the family's update is a sum of one contribution per unit.
        natural_clip: the bound that the family's contributions are made for, if it has one.

    Raises:
        PrivacyConfigError: no guarantee is known for this combination, with the reason and an alternative.

    In mode distributed scale, bits and noise depend on the dimension of an update: ``plan_sizing.sized`` completes the
    plan, which accounts nothing before.
    """
    secure = secure_sum_of(privacy, federation)
    votes, selected = row_votes_of(privacy, federation, unit=unit, additive=additive), federation.rows == "selected"
    if privacy.mode == "none":
        return _unprotected(privacy, federation, unit)
    accounting.check_delta_range(privacy.delta)
    refuse_unproven(privacy.mode, training, unit=unit, additive=additive)
    example, client = privacy.mode == "example", unit == "client"
    draft = PrivacyPlan(
        mode=privacy.mode,
        unit=unit,
        unit_is_client=client,
        adjacency=adjacency_of(privacy.mode, client),
        l2_clip_norm=clip_norm_of(privacy, natural_clip),
        noise_multiplier=privacy.noise_multiplier or 1.0,
        delta=privacy.delta,
        target_epsilon=privacy.epsilon,
        rounds=federation.rounds,
        sampling=federation.sampling,
        rate=client_rate_of(federation),
        local_steps=training.local_steps if example else 0,
        unit_rate=training.unit_rate if example else 0.0,
        test_mode=privacy.test_mode,
        mechanism=mechanisms.load(mechanism_of(privacy)).name,
        rows=federation.rows,
        selection_ratio=privacy.selection_ratio if selected else 0.0,
        selection_threshold=privacy.selection_threshold if selected else 0.0,
        secure=secure,
        votes=votes,
    )
    if secure is not None:
        return draft
    if privacy.epsilon is None:
        draft.round_event("public")  # a mechanism may refuse this much noise or this sampling
        return draft

    sigma = accounting.calibrate(draft.run_event_with, epsilon=privacy.epsilon, delta=privacy.delta)
    return dataclasses.replace(draft, noise_multiplier=sigma)


def _unprotected(privacy: PrivacyConfig, federation: FederationConfig, unit: str) -> PrivacyPlan:
    return PrivacyPlan(
        mode="none",
        unit=unit,
        unit_is_client=unit == "client",
        adjacency="none: nothing is hidden",
        l2_clip_norm=math.inf if privacy.l2_clip_norm is None else check_clip_norm(privacy.l2_clip_norm),
        noise_multiplier=0.0,
        delta=privacy.delta,
        target_epsilon=None,
        rounds=federation.rounds,
        sampling=federation.sampling,
        rate=client_rate_of(federation),
        local_steps=0,
        unit_rate=0.0,
        test_mode=privacy.test_mode,
    )
