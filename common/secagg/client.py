"""A client of secure aggregation: advertise, share; then for every phase mask, confirm, reveal.

Each function takes the state of the hop before, consumes it and returns the next one with the message to send. A
message that does not fit, a function called out of turn or for the second time raises ``SecAggError``, erases every
secret of the round and leaves nothing to go on with: the client has dropped out, and has revealed nothing in that hop.

Without a roster (``Terms.signed`` false) identities live for one round and anybody could have made them: all checks
run, but a coordinator that invents clients, or stands between them, is not stopped. Then the protocol protects against
a coordinator that is curious and keeps to the protocol.

What the caller owes: to answer ``advertise`` once for a run, round and attempt (each attempt with new noise, charged
anew); to store the new state in place of the old one before it sends the message; to draw ``entropy`` from the
operating system.
"""

from __future__ import annotations

from dataclasses import replace

from common.errors import SecAggError
from common.secagg import checks
from common.secagg.adverts import Advert, Adverts
from common.secagg.client_state import ClientLimits, ClientState, Place, Secrets, Stage, transition
from common.secagg.derivations import pair_seed, sealing_key, self_commitment, self_seed, share_context
from common.secagg.encoding import pack
from common.secagg.graph import Graph
from common.secagg.keys import KEY_BYTES, AgreementKey, Entropy, Identity, agreement_keypair, drawn
from common.secagg.masks import Masker, Words
from common.secagg.messages import (
    SALT_BYTES,
    Confirmations,
    MaskedVector,
    Opening,
    Shares,
    Survivors,
    digest,
    from_bitmap,
    parts,
)
from common.secagg.packing import packed
from common.secagg.roster import Roster
from common.secagg.sealing import open_sealed, seal
from common.secagg.shamir import SECRET_BYTES, SHARE_BYTES, check_share, split_many
from common.secagg.terms import Terms

_PAIR = 2 * SHARE_BYTES  # a neighbour's shares for one phase: of the masking key, then of the self-mask secret


def advertise(  # exception: a round's beginning brings together what all later hops take from the state
    terms_bytes: bytes,
    me: str,
    *,
    identity: Identity,
    limits: ClientLimits,
    roster: Roster | None = None,
    entropy: Entropy,
) -> tuple[ClientState, bytes]:
    """Hop 1: fresh keys for a round whose terms this client's limits allow, signed by its identity.

    Args:
        terms_bytes: the coordinator's ``Terms``.
        me: this client's name, 1 to 64 bytes of UTF-8.
        identity: its key in the roster; in rounds that are not signed a fresh one, used for nothing else.
        limits: its own policy.
        roster: verified and pinned by the caller; needed in signed rounds.
        entropy: ``os.urandom``.

    Raises:
        SecAggError: ``malformed``, ``bad_terms``, ``weak_threshold``: not terms; ``weak_terms``, ``too_long``,
            ``wrong_config``, ``wrong_model``, ``roster_required``: not what the limits allow; ``no_roster``,
            ``other_roster``: the terms are for a roster that this client does not pin; ``foreign_id``,
            ``foreign_identity``: the roster does not have this client.
    """
    terms = Terms.from_bytes(terms_bytes)
    checks.sizes_allowed(terms, limits)
    checks.lengths_allowed(terms, limits)
    checks.hashes_expected(terms, limits)
    checks.roster_present(terms, limits, roster)
    checks.roster_expected(terms, roster)
    checks.own_identity(terms, me, identity=identity, roster=roster)
    signing = Identity.fresh(entropy)
    sealing, sealing_public = agreement_keypair(entropy)
    masking = [agreement_keypair(entropy) for _ in terms.phases]
    keys = (signing.public, sealing_public, *(public for _, public in masking))
    advert = Advert.signed(terms.digest, me, identity=identity, keys=keys).to_bytes()
    Advert.from_bytes(advert, len(terms.phases))  # a name that others would refuse is refused here
    secrets = Secrets({"signing": signing.private, "sealing": sealing})
    for index, (private, _) in enumerate(masking):
        secrets.put(f"masking {index}", private)
    return ClientState(Stage.ADVERTISED, terms, me, limits, secrets, advert=advert, roster=roster), advert


def share(state: ClientState, cohort_bytes: bytes, *, entropy: Entropy) -> tuple[ClientState, bytes]:
    """Hop 2: shares of this client's secrets of all phases, sealed for its neighbours in the graph of the cohort.

    Raises:
        SecAggError: ``wrong_phase``, ``wrong_round``, ``malformed``, ``duplicate_id``, ``duplicate_key``,
            ``not_included``, ``foreign_advert``, ``small_cohort``, ``weak_terms``, ``foreign_id``,
            ``foreign_identity``, ``bad_signature``, ``bad_key``.
    """
    with transition(state, Stage.ADVERTISED) as secrets:
        terms_digest = state.terms.digest
        adverts = Adverts.from_bytes(cohort_bytes, terms_digest=terms_digest, phases=len(state.terms.phases))
        place = _place(adverts, state, digest("cohort", terms_digest, cohort_bytes))
        plain, commitments = _split_secrets(state, place, entropy)
        salt = drawn(entropy, SALT_BYTES)
        private, agreed, sealed = AgreementKey(secrets["sealing"]), [], []
        for (_, other), shares in zip(place.neighbours, plain, strict=True):
            agreed.append(private.exchange(other.sealing))
            key = sealing_key(agreed[-1], cohort=place.cohort, sender=state.me, receiver=other.client, salt=salt)
            sealed.append(seal(key, share_context(place.cohort, state.me, other.client), shares))
        secrets.erase("sealing")
        secrets.put("sealing", b"".join(agreed))  # what the neighbours' shares are opened with: no second agreement
        message = Shares(place.cohort, salt, commitments, tuple(sealed))
        return _next(state, Stage.SHARED, place=place, advert=b"", roster=None), message.to_bytes()


