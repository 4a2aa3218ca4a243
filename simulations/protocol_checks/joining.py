"""Attacks on a client that joins a round: on terms, cohort and graph. Each must end in the refusal that names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from common.evaluation.conformance import Finding
from common.secagg import client as machine
from common.secagg.adverts import Advert, Adverts
from common.secagg.encoding import u32
from common.secagg.keys import Identity
from common.secagg.roster import Roster
from simulations.protocol_checks.attempts import FIRST, LAST, large, refused
from simulations.protocol_checks.trial import CONFIG, MODEL, Trial, trial_terms


def lowered_minimum() -> list[Finding]:
    """Terms that allow fewer clients or survivors than the client's policy."""
    trial = Trial(6)
    more = {"least_cohort": trial.limits.least_cohort + 1}, {"least_survivors": trial.limits.least_survivors + 1}
    return [
        refused(
            f"{next(iter(change))} lowered",
            "weak_terms",
            lambda change=change: trial.begin(FIRST, limits=replace(trial.limits, **change)),  # type: ignore[misc]
        )
        for change in more
    ]


def lowered_threshold() -> list[Finding]:
    """Terms by which half of the neighbours, or two thirds in a signed round, open a secret."""
    found = []
    for signed in (False, True):
        trial = Trial(7, terms=trial_terms(7, signed=signed))
        given, lowered = (trial.terms.degree, trial.terms.neighbour_threshold), (6, 4 if signed else 3)
        terms = trial.terms.to_bytes().replace(b"".join(map(u32, given)), b"".join(map(u32, lowered)))
        attempt = lambda trial=trial, terms=terms: trial.begin(FIRST, terms_bytes=terms)  # noqa: E731
        found.append(refused(f"threshold lowered, signed: {signed}", "weak_threshold", attempt))
    return found


def long_vector() -> list[Finding]:
    """A vector longer than the client computes."""
    trial = Trial(6)
    limits = replace(trial.limits, most_length=trial.terms.phases[0].length - 1)
    return [refused("long vector", "too_long", lambda: trial.begin(FIRST, limits=limits))]


def other_model() -> list[Finding]:
    """Terms that name another configuration or model than the client was given."""
    trial = Trial(6)
    config, model = replace(trial.limits, config_hash=MODEL), replace(trial.limits, model_hash=CONFIG)
    return [
        refused("another configuration", "wrong_config", lambda: trial.begin(FIRST, limits=config)),
        refused("another model", "wrong_model", lambda: trial.begin(FIRST, limits=model)),
    ]


def roster_left_out() -> list[Finding]:
    """A round without identities for a client that wants them; a signed round for a client that has no roster."""
    trial, signed = Trial(6), Trial(6, terms=trial_terms(6, signed=True))
    limits = replace(trial.limits, roster_required=True)
    return [
        refused("no signatures", "roster_required", lambda: trial.begin(FIRST, limits=limits)),
        refused("no roster", "no_roster", lambda: signed.begin(FIRST, roster=None)),
    ]


def other_roster() -> list[Finding]:
    """A signed round for the members of another roster than the one that the client pins."""
    trial = Trial(6, terms=trial_terms(6, signed=True))
    return [refused("another roster", "other_roster", lambda: trial.begin(FIRST, roster=_wider(trial)))]


def split_rosters() -> list[Finding]:
    """Each client is told the terms of the roster that it pins, and all of them are to meet in one cohort."""
    trial = Trial(6, terms=trial_terms(6, signed=True)).advertise()
    wider = _wider(trial)
    told = replace(trial.terms, roster_hash=wider.file_hash)
    _, sent = trial.begin(LAST, terms_bytes=told.to_bytes(), roster=wider)
    strange = Advert.from_bytes(sent, len(told.phases))
    attempt = cohort_of(trial, change=lambda adverts: [*adverts[:-1], strange])
    return [refused("two rosters in one cohort", "bad_signature", attempt)]


def _wider(trial: Trial) -> Roster:
    """A roster of the trial's clients and of one more."""
    keys = {name: identity.public for name, identity in trial.identities.items()}
    own = Identity.fresh(trial.entropy)
    return Roster.signed(keys | {"one more": own.public}, own)


def wrong_own_name() -> list[Finding]:
    """A client called by another's name."""
    trial = Trial(6, terms=trial_terms(6, signed=True))
    attempt = lambda: trial.begin(FIRST, identity=trial.identities[LAST])  # noqa: E731
    return [refused("another's name", "foreign_identity", attempt)]


