"""What a node keeps between hops: for one message at a time, for one configuration, and no longer than needed."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from client.secure import FORGOTTEN_S, SecretStates, held_states
from common.errors import SecAggError
from common.secagg.client import advertise
from common.secagg.client_state import ClientLimits, ClientState, Stage
from common.secagg.keys import Identity
from common.secagg.terms import PhaseTerms, Terms

CONFIG = bytes(range(32))


def begun(number: int, attempt: int = 1) -> ClientState:
    terms = Terms(
        run="run",
        round=number,
        attempt=attempt,
        phases=(PhaseTerms("values", 16, 4),),
        least_cohort=2,
        least_survivors=2,
        degree=2,
        neighbour_threshold=2,
        config_hash=CONFIG,
        model_hash=bytes(32),
    )
    limits = ClientLimits(2, 2)
    identity = Identity.fresh(os.urandom)
    return advertise(terms.to_bytes(), "a", identity=identity, limits=limits, entropy=os.urandom)[0]


def past(state: ClientState) -> ClientState:
    """The state as if shares had been sent."""
    import dataclasses

    return dataclasses.replace(state, stage=Stage.SHARED)


def test_an_answered_attempt_is_not_begun_again() -> None:
    states = SecretStates("run")
    states.begin((1, 1, 0), past(begun(1)))
    with pytest.raises(SecAggError, match="already answered"):
        states.begin((1, 1, 0), begun(1))
    states.begin((1, 2, 0), past(begun(1, 2)))
    with pytest.raises(SecAggError, match="already answered"):
        states.begin((1, 1, 0), begun(1))


def test_an_advert_that_nothing_followed_gives_way() -> None:
    states = SecretStates("run")
    early = begun(2)
    states.begin((2, 1, 0), early)
    states.begin((1, 2, 0), begun(1, 2))
    assert set(states.states) == {(1, 2, 0)}
    assert early.secrets.names == ()


def test_a_new_round_erases_what_an_unfinished_one_left() -> None:
    states = SecretStates("run")
    left = past(begun(1))
    states.begin((1, 1, 0), left)
    states.begin((1, 1, 1), past(begun(1)))
    states.begin((2, 1, 0), begun(2))
    assert left.secrets.names == ()
    assert set(states.states) == {(1, 1, 1), (2, 1, 0)}  # the other client is not concerned


def test_keys_made_under_another_configuration_of_the_run_serve_nothing() -> None:
    """Its minimum of survivors may be lower than what the noise of this configuration is shared out for."""
    states = SecretStates("run")
    state = begun(1)
    states.begin((1, 1, 0), state)
    with pytest.raises(SecAggError, match="another configuration") as raised:
        states.move((1, 1, 0), lambda s: (s, b"answer"), config=bytes(32))
    assert raised.value.code == "wrong_config"
    assert state.secrets.names == ()
    with pytest.raises(SecAggError):
        states.move((1, 1, 0), lambda s: (past(s), s.to_bytes()), config=CONFIG)


def test_one_message_at_a_time(tmp_path: Path) -> None:
    """A second process that began from the same file would write back what the first had used up."""
    inside, order = threading.Event(), []

    def slow() -> None:
        with held_states(tmp_path, "run") as states:
            inside.set()
            threading.Event().wait(0.3)
            states.states[(1, 1, 0)] = begun(1)
            order.append("slow")

    thread = threading.Thread(target=slow)
    thread.start()
    inside.wait()
    with held_states(tmp_path, "run") as states:
        order.append("next")
        assert (1, 1, 0) in states.states
    thread.join()
    assert order == ["slow", "next"]


def test_the_file_goes_with_the_last_state(tmp_path: Path) -> None:
    with held_states(tmp_path, "run") as states:
        states.begin((1, 1, 0), begun(1))
    assert list(tmp_path.glob("secagg-*.bin"))
    with held_states(tmp_path, "run") as states:
        states.states.clear()
    assert not list(tmp_path.glob("secagg-*.bin"))


@pytest.mark.parametrize(("age_s", "kept"), [(FORGOTTEN_S - 60, True), (FORGOTTEN_S + 60, False)])
def test_secrets_of_a_run_that_nobody_asks_about_any_more_are_erased(tmp_path: Path, age_s: float, kept: bool) -> None:
    with held_states(tmp_path, "broken off") as states:
        states.begin((1, 1, 0), begun(1))
    (path,) = tmp_path.glob("secagg-*.bin")
    then = time.time() - age_s
    os.utime(path, (then, then))
    with held_states(tmp_path, "another"):
        pass
    assert path.exists() is kept
