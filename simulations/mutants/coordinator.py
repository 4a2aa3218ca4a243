"""A coordinator of secure aggregation that takes what it should not: messages of others, of other views, too late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common.errors import SecAggError
from common.secagg import server
from common.secagg.adverts import Advert
from common.secagg.cohort import Cohort
from common.secagg.messages import same
from common.secagg.packing import packed_size, unpacked
from common.secagg.server import RoundServer
from common.secagg.turns import Hop, Turns
from simulations.mutants import Mutant, broken

_TAKE_ADVERT, _ACCEPT = RoundServer._take_advert, Turns._accept


def _nothing(*given: Any, **named: Any) -> None:
    """A check that is not made."""


def _same_but(skipped: str) -> Callable[[bytes, bytes, str], None]:
    """What a message states is compared, but for one thing."""

    def compared(stated: bytes, known: bytes, code: str) -> None:
        if code != skipped:
            same(stated, known, code)

    return compared


def _without_roster(self: RoundServer, client: str, data: bytes) -> None:
    self._roster = None
    _TAKE_ADVERT(self, client, data)


def _any_keys(self: RoundServer, client: str, data: bytes) -> None:
    self._keys.clear()
    _TAKE_ADVERT(self, client, data)


def _keys_unread(advert: Advert) -> tuple[bytes, ...]:
    return advert.identity, advert.signing, advert.sealing, *advert.masking


def _any_cohort(self: RoundServer) -> bytes:
    """Whoever came is enough."""
    self._close(Hop.ADVERTS)
    self._cohort = Cohort(self.terms, self._adverts)
    self._begin(Hop.SHARES, self._cohort.names)
    return self._cohort.message


def _filled_up(data: bytes, bits: int, length: int) -> Any:
    """A vector that is too short ends in zeros."""
    return unpacked(data.ljust(packed_size(length, bits), b"\0"), bits, length)


def _at_any_time(self: Turns, client: str, hop: Hop, take: Callable[..., None], *message: bytes) -> bool:
    """Messages of a hop that is over are still taken."""
    if self.hop > hop:
        take(client, *message)
        return True
    return _ACCEPT(self, client, hop, take, *message)


def _again(self: Turns, client: str, hop: Hop, take: Callable[..., None], *message: bytes) -> bool:
    """A client may answer twice."""
    if self.hop is hop and client in self._heard:
        self._awaited.add(client)
    return _ACCEPT(self, client, hop, take, *message)


def _from_anybody(self: Turns, client: str, hop: Hop, take: Callable[..., None], *message: bytes) -> bool:
    """A message counts whoever sends it."""
    if self.hop is hop and client not in self._heard:
        try:
            self._awaited.discard(client)
            take(next(iter(sorted(self._heard)), client), *message)
        except SecAggError:
            return False
        return True
    return _ACCEPT(self, client, hop, take, *message)


def _compares_all_but(code: str, killed_by: str, name: str) -> Mutant:
    return broken(name, killed_by, owner=server, attribute="same", by=_same_but(code))


MUTANTS = (
    _compares_all_but("foreign_id", "coordinator_reads_adverts", "the coordinator takes adverts under another's name"),
    broken(
        "the coordinator takes adverts that nobody signed",
        "coordinator_reads_adverts",
        owner=Advert,
        attribute="verify",
        by=_nothing,
    ),
    broken(
        "the coordinator looks nobody up in the roster",
        "coordinator_reads_adverts",
        owner=RoundServer,
        attribute="_take_advert",
        by=_without_roster,
    ),
    broken(
        "the coordinator takes one key from two clients",
        "coordinator_reads_adverts",
        owner=RoundServer,
        attribute="_take_advert",
        by=_any_keys,
    ),
    broken(
        "the coordinator takes keys of small order",
        "coordinator_reads_adverts",
        owner=server,
        attribute="check_advert",
        by=_keys_unread,
    ),
    broken(
        "the coordinator begins with any cohort",
        "coordinator_wants_its_minimum",
        owner=RoundServer,
        attribute="close_adverts",
        by=_any_cohort,
    ),
    _compares_all_but("wrong_round", "coordinator_reads_vectors", "the coordinator takes shares for another cohort"),
    _compares_all_but("wrong_view", "coordinator_reads_vectors", "the coordinator takes vectors of another view"),
    broken(
        "the coordinator fills up short vectors",
        "coordinator_reads_vectors",
        owner=server,
        attribute="unpacked",
        by=_filled_up,
    ),
    _compares_all_but("wrong_outcome", "coordinator_reads_outcomes", "the coordinator takes answers to other outcomes"),
    broken(
        "the coordinator takes confirmations that nobody signed",
        "coordinator_reads_outcomes",
        owner=server,
        attribute="verify",
        by=_nothing,
    ),
    broken(
        "the coordinator takes shares outside of the field",
        "coordinator_reads_outcomes",
        owner=server,
        attribute="check_share",
        by=_nothing,
    ),
    broken(
        "the coordinator adds up late vectors",
        "coordinator_hears_once_and_in_time",
        owner=Turns,
        attribute="_accept",
        by=_at_any_time,
    ),
    broken(
        "the coordinator adds up a vector twice",
        "coordinator_hears_once_and_in_time",
        owner=Turns,
        attribute="_accept",
        by=_again,
    ),
    broken(
        "the coordinator adds up a stranger's vector",
        "coordinator_hears_once_and_in_time",
        owner=Turns,
        attribute="_accept",
        by=_from_anybody,
    ),
)
