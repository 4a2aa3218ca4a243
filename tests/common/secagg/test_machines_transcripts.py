"""Frozen transcripts: the same randomness gives the same bytes in every version of ``fedembed-secagg/1``.

A change of any byte is a change of protocol: it needs a new version, and new vectors. ``PYTHONPATH=. python
tests/common/secagg/test_machines_transcripts.py`` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import SecAggError
from common.secagg import client as machine
from common.secagg.client_state import ClientState
from common.secagg.encoding import pack, unpack
from common.secagg.messages import MaskedVector
from simulations.protocol_checks.trial import TWO_PHASES, Trial, trial_terms

FOLDER = Path(__file__).resolve().parents[2] / "vectors" / "secagg"
ROUNDS = {"two_phases": False, "two_phases_signed": True}
LOST, VICTIM = "client-001", "client-002"
S = bytes(range(32))


def new_trial(name: str) -> Trial:
    """Five clients; one is lost in the first phase."""
    return Trial(5, seed=f"transcript {name}", terms=trial_terms(5, phases=TWO_PHASES, signed=ROUNDS[name]))


def shown(message: Any) -> Any:
    """A message in JSON."""
    if isinstance(message, MaskedVector):
        return {"header": message.header.hex(), "body": message.body.hex()}
    return message.hex() if isinstance(message, bytes) else {key: shown(value) for key, value in message.items()}


def transcript(name: str) -> dict[str, Any]:
    """Vectors, messages, secrets between hops, and sums of a round."""
    trial = new_trial(name)
    hops: list[dict[str, Any]] = []

    def note(hop: str, sent: str) -> None:
        states = {n: s.to_bytes().hex() for n, s in trial.states.items() if n == VICTIM}
        hops.append({"hop": hop, "sent": shown(trial.sent[sent]), "inbox": shown(trial.inbox), "states": states})

    trial.advertise()
    note("advertise", "advert")
    trial.share()
    note("share", "shares")
    sums = []
    for phase, skip in enumerate(({LOST}, frozenset())):
        if phase:
            trial.next_phase(S)
        trial.mask(skip, bind=S if phase else b"")
        note(f"mask {phase}", "masked")
        trial.confirm()
        note(f"confirm {phase}", "confirmation")
        trial.reveal()
        sums.append(trial.finish().tolist())
        note(f"reveal {phase}", "reveal")
    vectors = [{n: vector.tolist() for n, vector in phase.items()} for phase in trial.vectors]
    return {"terms": trial.terms.to_bytes().hex(), "vectors": vectors, "hops": hops, "sums": sums}


def takers(trial: Trial) -> dict[str, tuple[Callable[[ClientState, bytes], Any], int]]:
    """How a client takes the message that a hop left for it, and of how many fields this is."""
    return {
        "advertise": (lambda state, data: machine.share(state, data, entropy=trial.entropy), 5),
        "share": (trial.masked, 7),
        "mask 0": (machine.confirm, 3),
        "confirm 0": (machine.reveal, 4),
        "mask 1": (machine.confirm, 3),
        "confirm 1": (machine.reveal, 4),
    }


def bad_messages(name: str) -> list[dict[str, str]]:
    """For every field of every message of the coordinator one that is wrong, with the refusal."""
    known = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    trial, found = new_trial(name), []
    for hop in known["hops"]:
        if hop["hop"] not in takers(trial):
            continue
        take, count = takers(trial)[hop["hop"]]
        fields = unpack(bytes.fromhex(hop["inbox"][VICTIM]), count)
        for index in range(count):
            wrong = bytes([fields[index][0] ^ 0x80]) + fields[index][1:] if fields[index] else b"\0"
            message = pack(*fields[:index], wrong, *fields[index + 1 :])
            code = refusal(take, hop["states"][VICTIM], message)
            found.append({"hop": hop["hop"], "field": str(index), "message": message.hex(), "code": code})
    return found


def refusal(take: Callable[[ClientState, bytes], Any], state: str, message: bytes) -> str:
    """The code with which a client in this state refuses."""
    try:
        take(ClientState.from_bytes(bytes.fromhex(state)), message)
    except SecAggError as error:
        return error.code
    return ""


@pytest.mark.parametrize("name", ROUNDS)
def test_the_transcript_is_the_frozen_one(name: str) -> None:
    frozen = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    new = transcript(name)
    assert new["terms"] == frozen["terms"] and new["vectors"] == frozen["vectors"]
    for hop, expected in zip(new["hops"], frozen["hops"], strict=True):
        assert hop == expected, hop["hop"]
    assert new["sums"] == frozen["sums"]
    plain = [
        [sum(c) % 2**p.bits for c in zip(*v.values(), strict=True)]
        for p, v in zip(TWO_PHASES, kept(frozen), strict=True)
    ]
    assert frozen["sums"] == plain


def kept(frozen: dict[str, Any]) -> list[dict[str, list[int]]]:
    """Vectors of those who stayed."""
    return [{name: vector for name, vector in phase.items() if name != LOST} for phase in frozen["vectors"]]


@pytest.mark.parametrize("name", ROUNDS)
def test_bad_messages_are_refused_as_they_were(name: str) -> None:
    frozen = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    bad = json.loads((FOLDER / f"bad_{name}.json").read_text(encoding="utf-8"))
    states = {hop["hop"]: hop["states"].get(VICTIM, "") for hop in frozen["hops"]}
    trial = new_trial(name)
    assert len(bad) == 26 and {case["hop"] for case in bad} == set(takers(trial))
    for case in bad:
        take, _ = takers(trial)[case["hop"]]
        assert case["code"], case
        assert refusal(take, states[case["hop"]], bytes.fromhex(case["message"])) == case["code"], case


def write() -> None:
    """Make the vectors anew."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in ROUNDS:
        (FOLDER / f"{name}.json").write_text(json.dumps(transcript(name), indent=1) + "\n", encoding="utf-8")
        (FOLDER / f"bad_{name}.json").write_text(json.dumps(bad_messages(name), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
