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

if TYPE_CHECKING:
    from dp_accounting import DpEvent


__all__ = ["OBSERVERS", "PrivacyPlan", "make_plan"]

_ADD_REMOVE_CLIENT = "add or remove everything one client contributes (how many clients are enrolled is public)"
_ADD_REMOVE_UNIT = "add or remove one unit of a client (that the client takes part is not hidden)"
_ZERO_OUT_CLIENT = "zero-out: a client's update is replaced by zero (that it takes part is not hidden)"


@dataclass(frozen=True)
class PrivacyPlan:
    """One run's privacy, completely fixed. Make it with ``make_plan``.

    Attributes:
        mode: ``none``, ``central``, ``local`` or ``example``.
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

    @property
    def noise_stddev(self) -> float:
        """Standard deviation of the noise on every coordinate of the sum (or update, or step)."""
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
    def amplified(self) -> bool:
        """Whether the secrecy of who was drawn counts: only whole clients in mode central, drawn by Poisson."""
        return self.mode == "central" and self.unit_is_client and self.sampling == "poisson"

    def protects(self, observer: str) -> bool:
        """Whether anything is promised against ``observer``. Raises ``PrivacyConfigError`` for an unknown one."""
        if observer not in OBSERVERS:
            raise PrivacyConfigError(f"unknown observer {observer!r}; known: {', '.join(OBSERVERS)}")
        return self.mode in ("local", "example") or (self.mode == "central" and observer != "coordinator")

    def round_event(self, observer: str) -> DpEvent:
        """What one round costs against ``observer``."""
        import dp_accounting as dp

        if not self.protects(observer):
            return dp.NonPrivateDpEvent()
        step = self._release_event(self.noise_multiplier)
        if self.mode == "example":
            drawn = dp.PoissonSampledDpEvent(self.unit_rate, step) if self.unit_rate < 1 else step
            return dp.SelfComposedDpEvent(drawn, self.local_steps)
        return dp.PoissonSampledDpEvent(self.rate, step) if self.amplified and self.rate < 1 else step

    def _release_event(self, noise_multiplier: float) -> DpEvent:
        return mechanisms.load(self.mechanism).event(noise_multiplier)

    def event(self, observer: str, rounds: int) -> DpEvent:
        """What ``rounds`` rounds cost against ``observer``."""
        return _repeated(self.round_event(observer), rounds)

    def epsilon(self, observer: str, rounds: int | None = None) -> float:
        """Epsilon at ``delta`` against ``observer`` after ``rounds`` (default: all); ``inf`` where nothing protects.

        In test mode this is what the noise would be worth if it were secret; ``claim`` reports no epsilon then.
        """
        return accounting.epsilon(self.event(observer, self.rounds if rounds is None else rounds), self.delta)

    def client_run_event(self) -> DpEvent:
        """What one client's ledger is charged when the whole planned run is reserved before the first draw."""
        return self.event("public", self.rounds)

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

    def claim(self, rounds_released: int) -> dict[str, Any]:
        """The certificate: what is promised to whom after ``rounds_released`` rounds. See ``common.privacy.claim``."""
        return make_claim(self, rounds_released)


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
    """
    selected = federation.rows == "selected"
    if selected and privacy.mode != "example":
        raise PrivacyConfigError("federation.rows = 'selected' is offered in mode 'example' alone")
    if privacy.mode == "none":
        return _unprotected(privacy, federation, unit)
    accounting.check_delta_range(privacy.delta)
    _refuse_unproven(privacy.mode, training, unit=unit, additive=additive)
    example, client = privacy.mode == "example", unit == "client"
    draft = PrivacyPlan(
        mode=privacy.mode,
        unit=unit,
        unit_is_client=client,
        adjacency=adjacency_of(privacy.mode, client),
        l2_clip_norm=_clip_norm(privacy, natural_clip),
        noise_multiplier=privacy.noise_multiplier or 1.0,
        delta=privacy.delta,
        target_epsilon=privacy.epsilon,
        rounds=federation.rounds,
        sampling=federation.sampling,
        rate=_client_rate(federation),
        local_steps=training.local_steps if example else 0,
        unit_rate=training.unit_rate if example else 0.0,
        test_mode=privacy.test_mode,
        mechanism=mechanisms.load(privacy.mechanism).name,
        rows=federation.rows,
        selection_ratio=privacy.selection_ratio if selected else 0.0,
        selection_threshold=privacy.selection_threshold if selected else 0.0,
    )
    if privacy.epsilon is None:
        draft.round_event("public")  # a mechanism may refuse this much noise or this sampling
        return draft

    def run_event(sigma: float) -> DpEvent:
        return dataclasses.replace(draft, noise_multiplier=sigma).client_run_event()

    sigma = accounting.calibrate(run_event, epsilon=privacy.epsilon, delta=privacy.delta)
    return dataclasses.replace(draft, noise_multiplier=sigma)


def _clip_norm(privacy: PrivacyConfig, natural_clip: float | None) -> float:
    clip_norm = privacy.l2_clip_norm if privacy.l2_clip_norm is not None else natural_clip
    if clip_norm is None:
        raise PrivacyConfigError(
            "privacy.l2_clip_norm is missing: this family has no natural bound on a contribution",
            remedy="Set privacy.l2_clip_norm, for example to the median norm seen on public data.",
        )
    return check_clip_norm(clip_norm)


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
        rate=_client_rate(federation),
        local_steps=0,
        unit_rate=0.0,
        test_mode=privacy.test_mode,
    )


def _client_rate(federation: FederationConfig) -> float:
    if federation.sampling == "poisson":
        return federation.rate
    if federation.rate != 1.0:
        raise PrivacyConfigError(
            f"federation.rate = {federation.rate:g} has no effect with sampling = 'full'",
            remedy="Set federation.sampling = 'poisson', or leave the rate at 1.",
        )
    return 1.0


def adjacency_of(mode: str, client: bool) -> str:
    """Which two data sets a mode's guarantee compares, in words."""
    if not client:
        return _ADD_REMOVE_UNIT
    return _ADD_REMOVE_CLIENT if mode == "central" else _ZERO_OUT_CLIENT


