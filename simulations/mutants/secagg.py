"""Secure aggregation gone wrong: each check of a client left out, and secrets that are shared, kept or not bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

from common.secagg import adverts as hop_one
from common.secagg import checks, client, client_state, derivations
from common.secagg.adverts import Advert
from common.secagg.client_state import ClientState, Secrets
from common.secagg.encoding import pack
from common.secagg.keys import PROTOCOL, AgreementKey, Entropy, derive
from common.secagg.masks import Masker
from common.secagg.messages import Confirmations, Opening, Survivors, context, digest, from_bitmap
from common.secagg.opening import Masks
from common.secagg.server import RoundServer
from common.secagg.shamir import SHARE_BYTES
from common.secagg.terms import Terms
from simulations.mutants import Mutant, broken


def _nothing(*given: Any, **named: Any) -> None:
    """A check that is not made."""


def _own_position(adverts: Any, state: ClientState) -> int:
    """Where the client's name is, whatever keys stand beside it; 0 where it is not."""
    return next((i for i, advert in enumerate(adverts) if advert.client == state.me), 0)


def _all_signers(confirmations: Confirmations, state: ClientState) -> tuple[int, ...]:
    return from_bitmap(confirmations.signers, state.known_place.size)


def _any_strength(self: Terms, threshold: int, degree: int) -> bool:
    return True


def _half_is_enough(self: Terms, threshold: int, degree: int) -> bool:
    """Half of the neighbours also where the coordinator may lie."""
    return 2 * threshold > degree


def _replayable(self: Advert, terms_digest: bytes) -> bytes:
    """The identity signs its keys, and not what they are for."""
    keys = (self.identity, self.signing, self.sealing, b"".join(self.masking))
    return context("advert", self.client.encode(), *keys)


def _digest_without_roster(self: Terms) -> bytes:
    """Terms of one round for the members of any roster."""
    return sha256(pack(PROTOCOL, replace(self, roster_hash=bytes(32)).to_bytes())).digest()


def _any_outcome(outcome: bytes) -> bytes:
    return context("confirmation")


def _outcome_without_view(self: Survivors) -> bytes:
    return digest("outcome", self.survivors)


def _view_without_bind(self: Opening) -> bytes:
    return digest("view", self.cohort, self.phase.encode(), self.roll)


def _pair_without_view(key: AgreementKey, public: bytes, *, view: bytes, pair: tuple[str, str]) -> bytes:
    return derivations.pair_seed(key, public, view=b"", pair=pair)


def _self_without_view(secret: bytes, view: bytes) -> bytes:
    return derivations.self_seed(secret, b"")


def _seal_without_names(label: str, *fields: bytes) -> bytes:
    """Neither key nor authenticated data say who seals for whom."""
    return context(label, fields[0], *fields[3:]) if label in ("seal", "shares") else context(label, *fields)


class _WithoutOwnMask(Masker):
    """Pairwise masks alone: the coordinator that calls a client dropped opens its vector."""

    def apply(self, total: Any, *, plus: Any = (), minus: Any = ()) -> None:
        super().apply(total, plus=plus[1:], minus=minus)


class _WithoutPairs(Masker):
    """Its own mask alone: the shares that open a sum open each vector in it."""

    def apply(self, total: Any, *, plus: Any = (), minus: Any = ()) -> None:
        super().apply(total, plus=plus[:1])


def _always_the_key(state: ClientState) -> list[bytes]:
    """Shares of every neighbour's masking key."""
    held, roll = state.secrets[f"held {state.phase}"], state.roll
    return [
        held[2 * i * SHARE_BYTES :][:SHARE_BYTES]
        for i, (position, _) in enumerate(state.known_place.neighbours)
        if position in roll
    ]


def _both(state: ClientState) -> list[bytes]:
    """Whatever is held, survivor or not."""
    return [state.secrets[f"held {state.phase}"]]


def _one_secret(entropy: Entropy, size: int) -> bytes:
    """The same bytes whenever so many are wanted."""
    return derive(bytes(32), b"always")[:size]


def _kept(self: Secrets, *names: str) -> None:
    """Nothing is erased."""


def _sealing_kept(self: Secrets, *names: str) -> None:
    _erase(self, *(name for name in names if name != "sealing"))


def _own_kept(self: Secrets, *names: str) -> None:
    _erase(self, *(name for name in names if not name.startswith("self")))


def _believed(self: Masks, owner: int) -> Callable[[bytes], bool]:
    """Whatever the shares give is taken for the secret."""
    return lambda secret: True


_erase = Secrets.erase


def _without(check: str, killed_by: str, name: str) -> Mutant:
    """A check of ``checks.py`` that is not made."""
    return broken(name, killed_by, owner=checks, attribute=check, by=_nothing)


