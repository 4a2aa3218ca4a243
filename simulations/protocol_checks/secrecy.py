"""What must hold of a round whatever is asked: one secret of each client, nothing shared by phases, nothing kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from common.evaluation.conformance import Finding
from common.secagg import client as machine
from common.secagg.client_state import ClientState
from common.secagg.derivations import pair_seed, self_seed
from common.secagg.encoding import pack, unpack
from common.secagg.keys import AgreementKey
from common.secagg.masks import Masker, Words
from common.secagg.messages import Opening, Shares, from_bitmap
from common.secagg.packing import unpacked
from common.secagg.shamir import SHARE_BYTES
from simulations.protocol_checks.attempts import FIRST, LAST, copy_of, refused
from simulations.protocol_checks.trial import ONE_PHASE, TWO_PHASES, Trial, trial_terms

_S, _OTHER_S = b"S" * 32, b"T" * 32
_PHASE = ONE_PHASE[0]


def _finding(subject: str, holds: bool, statistic: str = "") -> Finding:
    return Finding("P", subject, statistic or ("as it must be" if holds else "broken"), holds)


def one_secret_each() -> list[Finding]:
    """Each neighbour reveals for every client one share: of the self-mask of a survivor, else of the masking key."""
    trial = Trial(7).advertise().share().mask(skip={LAST}).confirm()
    held = {name: state.secrets["held 0"] for name, state in trial.states.items() if name != LAST}
    trial.reveal()
    wrong = 0
    for name, message in trial.sent["reveal"].items():
        state = trial.states[name]
        survivors = from_bitmap(state.survivors, 7)
        expected = b""
        for index, (position, _) in enumerate(state.known_place.neighbours):
            start = (2 * index + (position in survivors)) * SHARE_BYTES
            expected += held[name][start : start + SHARE_BYTES]
        wrong += unpack(message, 3)[2] != expected
    return [_finding("one secret of each client", wrong == 0, f"{wrong} of 6 reveals are something else")]


def _secrets_of(trial: Trial, name: str, phase: int = 0) -> tuple[bytes, bytes]:
    secrets = trial.states[name].secrets
    return secrets[f"masking {phase}"], secrets[f"self {phase}"]


def fresh_secrets() -> list[Finding]:
    """All secrets of all clients and phases differ, and so do the salts of two messages of shares."""
    trial = Trial(5, terms=trial_terms(5, phases=TWO_PHASES)).advertise()
    again = copy_of(trial.states[FIRST])
    trial.share()
    drawn = [secret for name in trial.names for phase in (0, 1) for secret in _secrets_of(trial, name, phase)]
    _, message = machine.share(again, trial.server._cohort.message, entropy=trial.entropy)
    salts = [Shares.from_bytes(m, phases=2, degree=4).salt for m in (message, trial.sent["shares"][FIRST])]
    return [
        _finding("secrets of clients and phases", len(set(drawn)) == len(drawn) == 20),
        _finding("salts of one client set back", salts[0] != salts[1]),
    ]


def _mask_of(seed: bytes) -> Words:
    total = np.zeros(_PHASE.length, dtype="<u2")
    Masker(_PHASE.bits, _PHASE.length).add(total, seed)
    return total


def _two_views() -> tuple[Trial, dict[str, tuple[bytes, bytes]], dict[str, ClientState], dict[str, Words]]:
    """Clients that masked under two different bound data; secrets, states and vectors of each."""
    trial = Trial(6).advertise().share()
    secrets = {name: _secrets_of(trial, name) for name in trial.names}
    states, masked = {}, {}
    for i, name in enumerate(trial.names):
        bind = _S if i % 2 else _OTHER_S
        opening = replace(Opening.from_bytes(trial.inbox[name], 1), bind=bind).to_bytes()
        states[name], vector = trial.masked(trial.states[name], opening, bind=bind)
        masked[name] = unpacked(vector.body, _PHASE.bits, _PHASE.length)
    return trial, secrets, states, masked


def views_do_not_cancel() -> list[Finding]:
    """Clients that were told different things: their pairwise masks stay in the sum, though all self-masks go."""
    trial, secrets, states, masked = _two_views()
    total = np.zeros(_PHASE.length, dtype="<u2")
    for name, vector in masked.items():
        total += vector - _mask_of(self_seed(secrets[name][1], states[name].known_opening.view))
    opened = bool((total == trial.expected(0, trial.names)).all())
    return [_finding("a sum over two views", not opened, "opens" if opened else "stays masked")]


def own_mask_stays() -> list[Finding]:
    """A vector whose pairwise masks are all known is still masked, and differently in each view."""
    trial = Trial(6).advertise().share()
    secret = _secrets_of(trial, FIRST)[0]
    left = []
    for bind in (_S, _OTHER_S):
        opening = replace(Opening.from_bytes(trial.inbox[FIRST], 1), bind=bind).to_bytes()
        state, vector = trial.masked(copy_of(trial.states[FIRST]), opening, bind=bind)
        rest = unpacked(vector.body, _PHASE.bits, _PHASE.length) - trial.vectors[0][FIRST]
        for _, other in state.known_place.neighbours:  # the first client adds all its masks
            view, pair = state.known_opening.view, (FIRST, other.client)
            rest = rest - _mask_of(pair_seed(AgreementKey(secret), other.masking[0], view=view, pair=pair))
        left.append(rest)
    return [
        _finding("the mask of its own", bool(left[0].any() and left[1].any())),
        _finding("own masks of two views", bool((left[0] != left[1]).any())),
    ]


def nothing_kept() -> list[Finding]:
    """Secrets go as soon as they are used up: after the shares are open, after masking, at the end, at a refusal."""
    trial = Trial(5).advertise().share()
    everything = [secret for name in trial.names for secret in _secrets_of(trial, name)]
    everything += [trial.states[name].secrets[key] for name in trial.names for key in ("signing", "sealing")]
    failed = copy_of(trial.states[FIRST])
    trial.mask()
    masked = trial.states[FIRST].secrets.names
    trial.confirm().reveal()
    stored = b"".join(state.to_bytes() for state in trial.states.values())
    refusal = refused("", "malformed", lambda: machine.mask(failed, b"", vector=np.zeros(0, "<u2"), phase="values"))
    return [
        _finding("after masking", masked == ("held 0", "signing"), f"{', '.join(masked)}"),
        _finding("at the end", not any(secret in stored for secret in everything)),
        _finding("after a refusal", refusal.holds and not failed.usable and failed.secrets.names == ()),
    ]


def reflected_shares() -> list[Finding]:
    """A client's own sealed shares, returned to it as its neighbour's."""
    trial = Trial(6).advertise().share()
    own = Shares.from_bytes(trial.sent["shares"][FIRST], phases=1, degree=5)
    opening = replace(Opening.from_bytes(trial.inbox[FIRST], 1), salts=(own.salt,) * 5, sealed=own.sealed)
    attempt = lambda: trial.masked(trial.states[FIRST], opening.to_bytes())  # noqa: E731
    return [refused("reflected shares", "bad_seal", attempt)]


def wrong_shares() -> list[Finding]:
    """A client that reveals wrong shares changes no sum: others' shares are taken, or the round ends."""
    found = []
    for name in (FIRST, LAST):
        trial = Trial(7).advertise().share().mask(skip={"client-003"}).confirm().reveal(skip={name})
        _, message = machine.reveal(trial.states[name], trial.inbox[name])
        tag, outcome, shares = unpack(message, 3)
        spoilt = bytes(SHARE_BYTES - 1) + b"\x07"
        trial.server.accept_reveal(name, pack(tag, outcome, spoilt * (len(shares) // SHARE_BYTES)))
        exact = bool((trial.finish() == trial.expected(0, set(trial.names) - {"client-003"})).all())
        found.append(_finding(f"wrong shares of {name}", exact, "the sum is exact" if exact else "another sum"))
    return found


def nothing_below_the_threshold() -> list[Finding]:
    """The coordinator itself gives up where fewer vectors came than may be added up."""
    trial = Trial(7, terms=trial_terms(7, least_survivors=6, least_cohort=6)).advertise().share()
    return [refused("five of six vectors", "too_few_survivors", lambda: trial.mask(skip={FIRST, LAST}))]


SECRECY = (
    one_secret_each,
    fresh_secrets,
    views_do_not_cancel,
    own_mask_stays,
    nothing_kept,
    reflected_shares,
    wrong_shares,
    nothing_below_the_threshold,
)
