"""What a client checks of a round of secure aggregation before it gives a key: its own work, and its own policy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from client.admission import Admission
from client.policy import Policy
from common.errors import ConfigError, SecAggError
from common.secagg.client import advertise
from common.secagg.client_state import ClientLimits, ClientState
from common.secagg.graph import withstands
from common.secagg.keys import Identity
from common.secagg.roster import Roster
from common.secagg.terms import Terms
from common.secure_terms import config_digest, phases_of, secure_sum, specs_digest
from common.work import Work

_SITE_FILE = "Correct [secure_aggregation] in site.toml; docs/site.md shows it."


@dataclass(frozen=True)
class Party:
    """Who a client is to the others.

    Attributes:
        name: in the roster; without one, the name that the coordinator gave it.
        identity: its key.
        roster: verified, signed by the organiser whose key is pinned; ``None``: nobody vouches for anybody.
    """

    name: str
    identity: Identity
    roster: Roster | None = None

    @classmethod
    def for_a_round(cls, name: str) -> Self:
        """A name with a key that is used for one round and for nothing else."""
        return cls(name, Identity.fresh(os.urandom))


def party_from(raw: Any, name: str, base: Path) -> Party:
    """Who a site is, from ``[secure_aggregation]`` of its site file: ``identity``, ``roster``, ``organiser``.

    Args:
        raw: ``identity`` and ``roster`` are files (relative to ``base``), ``organiser`` the public key that must have
            signed the roster, in hexadecimal: it is pinned here, and a roster by anybody else is refused.
        name: of the site, in the roster.

    Raises:
        ConfigError: a field is missing, or a file cannot be read.
        SecAggError: the roster is not what the organiser signed, or has another key for this site.
    """
    fields = ("identity", "roster", "organiser")
    if not isinstance(raw, dict) or set(raw) != set(fields) or not all(isinstance(raw[f], str) for f in fields):
        raise ConfigError(
            f"[secure_aggregation] of a site file has exactly the texts {', '.join(fields)}", remedy=_SITE_FILE
        )
    private, data = _named_file(base, "identity", raw), _named_file(base, "roster", raw)
    try:
        organiser = bytes.fromhex(raw["organiser"])
    except ValueError:
        raise ConfigError(
            "[secure_aggregation] organiser of a site file is no public key in hexadecimal", remedy=_SITE_FILE
        ) from None
    identity = Identity.from_pem(private)
    roster = Roster.from_bytes(data, pinned_organiser=organiser)
    if roster.key_of(name) != identity.public:
        raise SecAggError("foreign_identity", f"the roster has another key for {name!r} than the site's identity")
    return Party(name, identity, roster)


def _named_file(base: Path, field: str, raw: dict[str, str]) -> bytes:
    path = base / raw[field]
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}, the {field} of [secure_aggregation] in the site file: {error.strerror}",
            remedy=f"Put the file there, or correct `{field}` in site.toml; `fedembed roster sign` makes a roster.",
        ) from None


def advert_for(
    admitted: Admission, policy: Policy, party: Party, *, terms_bytes: bytes
) -> tuple[Terms, ClientState, bytes]:
    """Terms, first state and advert for a round that this client's work and policy allow.

    Raises:
        SecAggError: other terms than this client derives from the run itself, or weaker ones than its policy.
    """
    terms, work = Terms.from_bytes(terms_bytes), admitted.work
    secure = secure_sum(work)
    expected = (admitted.run, phases_of(work, terms.round), secure.survivors, secure.survivors, secure.roster)
    given = (terms.run, terms.phases, terms.least_cohort, terms.least_survivors, terms.signed)
    if given != expected or not 1 <= terms.round <= work.plan.rounds:
        raise SecAggError("other_terms", "the round's terms are not those of the run that this client admitted")
    limits = ClientLimits(
        least_cohort=policy.min_cohort,
        least_survivors=policy.min_survivors,
        roster_required=policy.roster_required,
        config_hash=config_digest(work),
        model_hash=specs_digest(work.specs),
    )
    state, message = advertise(
        terms_bytes, party.name, identity=party.identity, limits=limits, roster=party.roster, entropy=os.urandom
    )
    return terms, state, message


def refuse_weak_graph(work: Work, state: ClientState) -> None:
    """Erase ``state`` and raise unless its neighbours and their threshold keep out as many colluders as are accounted.

    Raises:
        SecAggError: ``weak_terms``.
    """
    secure, place = secure_sum(work), state.known_place
    colluding = secure.colluders / place.size
    if not withstands(place.size, len(place.neighbours), place.threshold, colluding=colluding, signed=secure.roster):
        state.abort()
        raise SecAggError("weak_terms", "the graph does not keep out as many colluding neighbours as are accounted")