MUTANTS = (
    _without("sizes_allowed", "lowered_minimum", "a client's own minimum is not looked at"),
    _without("lengths_allowed", "long_vector", "vectors of any length"),
    _without("hashes_expected", "other_model", "terms for another model"),
    _without("roster_present", "roster_left_out", "a round without the roster that the client wants"),
    _without("roster_expected", "other_roster", "a round of another roster than the client pins"),
    _without("own_identity", "wrong_own_name", "a client under another's name"),
    _without("identities_known", "invented_client", "identities are not looked up in the roster"),
    _without("adverts_signed", "man_in_the_middle", "adverts' signatures are not verified"),
    _without("cohort_large_enough", "few_clients", "a cohort of any size"),
    _without("keys_distinct", "copied_key", "keys that others have too"),
    _without("degree_allowed", "sparse_graph", "any number of neighbours"),
    _without("opening_expected", "wrong_opening", "openings of other rounds and phases"),
    _without("bind_expected", "wrong_bind", "bound data are not compared"),
    _without("roll_continued", "changed_roll", "a second phase among anybody"),
    _without("contains_me", "wrong_opening", "masks without being on the roll"),
    _without("contains_me", "few_survivors", "confirms an outcome that lacks itself"),
    _without("enough", "few_survivors", "a sum of any number of vectors"),
    _without("enough_neighbours", "few_survivors", "survivors that are nobody's neighbours"),
    _without("enough", "wrong_opening", "masks for a roll of any size"),
    _without("enough_neighbours", "wrong_opening", "masks towards any number of neighbours"),
    _without("view_same", "wrong_survivors", "survivors of another view"),
    _without("within_roll", "wrong_survivors", "survivors that never shared"),
    _without("outcome_same", "wrong_confirmations", "confirmations of another outcome"),
    _without("enough_signers", "wrong_confirmations", "any number of confirmations"),
    _without("confirmations_signed", "wrong_confirmations", "confirmations are not verified"),
    broken(
        "confirmations of dropped clients",
        "wrong_confirmations",
        owner=checks,
        attribute="signers_known",
        by=_all_signers,
    ),
    broken("its own advert exchanged", "own_advert_exchanged", owner=checks, attribute="own_advert", by=_own_position),
    broken(
        "a client twice in a cohort",
        "repeated_client",
        owner=hop_one,
        attribute="pairwise",
        by=lambda _: iter(()),
    ),
    broken("any threshold of neighbours", "lowered_threshold", owner=Terms, attribute="_strong", by=_any_strength),
    broken(
        "half of the neighbours in a signed round",
        "lowered_threshold",
        owner=Terms,
        attribute="_strong",
        by=_half_is_enough,
    ),
    broken(
        "clients of two rosters in one round",
        "split_rosters",
        owner=Terms,
        attribute="digest",
        by=property(_digest_without_roster),
    ),
    broken("adverts that can be replayed", "man_in_the_middle", owner=Advert, attribute="statement", by=_replayable),
    broken(
        "a confirmation of anything",
        "wrong_confirmations",
        owner=checks,
        attribute="confirmation_statement",
        by=_any_outcome,
    ),
    broken("a hop taken twice", "asked_twice", owner=client_state, attribute="check_turn", by=_nothing),
    broken(
        "an outcome without its view",
        "split_selection",
        owner=Survivors,
        attribute="outcome",
        by=property(_outcome_without_view),
    ),
    broken(
        "a view without what it is bound to",
        "split_selection",
        owner=Opening,
        attribute="view",
        by=property(_view_without_bind),
    ),
    broken(
        "pairwise masks that cancel across views",
        "views_do_not_cancel",
        owner=client,
        attribute="pair_seed",
        by=_pair_without_view,
    ),
    broken("one own mask for all views", "own_mask_stays", owner=client, attribute="self_seed", by=_self_without_view),
    broken("no mask of its own", "own_mask_stays", owner=client, attribute="Masker", by=_WithoutOwnMask),
    broken("no pairwise masks", "views_do_not_cancel", owner=client, attribute="Masker", by=_WithoutPairs),
    broken(
        "shares that can be reflected",
        "reflected_shares",
        owner=derivations,
        attribute="context",
        by=_seal_without_names,
    ),
    broken(
        "masking keys of survivors revealed",
        "one_secret_each",
        owner=client,
        attribute="chosen_shares",
        by=_always_the_key,
    ),
    broken("both secrets revealed", "one_secret_each", owner=client, attribute="chosen_shares", by=_both),
    broken("one secret for all phases", "fresh_secrets", owner=client, attribute="drawn", by=_one_secret),
    broken("secrets that stay in the state", "nothing_kept", owner=Secrets, attribute="erase", by=_kept),
    broken("the sealing key stays in the state", "nothing_kept", owner=Secrets, attribute="erase", by=_sealing_kept),
    broken("the own mask's secret stays in the state", "nothing_kept", owner=Secrets, attribute="erase", by=_own_kept),
    broken("a refusal that leaves the secrets", "nothing_kept", owner=ClientState, attribute="abort", by=_nothing),
    broken(
        "revealed self-masks are not checked", "wrong_shares", owner=Masks, attribute="_is_self_secret", by=_believed
    ),
    broken(
        "revealed masking keys are not checked", "wrong_shares", owner=Masks, attribute="_is_masking_key", by=_believed
    ),
    broken(
        "a coordinator that opens any sum",
        "nothing_below_the_threshold",
        owner=RoundServer,
        attribute="_require_openable",
        by=_nothing,
    ),
)