def cohort_of(trial: Trial, *, change: Callable[[list[Advert]], list[Advert]]) -> Callable[[], Any]:
    """An attempt to have the first client share with an altered cohort."""
    digest, phases = trial.terms.digest, len(trial.terms.phases)
    adverts = list(Adverts.from_bytes(trial.inbox[FIRST], terms_digest=digest, phases=phases))
    message = Adverts.of(change(adverts)).to_bytes(digest)
    return lambda: machine.share(trial.states[FIRST], message, entropy=trial.entropy)


def resigned(trial: Trial, advert: Advert, identity: Identity, **changes: Any) -> Advert:
    """An advert with other contents, signed by ``identity`` as it should be."""
    new = replace(advert, identity=identity.public, **changes)
    keys = (new.signing, new.sealing, *new.masking)
    return Advert.signed(trial.terms.digest, new.client, identity=identity, keys=keys)


def invented_client() -> list[Finding]:
    """In a signed round, the coordinator's own key under a member's name."""
    trial = Trial(6, terms=trial_terms(6, signed=True)).advertise()
    own = Identity.fresh(trial.entropy)
    attempt = cohort_of(trial, change=lambda a: [*a[:-1], resigned(trial, a[-1], own)])
    return [refused("invented client", "foreign_identity", attempt)]


def man_in_the_middle() -> list[Finding]:
    """The coordinator's keys in a neighbour's advert; an advert signed for another round."""
    trial, earlier = Trial(6).advertise(), Trial(6, seed="earlier", terms=trial_terms(6, round=2)).advertise()
    key = earlier.server._cohort.adverts[1].sealing
    old = earlier.server._cohort.adverts[-1]
    changed = cohort_of(trial, change=lambda a: [*a[:-1], replace(a[-1], sealing=key)])
    replayed = cohort_of(Trial(6).advertise(), change=lambda a: [*a[:-1], old])
    return [
        refused("sealing key exchanged", "bad_signature", changed),
        refused("advert of another round", "bad_signature", replayed),
    ]


def own_advert_exchanged() -> list[Finding]:
    """Other keys under the client's own name, signed as they should be; or no advert of it at all."""
    trial, again = Trial(6).advertise(), Trial(6).advertise()
    own, key = trial.identities[FIRST], b"\x09" + bytes(31)
    exchanged = cohort_of(trial, change=lambda a: [resigned(trial, a[0], own, sealing=key), *a[1:]])
    return [
        refused("own advert exchanged", "foreign_advert", exchanged),
        refused("own advert left out", "not_included", cohort_of(again, change=lambda a: a[1:])),
    ]


def few_clients() -> list[Finding]:
    """A cohort below the minimum."""
    trial = Trial(6, terms=trial_terms(6, least_cohort=5)).advertise()
    return [refused("four of five clients", "small_cohort", cohort_of(trial, change=lambda a: a[:4]))]


def copied_key() -> list[Finding]:
    """Two clients with one masking key."""
    trial = Trial(6).advertise()
    identity = trial.identities[LAST]
    attempt = cohort_of(trial, change=lambda a: [*a[:-1], resigned(trial, a[-1], identity, masking=a[-2].masking)])
    return [refused("copied key", "duplicate_key", attempt)]


def repeated_client() -> list[Finding]:
    """One client twice, or the cohort in another order."""
    twice = cohort_of(Trial(6).advertise(), change=lambda a: [*a, a[-1]])
    turned = cohort_of(Trial(6).advertise(), change=lambda a: [*a[:-2], a[-1], a[-2]])
    return [refused("client twice", "duplicate_id", twice), refused("another order", "duplicate_id", turned)]


def sparse_graph() -> list[Finding]:
    """Fewer neighbours than the client's policy wants."""
    trial = large()
    state = replace(trial.states[FIRST], limits=replace(trial.limits, least_degree=6))
    attempt = lambda: machine.share(state, trial.inbox[FIRST], entropy=trial.entropy)  # noqa: E731
    return [refused("four neighbours of six", "weak_terms", attempt)]


JOINING = (
    lowered_minimum,
    lowered_threshold,
    long_vector,
    other_model,
    roster_left_out,
    other_roster,
    split_rosters,
    wrong_own_name,
    invented_client,
    man_in_the_middle,
    own_advert_exchanged,
    few_clients,
    copied_key,
    repeated_client,
    sparse_graph,
)
