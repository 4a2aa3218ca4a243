"""What a client verifies before it goes on; each function is one rule, raises its own code and reveals nothing.

Why they suffice (t shares open a secret of a client with k neighbours, c of which collude with the coordinator): an
honest neighbour gives one share, of the self-mask secret or of the masking key, and t > (k + c) / 2 leaves no two sets
of t that share no honest neighbour, so nobody's two secrets ever open together. With signed confirmations from t of
its own neighbours, a client that helps to open a sum knows that its own masking key was not opened: those t signed
that it survived, and sign one outcome only. Bell et al. 2020, section 4; Bonawitz et al. 2017, section 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from common.errors import SecAggError
from common.secagg.adverts import Advert, Adverts
from common.secagg.client_state import ClientLimits, ClientState, Place
from common.secagg.graph import COMPLETE_UP_TO
from common.secagg.keys import Identity, verify
from common.secagg.messages import Confirmations, Opening, Survivors, context, from_bitmap, same
from common.secagg.roster import Roster
from common.secagg.terms import Terms

# Before the advert


def sizes_allowed(terms: Terms, limits: ClientLimits) -> None:
    """The coordinator may not lower this client's own minimum of clients or survivors."""
    if terms.least_cohort < limits.least_cohort or terms.least_survivors < limits.least_survivors:
        raise SecAggError("weak_terms", "the terms ask for fewer clients or survivors than this client's policy")


def lengths_allowed(terms: Terms, limits: ClientLimits) -> None:
    """No vector is longer than this client computes."""
    if any(phase.length > limits.most_length for phase in terms.phases):
        raise SecAggError("too_long", "a vector is longer than this client's policy allows")


def hashes_expected(terms: Terms, limits: ClientLimits) -> None:
    """Configuration and model are the ones that this client was given."""
    if limits.config_hash not in (None, terms.config_hash):
        raise SecAggError("wrong_config", "the terms name another configuration than this client was given")
    if limits.model_hash not in (None, terms.model_hash):
        raise SecAggError("wrong_model", "the terms name another model than this client was given")


def roster_present(terms: Terms, limits: ClientLimits, roster: Roster | None) -> None:
    """A client that wants a roster takes part in signed rounds only; a signed round needs a roster."""
    if limits.roster_required and not terms.signed:
        raise SecAggError("roster_required", "this client's policy takes part in rounds with a roster only")
    if terms.signed and roster is None:
        raise SecAggError("no_roster", "the round needs a roster and this client has none")


def roster_expected(terms: Terms, roster: Roster | None) -> None:
    """A signed round is among the members of the very roster that this client pins, to the last byte of its file."""
    if terms.signed and roster is not None and roster.file_hash != terms.roster_hash:
        raise SecAggError("other_roster", "the terms name another roster than this client pins")


def own_identity(terms: Terms, me: str, *, identity: Identity, roster: Roster | None) -> None:
    """In a signed round, the roster has this client's key under its name."""
    if terms.signed and roster is not None and roster.key_of(me) != identity.public:
        raise SecAggError("foreign_identity", "the roster has another key under this client's name")


# Before the shares


def own_advert(adverts: Adverts, state: ClientState) -> int:
    """The cohort has this client's advert as it was sent; its position."""
    if state.me not in adverts.names:
        raise SecAggError("not_included", "the cohort does not have this client")
    position = adverts.names.index(state.me)
    same(adverts[position].to_bytes(), state.advert, "foreign_advert")
    return position


def cohort_large_enough(size: int, state: ClientState) -> None:
    """No sum of fewer clients than the terms or this client's policy say is even begun."""
    if size < max(state.terms.least_cohort, state.limits.least_cohort):
        raise SecAggError("small_cohort", "the cohort has fewer clients than agreed")


def keys_distinct(adverts: Adverts) -> None:
    """Nobody advertises a key twice, or somebody else's."""
    if any(len(set(keys)) != len(keys) for keys in adverts.keys_by_kind()):
        raise SecAggError("duplicate_key", "a key is in the cohort twice")


def identities_known(adverts: Iterable[Advert], state: ClientState) -> None:
    """In a signed round every client has its key from the roster: the coordinator cannot invent any."""
    if state.terms.signed:
        for advert in adverts:
            if state.roster is None or state.roster.key_of(advert.client) != advert.identity:
                raise SecAggError("foreign_identity", "a client's key is not the one in the roster")


