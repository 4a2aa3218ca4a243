"""Taking the masks off a sum: secrets from shares, checked against what clients committed to, then the masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from common.errors import SecAggError
from common.secagg.cohort import Cohort
from common.secagg.derivations import pair_seed, self_commitment, self_seed
from common.secagg.keys import AgreementKey, agreement_public
from common.secagg.masks import Masker, Words
from common.secagg.shamir import Recombiner

Revealed = Mapping[int, bytes]  # owner of a secret -> the share of it that one client revealed
_STREAMS_IN_A_PASS = 256  # cipher states that are open at once


@dataclass(frozen=True)
class Masks:
    """Which masks are in the sum of a phase.

    Attributes:
        cohort: the clients.
        view: of the phase.
        phase: its index.
        roll: whom the survivors masked towards.
        survivors: whose vectors are in the sum.
        commitments: of each survivor's self-mask secret.
    """

    cohort: Cohort
    view: bytes
    phase: int
    roll: frozenset[int]
    survivors: frozenset[int]
    commitments: Mapping[int, bytes]

    def take_off(self, total: Words, masker: Masker, revealed: Mapping[int, Revealed]) -> None:
        """Remove every mask from ``total`` in place, after all secrets are known and checked.

        Raises:
            SecAggError: ``bad_reveal``: the shares of a secret, whichever are taken, do not give it back;
                ``too_few_shares``. The sum is as it was.
        """
        pieces = _Pieces(self.cohort, revealed)
        own = {i: pieces.secret(i, self._is_self_secret(i)) for i in sorted(self.survivors)}
        lost = [j for j in sorted(self.roll - self.survivors) if not self.survivors.isdisjoint(self.cohort.of[j])]
        keys = {j: pieces.secret(j, self._is_masking_key(j)) for j in lost}
        seeds = self._seeds(own, keys)
        while batch := list(islice(seeds, _STREAMS_IN_A_PASS)):
            masker.apply(
                total,
                plus=[seed for seed, sign in batch if sign > 0],
                minus=[seed for seed, sign in batch if sign < 0],
            )

    def _seeds(self, own: Mapping[int, bytes], keys: Mapping[int, bytes]) -> Iterator[tuple[bytes, int]]:
        """Seeds of the masks, each with the sign that undoes it."""
        cohort = self.cohort
        for secret in own.values():
            yield self_seed(secret, self.view), -1
        for j, secret in keys.items():
            private = AgreementKey(secret)
            for i in cohort.of[j]:
                if i in self.survivors:
                    public, pair = cohort.adverts[i].masking[self.phase], (cohort.names[i], cohort.names[j])
                    # Whoever of a pair sorts first added the mask.
                    yield pair_seed(private, public, view=self.view, pair=pair), -1 if i < j else 1

    def _is_self_secret(self, owner: int) -> Callable[[bytes], bool]:
        cohort, phase = self.cohort, self.cohort.phases[self.phase]
        name, known = cohort.names[owner], self.commitments[owner]
        return lambda secret: self_commitment(secret, cohort=cohort.digest, client=name, phase=phase) == known

    def _is_masking_key(self, owner: int) -> Callable[[bytes], bool]:
        known = self.cohort.adverts[owner].masking[self.phase]
        return lambda secret: agreement_public(secret) == known


class _Pieces:
    """Shares by owner. Lagrange's coefficients are computed once for each set of places: since the places count an
    owner's own neighbours, most owners of a cohort without dropouts share one set."""

    def __init__(self, cohort: Cohort, revealed: Mapping[int, Revealed]) -> None:
        self._cohort, self._revealed = cohort, revealed
        self._recombiners: dict[tuple[int, ...], Recombiner] = {}

    def secret(self, owner: int, right: Callable[[bytes], bool]) -> bytes:
        """The secret that passes its check; where a wrong share is among them, other sets of shares are tried."""
        threshold = self._cohort.threshold
        found = [
            (place, self._revealed[holder][owner])
            for place, holder in enumerate(self._cohort.of[owner], start=1)
            if holder in self._revealed
        ]
        if len(found) < threshold:
            raise SecAggError("too_few_shares", "fewer shares of a secret came than its threshold")
        for start in range(len(found) if len(found) > threshold else 1):
            chosen = sorted((found + found)[start : start + threshold])
            if (secret := self._combined(chosen)) is not None and right(secret):
                return secret
        raise SecAggError("bad_reveal", "the shares of a secret do not give it back")

    def _combined(self, chosen: Sequence[tuple[int, bytes]]) -> bytes | None:
        places = tuple(place for place, _ in chosen)
        if places not in self._recombiners:
            self._recombiners[places] = Recombiner(places)
        try:
            return self._recombiners[places].combine([share for _, share in chosen])
        except SecAggError:
            return None  # not the shares of any 32-byte secret