def _refuse_unproven(mode: str, training: TrainingConfig, *, unit: str, additive: bool) -> None:
    if mode == "example":
        _refuse_example(training, unit)
    elif unit != "client" and not additive:
        raise PrivacyConfigError(
            f"mode {mode!r} cannot protect the unit {unit!r} with this family: its local steps mix the units, so "
            "clipping the client's update does not bound what one unit changes",
            remedy="Set data.unit = 'client', or privacy.mode = 'example', or use a family that sums one contribution "
            "per unit (spectral).",
        )


def _refuse_example(training: TrainingConfig, unit: str) -> None:
    if unit == "client":
        raise PrivacyConfigError(
            "mode 'example' clips single units inside a client, so it cannot protect the whole client",
            remedy="Set data.unit to a group of records (record, sentence, document), or privacy.mode = 'local'.",
        )
    if training.local_steps < 1:
        raise PrivacyConfigError(
            "mode 'example' needs training.local_steps: a number of steps that follows from the size of a client's "
            "data would tell that size and cannot be accounted in advance",
            remedy="Set training.local_steps to the same public number for every client.",
        )
    if not training.unit_rate > 0:
        raise PrivacyConfigError(
            "mode 'example' needs training.unit_rate > 0: the public chance that a unit enters a step; batch_size "
            "divided by a client's own number of units would be private",
            remedy="Set training.unit_rate, for example batch_size / a public guess of the units per client.",
        )


def _repeated(event: DpEvent, times: int) -> DpEvent:
    import dp_accounting as dp

    if times < 0:
        raise PrivacyConfigError(f"rounds must not be negative, not {times}")
    if times == 0:
        return dp.NoOpDpEvent()
    return event if times == 1 else dp.SelfComposedDpEvent(event, times)
