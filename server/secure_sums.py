"""Rounds of mode distributed: from a cohort to the released sum, by the protocol or (in simulations) in the clear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from common.errors import ConfigError, PrivacyConfigError, RoundError
from common.privacy.distributed import released_from_sum
from common.privacy.private_sum import Released
from common.privacy.rotation import rotation_seed
from common.privacy.selected_rows import on_rows, rows_bytes, selected_rows
from common.secagg.masks import Words, dtype_of
from common.secagg.packing import unpacked
from common.secagg.roster import Roster
from common.secagg.terms import Terms
from common.secure_terms import VOTES, model_digest, round_terms, rows_digest, secure_sum
from common.table import IntArray
from common.work import Work
from server.checkpoint import RunState
from server.delivery import Delivery
from server.secure_round import Hops, Member, SecureRound


@dataclass(frozen=True)
class SecureOutcome:
    """What a round gave.

    Attributes:
        released: the sum.
        survivors: clients in it.
        reasons: what became of the others, counted.
        selected: the rows that it is over, where clients vote on rows.
    """

    released: Released
    survivors: int
    reasons: Counter[str]
    selected: IntArray | None = None


class Sums(Protocol):
    """Where the sums of a round's phases come from, one after the other."""

    def total(
        self, bind: bytes, asked: Mapping[str, Any], *, table: RunState | None = None, following: Terms | None = None
    ) -> Words:
        """See ``SecureRound.total``."""

    @property
    def survivors(self) -> int:
        """Clients in the last sum."""

    @property
    def reasons(self) -> Counter[str]:
        """What became of the clients, counted."""


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
        self._advertised: Terms | None = None  # what these adverts are for
        self._roster = _roster(work.scenario.federation.roster)

    def round(self, state: RunState, members: Sequence[Member], *, attempt: int, last: bool) -> SecureOutcome:
        """One round over ``members``.

        Args:
            last: no round follows, so no adverts for one are asked.

        Raises:
            RoundError: too few clients were left, or a cohort that the plan is not for; nothing was opened.
        """
        terms = self._terms(state.round + 1, attempt, len(members))
        if secure_sum(self._work).aggregation == "ideal":
            return self._summed(state, terms, InTheClear(self._delivery, self._run, terms, members))
        riding = not last and self._work.scenario.federation.sampling == "full"  # else the next cohort is not known
        following = self._terms(terms.round + 1, 1, len(members)) if riding else None
        adverts = self._adverts if terms == self._advertised else {}  # not of another attempt, or another cohort
        machine = SecureRound(self._delivery, self._run, terms, members, adverts=adverts, roster=self._roster)
        outcome = self._summed(state, terms, machine, following)
        self._adverts, self._advertised = machine.next_adverts, following
        return outcome

    def _terms(self, number: int, attempt: int, cohort: int) -> Terms:
        try:
            asked = {"number": number, "attempt": attempt, "cohort": cohort}
            return round_terms(self._work, self._run, **asked, roster=self._roster)
        except PrivacyConfigError as error:  # a cohort drawn by chance; one of everybody was looked at on enrolment
            raise RoundError(f"round {number}: {error.message}; nobody was asked", remedy=error.hint) from None

    def _summed(self, state: RunState, terms: Terms, sums: Sums, following: Terms | None = None) -> SecureOutcome:
        """The values of all rows; or votes, in rounds that select rows, and then the values of those selected last."""
        work, plan, rows = self._work, self._work.plan, state.selected
        bind, asked = model_digest(state.parameters, work.specs), {}
        if plan.votes is not None:
            if terms.phases[0].name == VOTES:
                rows = selected_rows(plan.vote_grid, sums.total(b"", {}))
            rows = np.empty(0, np.int64) if rows is None else rows
            bind, asked = rows_digest(rows, bind), {"rows": rows_bytes(rows)}
        total = sums.total(bind, asked, table=state, following=following)
        turn = rotation_seed(work.scenario.seed, terms.round)
        released = released_from_sum(plan, work.sum_specs, total, rotation_seed=turn)
        if rows is not None:
            released = on_rows(released, rows)
        return SecureOutcome(released, sums.survivors, sums.reasons, rows)


class InTheClear:
    """The integers of all clients added up as they are: the same sums as the protocol's, which nobody is hidden by."""

    def __init__(self, delivery: Delivery, run: str, terms: Terms, members: Sequence[Member]) -> None:
        self._terms = terms
        self._hops = Hops(delivery, run, terms, members)
        self._left = [member.name for member in members]
        self._done = 0

    @property
    def survivors(self) -> int:
        """See ``Sums``."""
        return len(self._left)

    @property
    def reasons(self) -> Counter[str]:
        """See ``Sums``."""
        return self._hops.reasons + Counter(ok=self.survivors)

    def total(
        self, bind: bytes, asked: Mapping[str, Any], *, table: RunState | None = None, following: Terms | None = None
    ) -> Words:
        """See ``Sums``: nothing is bound, and no adverts ride.

        Raises:
            RoundError: fewer clients than the noise was shared out for.
        """
        phase = self._terms.phases[self._done]
        total = np.zeros(phase.length, np.uint64)
        names: list[str] = []

        def take(name: str, body: bytes) -> None:
            np.add(total, unpacked(body, phase.bits, phase.length), out=total)
            names.append(name)

        self._hops.ask("train.unmasked", self._left, take, config={**asked, "phase": phase.name}, table=table)
        self._left, self._done = names, self._done + 1
        if len(names) < self._terms.least_survivors:
            told = ", ".join(f"{k} {v}" for k, v in sorted(self._hops.reasons.items()))
            raise RoundError(
                f"round {self._terms.round} had {len(names)} usable replies, {self._terms.least_survivors} are "
                f"required ({told})"
            )
        return (total & np.uint64((1 << phase.bits) - 1)).astype(dtype_of(phase.bits))


def _roster(path: str) -> Roster | None:
    """The roster of a run, as the coordinator relays it; every client pins its own copy."""
    if not path:
        return None
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read federation.roster = {path}: {error.strerror}") from None
    return Roster.from_bytes(data, pinned_organiser=None)