def adverts_signed(adverts: Iterable[Advert], terms: Terms) -> None:
    """Each advert is signed by its identity for these very terms."""
    digest = terms.digest
    for advert in adverts:
        advert.verify(digest)


def degree_allowed(degree: int, size: int, *, limits: ClientLimits) -> None:
    """Large cohorts have the neighbours that this client's policy wants."""
    if size > COMPLETE_UP_TO and degree < min(limits.least_degree, size - 1):
        raise SecAggError("weak_terms", "the terms ask for fewer neighbours than this client's policy")


# Before the masked vector


def opening_expected(opening: Opening, state: ClientState, *, phase: int) -> None:
    """The opening is of this cohort, and of the phase whose turn it is."""
    same(opening.cohort, state.known_place.cohort, "wrong_round")
    same(opening.phase.encode(), state.terms.phases[phase].name.encode(), "wrong_phase")


def bind_expected(opening: Opening, bind: bytes) -> None:
    """What the coordinator binds this phase to is what this client computed from the data it got."""
    same(opening.bind, bind, "wrong_bind")


def roll_continued(opening: Opening, state: ClientState) -> None:
    """A later phase begins with the survivors of the phase before, as they were confirmed."""
    same(opening.roll, state.survivors, "wrong_roll")


def contains_me(members: Iterable[int], place: Place) -> None:
    """This client is among those it is told of."""
    if place.position not in members:
        raise SecAggError("not_included", "the coordinator counts this client as dropped")


def enough(members: Sequence[int] | frozenset[int], state: ClientState) -> None:
    """No sum of fewer vectors than agreed is masked for, confirmed or opened."""
    if len(members) < state.floor:
        raise SecAggError("too_few_survivors", "fewer clients are left than agreed")


def enough_neighbours(members: Iterable[int], place: Place) -> None:
    """So many of this client's neighbours are left that fewer than the threshold colluding ones cannot be all."""
    inside = set(members)
    if sum(position in inside for position, _ in place.neighbours) < place.threshold:
        raise SecAggError("too_few_neighbours", "fewer neighbours are left than open a secret")


# Before the confirmation


def view_same(survivors: Survivors, state: ClientState) -> None:
    """The survivors are those of the view in which this client masked."""
    same(survivors.view, state.known_opening.view, "wrong_view")


def within_roll(members: Iterable[int], state: ClientState) -> None:
    """Nobody survives who was not there."""
    if not state.roll.issuperset(members):
        raise SecAggError("foreign_id", "a survivor was not in the phase")


# Before the reveal


def outcome_same(confirmations: Confirmations, outcome: Survivors) -> None:
    """The confirmations are of the outcome that this client confirmed."""
    same(confirmations.outcome, outcome.outcome, "wrong_outcome")


def signers_known(confirmations: Confirmations, state: ClientState) -> tuple[int, ...]:
    """Confirmations come from surviving neighbours; their positions."""
    place = state.known_place
    signers = from_bitmap(confirmations.signers, place.size)
    allowed = set(from_bitmap(state.survivors, place.size)) & {position for position, _ in place.neighbours}
    if not allowed.issuperset(signers) or len(confirmations.signatures) != len(signers):
        raise SecAggError("foreign_id", "a confirmation is not from a surviving neighbour")
    return signers


def enough_signers(signers: Sequence[int], place: Place) -> None:
    """As many neighbours confirmed as open a secret."""
    if len(signers) < place.threshold:
        raise SecAggError("too_few_confirmations", "fewer neighbours confirmed than open a secret")


def confirmations_signed(confirmations: Confirmations, signers: Sequence[int], *, state: ClientState) -> None:
    """Every one of them signed this very outcome with the key of its advert."""
    key_of = {position: advert.signing for position, advert in state.known_place.neighbours}
    statement = confirmation_statement(confirmations.outcome)
    for position, signature in zip(signers, confirmations.signatures, strict=True):
        verify(key_of[position], signature, statement)


def confirmation_statement(outcome: bytes) -> bytes:
    """What a client signs to confirm an outcome."""
    return context("confirmation", outcome)
