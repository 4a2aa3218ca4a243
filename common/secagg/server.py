"""The coordinator's side of secure aggregation: collects each hop's messages, and opens the sum of those who stayed.

A message that does not fit makes its sender a dropout with a reason, never an error of the caller. Where too few are
left, closing a hop raises ``SecAggError`` and nothing is opened. A client cannot lose by what is wrong here: it checks
everything itself (``checks.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from common.errors import SecAggError
from common.secagg.adverts import Advert
from common.secagg.checks import confirmation_statement, roster_expected
from common.secagg.cohort import Cohort, check_advert
from common.secagg.keys import SIGNATURE_BYTES, verify
from common.secagg.masks import Masker, Words, dtype_of
from common.secagg.messages import (
    Confirmations,
    Opening,
    Shares,
    Survivors,
    fields_of,
    parts,
    same,
    to_bitmap,
)
from common.secagg.opening import Masks, Revealed
from common.secagg.packing import unpacked
from common.secagg.roster import Roster
from common.secagg.shamir import SHARE_BYTES, check_share
from common.secagg.terms import Terms
from common.secagg.turns import Hop, Turns


class RoundServer(Turns):
    """One round: adverts and shares once, then masked vectors, confirmations and reveals for every phase.

    Attributes:
        terms: of the round.
        phase: index of the phase.
        hop, awaited, reasons, dropped: see ``Turns``.
    """

    def __init__(self, terms: Terms, roster: Roster | None = None) -> None:
        """``roster`` is the one that signed terms name; raises SecAggError ``no_roster``, ``other_roster``."""
        if terms.signed and roster is None:
            raise SecAggError("no_roster", "a signed round needs a roster")
        roster_expected(terms, roster)
        super().__init__()
        self.terms = terms
        self.phase = 0
        self._roster = roster if terms.signed else None
        self._digest = terms.digest
        self._adverts: dict[str, Advert] = {}
        self._keys: set[bytes] = set()
        self._shares: dict[int, Shares] = {}
        self._confirmed: dict[int, bytes] = {}
        self._revealed: dict[int, Revealed] = {}

    @property
    def survivors(self) -> tuple[str, ...]:
        """Clients whose vectors are in the sum of this phase."""
        return self._cohort.names_of(sorted(self._in_sum))

    # Hop 1

    def accept_advert(self, client: str, data: bytes) -> bool:
        """A client's advert; whether it was taken."""
        return self._accept(client, Hop.ADVERTS, self._take_advert, data)

    def close_adverts(self) -> bytes:
        """The cohort, for everyone; SecAggError ``small_cohort``."""
        self._close(Hop.ADVERTS)
        if len(self._adverts) < self.terms.least_cohort:
            raise self._abort("small_cohort", "fewer clients came than the round needs")
        self._cohort = Cohort(self.terms, self._adverts)
        self._begin(Hop.SHARES, self._cohort.names)
        return self._cohort.message

    # Hop 2

    def accept_shares(self, client: str, data: bytes) -> bool:
        """A client's sealed shares; whether they were taken."""
        return self._accept(client, Hop.SHARES, self._take_shares, data)

    def close_shares(self, bind: bytes = b"") -> dict[str, bytes]:
        """For every client that shared, the opening of the first phase with what its neighbours sealed for it.

        Raises:
            SecAggError: ``too_few_survivors``.
        """
        self._close(Hop.SHARES)
        roll = set(self._shares)
        self._open_phase(roll, bind)
        mail = {self._cohort.names[i]: opening.to_bytes() for i, opening in self._openings_with_mail()}
        self._commitments = {i: self._shares[i].commitments for i in roll}
        self._shares = {}
        return mail

    # Hop 3

    def accept_masked(self, client: str, header: bytes, body: bytes) -> bool:
        """A client's masked vector, added to the sum at once and not kept; whether it was taken."""
        return self._accept(client, Hop.MASKED, self._take_masked, header, body)

    def close_masked(self) -> bytes:
        """Who survived, for everyone who did; SecAggError ``too_few_survivors``."""
        self._close(Hop.MASKED)
        self._require_openable(self._in_sum)
        self._outcome = Survivors(self._opening.view, to_bitmap(self._in_sum, self._cohort.size))
        self._begin(Hop.CONFIRMATIONS, self.survivors)
        return self._outcome.to_bytes()

    # Hop 4

    def accept_confirmation(self, client: str, data: bytes) -> bool:
        """A client's signature on who survived; whether it was taken."""
        return self._accept(client, Hop.CONFIRMATIONS, self._take_confirmation, data)

    def close_confirmations(self) -> dict[str, bytes]:
        """For every client that confirmed, its neighbours' confirmations; SecAggError ``too_few_survivors``."""
        self._close(Hop.CONFIRMATIONS)
        answers, size = {}, self._cohort.size
        for position in sorted(self._confirmed):
            signers = [j for j in self._cohort.of[position] if j in self._confirmed]
            if len(signers) >= self._cohort.threshold:
                signers = signers[: self._cohort.threshold]  # as many as the client needs to see
                signatures = tuple(self._confirmed[j] for j in signers)
                answers[position] = Confirmations(self._outcome.outcome, to_bitmap(signers, size), signatures)
        self._require_openable(set(answers))
        self._begin(Hop.REVEALS, self._cohort.names_of(answers))
        return {self._cohort.names[position]: answer.to_bytes() for position, answer in answers.items()}

    # Hop 5

    def accept_reveal(self, client: str, data: bytes) -> bool:
        """A client's shares of its neighbours' secrets; whether they were taken."""
        return self._accept(client, Hop.REVEALS, self._take_reveal, data)

    def finish(self) -> Words:
        """The sum modulo 2^bits of the survivors' vectors.

        Raises:
            SecAggError: ``too_few_survivors``; ``bad_reveal``: the shares of a secret do not give it back.
        """
        self._close(Hop.REVEALS)
        self._require_openable(set(self._revealed))
        phase, survivors = self.terms.phases[self.phase], frozenset(self._in_sum)
        commitments = {i: self._commitments[i][self.phase] for i in survivors}
        masks = Masks(self._cohort, self._opening.view, self.phase, self._roll, survivors, commitments)
        try:
            masks.take_off(self._total, Masker(phase.bits, phase.length), self._revealed)
        except SecAggError as error:
            raise self._abort(error.code, error.message) from None
        self._begin(Hop.FINISHED, ())
        return self._total

    def next_phase(self, bind: bytes = b"") -> bytes:
        """The opening of the next phase among this one's survivors, for everyone who revealed.

        Raises:
            SecAggError: ``wrong_phase``: this phase is not finished, or was the last.
        """
        if self.hop is not Hop.FINISHED or self.phase + 1 >= len(self.terms.phases):
            raise SecAggError("wrong_phase", "there is no next phase to begin")
        roll, able = self._in_sum, set(self._revealed)
        self.phase += 1
        self._confirmed, self._revealed = {}, {}
        self._open_phase(roll, bind)
        self._begin(Hop.MASKED, self._cohort.names_of(able))
        return self._opening.to_bytes()

    # One message each

    def _take_advert(self, client: str, data: bytes) -> None:
        advert = Advert.from_bytes(data, len(self.terms.phases))
        same(advert.client.encode(), client.encode(), "foreign_id")
        if self._roster is not None and self._roster.key_of(client) != advert.identity:
            raise SecAggError("foreign_identity", "a client's key is not the one in the roster")
        advert.verify(self._digest)
        keys = check_advert(advert)
        if not self._keys.isdisjoint(keys) or len(set(keys)) != len(keys):
            raise SecAggError("duplicate_key", "a key was advertised before")
        self._keys.update(keys)
        self._adverts[client] = advert

    def _take_shares(self, client: str, data: bytes) -> None:
        shares = Shares.from_bytes(data, phases=len(self.terms.phases), degree=self._cohort.degree)
        same(shares.cohort, self._cohort.digest, "wrong_round")
        self._shares[self._cohort.position[client]] = shares

    def _take_masked(self, client: str, header: bytes, body: bytes) -> None:
        same(fields_of(header, "masked", 1)[0], self._opening.view, "wrong_view")
        phase = self.terms.phases[self.phase]
        np.add(self._total, unpacked(body, phase.bits, phase.length), out=self._total)
        self._in_sum.add(self._cohort.position[client])

    def _take_confirmation(self, client: str, data: bytes) -> None:
        outcome, signature = fields_of(data, "confirmation", 2)
        same(outcome, self._outcome.outcome, "wrong_outcome")
        if len(signature) != SIGNATURE_BYTES:
            raise SecAggError("malformed", "a signature has another size")
        verify(self._adverts[client].signing, signature, confirmation_statement(outcome))
        self._confirmed[self._cohort.position[client]] = signature

    def _take_reveal(self, client: str, data: bytes) -> None:
        outcome, joined = fields_of(data, "reveal", 2)
        same(outcome, self._outcome.outcome, "wrong_outcome")
        position = self._cohort.position[client]
        owners = [j for j in self._cohort.of[position] if j in self._roll]
        shares = parts(joined, SHARE_BYTES)
        if len(shares) != len(owners):
            raise SecAggError("malformed", "there is not one share for each neighbour")
        for share in shares:
            check_share(share)
        self._revealed[position] = dict(zip(owners, shares, strict=True))

    # Phases

    def _open_phase(self, roll: set[int], bind: bytes) -> None:
        """Everything of a phase anew: its roll, its view, a sum of nothing."""
        phase = self.terms.phases[self.phase]
        self._roll, self._in_sum = frozenset(roll), set(roll)
        self._require_openable(self._in_sum)
        self._opening = Opening(self._cohort.digest, phase.name, to_bitmap(roll, self._cohort.size), bind)
        self._total: Words = np.zeros(phase.length, dtype=dtype_of(phase.bits))
        self._in_sum = set()
        self._begin(Hop.MASKED, self._cohort.names_of(roll))

    def _openings_with_mail(self) -> Iterator[tuple[int, Opening]]:
        """The first phase's opening for every client, with its senders in their order."""
        salts: dict[int, list[bytes]] = {i: [] for i in sorted(self._roll)}
        sealed: dict[int, list[bytes]] = {i: [] for i in salts}
        for sender in salts:
            shares = self._shares[sender]
            for receiver, message in zip(self._cohort.of[sender], shares.sealed, strict=True):
                if receiver in salts:
                    salts[receiver].append(shares.salt)
                    sealed[receiver].append(message)
        for i in salts:
            yield i, replace(self._opening, salts=tuple(salts[i]), sealed=tuple(sealed[i]))

    def _require_openable(self, responders: set[int]) -> None:
        """Abort unless these can open the sum: enough in it, and enough neighbours of everyone in the roll."""
        if len(self._in_sum) < self.terms.least_survivors:
            raise self._abort("too_few_survivors", "fewer clients are left than may be added up")
        for position in self._roll:
            neighbours = self._cohort.of[position]
            if position not in self._in_sum and self._in_sum.isdisjoint(neighbours):
                continue  # no mask of it is in the sum
            if len(responders.intersection(neighbours)) < self._cohort.threshold:
                raise self._abort("too_few_survivors", "a client's secrets cannot be opened by who is left")

    def _abort(self, code: str, message: str) -> SecAggError:
        """End the round; the error to raise."""
        self._begin(Hop.ABORTED, ())
        self._confirmed, self._revealed, self._shares = {}, {}, {}
        self._total = np.zeros(0, dtype=np.uint8)
        return SecAggError(code, message)
