"""Rounds of mode distributed: from a cohort to the released sum, by the protocol or (in simulations) in the clear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import ConfigError, RoundError
from common.privacy.distributed import released_from_sum
from common.privacy.private_sum import Released
from common.privacy.rotation import rotation_seed
from common.secagg.masks import Words
from common.secagg.packing import unpacked
from common.secagg.roster import Roster
from common.secagg.terms import Terms
from common.secure_terms import model_digest, round_terms, secure_sum
from common.work import Work
from server.checkpoint import RunState
from server.delivery import Delivery
from server.secure_round import Hops, Member, SecureRound


@dataclass(frozen=True)
class SecureOutcome:
    """What a round gave: the released sum, how many clients are in it, and what became of the others."""

    released: Released
    survivors: int
    reasons: Counter[str]


class SecureSums:
    """The secure sums of one run; adverts for the next round are kept between rounds.

    Raises:
        ConfigError, SecAggError: the roster that the scenario names cannot be read, or is not one.
    """

    def __init__(self, work: Work, delivery: Delivery, run: str) -> None:
        self._work = work
        self._delivery = delivery
        self._run = run
        self._adverts: dict[str, bytes] = {}
        self._roster = _roster(work.scenario.federation.roster)

    def round(self, state: RunState, members: Sequence[Member], *, attempt: int, last: bool) -> SecureOutcome:
        """One round over ``members``.

        Args:
            last: no round follows, so no adverts for one are asked.

        Raises:
            RoundError: too few clients were left; nothing was opened.
            PrivacyConfigError: the cohort does not fit the plan.
        """
        number = state.round + 1
        terms = self._terms(number, attempt, len(members))
        if secure_sum(self._work).aggregation == "ideal":
            total, survivors, reasons = self._in_the_clear(state, members, terms)
        else:
            total, survivors, reasons = self._protocol(state, members, terms, last=last)
        released = released_from_sum(
            self._work.plan,
            self._work.update_specs,
            total,
            rotation_seed=rotation_seed(self._work.scenario.seed, number),
        )
        return SecureOutcome(released, survivors, reasons)

    def _terms(self, number: int, attempt: int, cohort: int) -> Terms:
        return round_terms(self._work, self._run, number=number, attempt=attempt, cohort=cohort)

    def _protocol(
        self, state: RunState, members: Sequence[Member], terms: Terms, *, last: bool
    ) -> tuple[Words, int, Counter[str]]:
        riding = not last and self._work.scenario.federation.sampling == "full"  # else the next cohort is not known
        following = self._terms(terms.round + 1, 1, len(members)) if riding else None
        adverts = self._adverts if terms.attempt == 1 else {}
        machine = SecureRound(self._delivery, self._run, terms, adverts=adverts, roster=self._roster)
        digest = model_digest(state.parameters, self._work.specs)
        total = machine.total(members, state, model_digest=digest, following=following)
        self._adverts = machine.next_adverts
        return total, machine.survivors, machine.reasons

    def _in_the_clear(
        self, state: RunState, members: Sequence[Member], terms: Terms
    ) -> tuple[Words, int, Counter[str]]:
        """The integers of all clients added up as they are: the same sum as the protocol's, which nobody is hidden by.

        Raises:
            RoundError: fewer clients than the noise was shared out for.
        """
        phase = terms.phases[0]
        total = np.zeros(phase.length, np.uint64)
        names: list[str] = []

        def take(name: str, body: bytes) -> None:
            np.add(total, unpacked(body, phase.bits, phase.length), out=total)
            names.append(name)

        hops = Hops(self._delivery, self._run, terms, members)
        hops.ask("train.unmasked", [m.name for m in members], take, table=state)
        if len(names) < terms.least_survivors:
            told = ", ".join(f"{k} {v}" for k, v in sorted(hops.reasons.items()))
            raise RoundError(
                f"round {terms.round} had {len(names)} usable replies, {terms.least_survivors} are required ({told})"
            )
        modulus = np.uint64((1 << phase.bits) - 1)
        return (
            (total & modulus).astype(np.uint16 if phase.bits == 16 else np.uint32),
            len(names),
            hops.reasons + Counter(ok=len(names)),
        )


def _roster(path: str) -> Roster | None:
    """The roster of a run, as the coordinator relays it; every client pins its own copy."""
    if not path:
        return None
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read federation.roster = {path}: {error.strerror}") from None
    return Roster.from_bytes(data, pinned_organiser=None)