def mask(
    state: ClientState, opening_bytes: bytes, *, vector: Words, phase: str, bind: bytes = b""
) -> tuple[ClientState, MaskedVector]:
    """Hop 3: the vector under its own mask and one with each neighbour of the roll.

    Args:
        state: after ``share``, or after ``reveal`` of the phase before.
        opening_bytes: the coordinator's ``Opening``; in the first phase with the neighbours' sealed shares.
        vector: unsigned integers below 2^bits, of ``dtype_of(bits)`` and the phase's length; not changed.
        phase: the phase that the caller means to answer.
        bind: what this client computed from what the phase is about (the digest of the rows selected), 0 to 64 bytes.

    Raises:
        SecAggError: ``wrong_phase``, ``wrong_round``, ``wrong_bind``, ``wrong_roll``, ``malformed``, ``not_included``,
            ``too_few_survivors``, ``too_few_neighbours``, ``bad_seal``, ``bad_share``, ``bad_key``;
            ``wrong_length``, ``out_of_range`` for the vector.
    """
    with transition(state, Stage.SHARED, Stage.REVEALED) as secrets:
        index, place = state.phase, state.known_place
        opening = Opening.from_bytes(opening_bytes, len(state.terms.phases))
        if state.terms.phase(phase) != index:
            raise SecAggError("wrong_phase", "it is another phase's turn")
        checks.opening_expected(opening, state, phase=index)
        checks.bind_expected(opening, bind)
        roll = from_bitmap(opening.roll, place.size)
        if state.stage is Stage.REVEALED:
            checks.roll_continued(opening, state)
        checks.contains_me(roll, place)
        checks.enough(roll, state)
        checks.enough_neighbours(roll, place)
        if state.stage is Stage.SHARED:
            _keep_shares(state, opening, frozenset(roll))
        bare = replace(opening, salts=(), sealed=())
        body = _masked(state, bare, vector, frozenset(roll))
        secrets.erase(f"masking {index}", f"self {index}")
        return _next(state, Stage.MASKED, opening=bare), MaskedVector(pack(b"masked", bare.view), body)


def confirm(state: ClientState, survivors_bytes: bytes) -> tuple[ClientState, bytes]:
    """Hop 4: a signature on who survived, once a phase; the neighbours reveal nothing without such signatures.

    Raises:
        SecAggError: ``wrong_phase``, ``wrong_view``, ``malformed``, ``foreign_id``, ``not_included``,
            ``too_few_survivors``, ``too_few_neighbours``.
    """
    with transition(state, Stage.MASKED) as secrets:
        place = state.known_place
        outcome = Survivors.from_bytes(survivors_bytes)
        checks.view_same(outcome, state)
        survivors = from_bitmap(outcome.survivors, place.size)
        checks.within_roll(survivors, state)
        checks.contains_me(survivors, place)
        checks.enough(survivors, state)
        checks.enough_neighbours(survivors, place)
        signature = Identity(secrets["signing"]).sign(checks.confirmation_statement(outcome.outcome))
        message = pack(b"confirmation", outcome.outcome, signature)
        return _next(state, Stage.CONFIRMED, survivors=outcome.survivors), message


def reveal(state: ClientState, confirmations_bytes: bytes) -> tuple[ClientState, bytes]:
    """Hop 5: for each neighbour of the roll one share: of its self-mask secret if it survived, else of its masking key.

    Raises:
        SecAggError: ``wrong_phase``, ``wrong_outcome``, ``malformed``, ``foreign_id``, ``too_few_confirmations``,
            ``bad_signature``.
    """
    with transition(state, Stage.CONFIRMED) as secrets:
        place = state.known_place
        confirmations = Confirmations.from_bytes(confirmations_bytes)
        outcome = Survivors(state.known_opening.view, state.survivors)
        checks.outcome_same(confirmations, outcome)
        signers = checks.signers_known(confirmations, state)
        checks.enough_signers(signers, place)
        checks.confirmations_signed(confirmations, signers, state=state)
        message = pack(b"reveal", outcome.outcome, b"".join(chosen_shares(state)))
        secrets.erase(f"held {state.phase}")
        if state.phase + 1 < len(state.terms.phases):
            return _next(state, Stage.REVEALED, phase=state.phase + 1), message
        secrets.erase("signing")
        return _next(state, Stage.DONE), message


def chosen_shares(state: ClientState) -> list[bytes]:
    """The one share for each neighbour of the roll that the outcome calls for, in order."""
    held, roll = state.secrets[f"held {state.phase}"], state.roll
    survivors = set(from_bitmap(state.survivors, state.known_place.size))
    chosen = []
    for index, (position, _) in enumerate(state.known_place.neighbours):
        if position in roll:
            start = index * _PAIR + (SHARE_BYTES if position in survivors else 0)
            chosen.append(held[start : start + SHARE_BYTES])
    return chosen


def _next(state: ClientState, stage: Stage, **changes: object) -> ClientState:
    """The state after this one; the old one is used up."""
    state.secrets.step += 1
    return replace(state, stage=stage, step=state.secrets.step, **changes)  # type: ignore[arg-type]


def _place(adverts: Adverts, state: ClientState, cohort: bytes) -> Place:
    """This client's place in a cohort that it has checked."""
    terms = state.terms
    checks.cohort_large_enough(len(adverts), state)
    position = checks.own_advert(adverts, state)
    checks.keys_distinct(adverts)
    checks.identities_known(adverts, state)
    degree, threshold = terms.neighbourhood(len(adverts))
    checks.degree_allowed(degree, len(adverts), limits=state.limits)
    names = set(Graph(adverts.names, degree, cohort).of(state.me))
    neighbours = tuple((at, adverts[at]) for at, name in enumerate(adverts.names) if name in names)
    # A stranger's signature matters only where the roster says whose it is; the neighbours' keys are used.
    checks.adverts_signed(adverts if terms.signed else [advert for _, advert in neighbours], terms)
    return Place(cohort, len(adverts), position, threshold, neighbours)


def _split_secrets(state: ClientState, place: Place, entropy: Entropy) -> tuple[list[bytes], tuple[bytes, ...]]:
    """What each neighbour gets, all phases in a row; and the commitments to the self-mask secrets."""
    secrets, places = state.secrets, range(1, len(place.neighbours) + 1)
    shared, commitments = [], []
    for index, phase in enumerate(state.terms.phases):
        own = drawn(entropy, SECRET_BYTES)
        secrets.put(f"self {index}", own)
        shared += [secrets[f"masking {index}"], own]
        commitments.append(self_commitment(own, cohort=place.cohort, client=state.me, phase=phase.name))
    columns = split_many(shared, places, place.threshold, entropy)
    return [b"".join(row) for row in zip(*columns, strict=True)], tuple(commitments)


def _keep_shares(state: ClientState, opening: Opening, roll: frozenset[int]) -> None:
    """Open what the neighbours of the roll sealed; a neighbour that is not there leaves its place empty."""
    place, secrets, phases = state.known_place, state.secrets, len(state.terms.phases)
    present = sum(position in roll for position, _ in place.neighbours)
    if not len(opening.salts) == len(opening.sealed) == present:
        raise SecAggError("malformed", "there is not one sealed message for each neighbour")
    mail = iter(zip(opening.salts, opening.sealed, strict=True))
    agreed = parts(secrets["sealing"], KEY_BYTES)
    rows = [
        _opened(state, other, shared, *next(mail)) if position in roll else bytes(phases * _PAIR)
        for (position, other), shared in zip(place.neighbours, agreed, strict=True)
    ]
    secrets.erase("sealing")
    for index in range(phases):
        secrets.put(f"held {index}", b"".join(row[index * _PAIR : (index + 1) * _PAIR] for row in rows))


def _opened(state: ClientState, other: Advert, shared: bytes, salt: bytes, sealed: bytes) -> bytes:
    cohort = state.known_place.cohort
    key = sealing_key(shared, cohort=cohort, sender=other.client, receiver=state.me, salt=salt)
    plain = open_sealed(key, share_context(cohort, other.client, state.me), sealed)
    for start in range(0, len(plain), SHARE_BYTES):
        check_share(plain[start : start + SHARE_BYTES])
    return plain


def _masked(state: ClientState, opening: Opening, vector: Words, roll: frozenset[int]) -> bytes:
    """The packed vector under all its masks."""
    phase, place, secrets = state.terms.phases[state.phase], state.known_place, state.secrets
    masker = Masker(phase.bits, phase.length)
    if vector.shape != (phase.length,) or vector.dtype != masker.dtype:
        raise SecAggError("wrong_length", f"the vector is not {phase.length} values of {masker.dtype.name}")
    if phase.bits < 8 * masker.dtype.itemsize and int(vector.max()) >> phase.bits:
        raise SecAggError("out_of_range", f"a value has more than {phase.bits} bits")
    private, view = AgreementKey(secrets[f"masking {state.phase}"]), opening.view
    plus = [self_seed(secrets[f"self {state.phase}"], view)]
    minus: list[bytes] = []
    for position, other in place.neighbours:
        if position in roll:
            seed = pair_seed(private, other.masking[state.phase], view=view, pair=(state.me, other.client))
            (plus if place.position < position else minus).append(seed)
    total = vector.copy()
    masker.apply(total, plus=plus, minus=minus)
    return packed(total, phase.bits)
