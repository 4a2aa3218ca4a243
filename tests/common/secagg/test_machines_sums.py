"""The opened sum is the plain sum modulo 2^b of whoever stayed, whoever drops out where; or nothing is opened."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.secagg.client_state import ClientState, Stage
from common.secagg.graph import degree
from common.secagg.terms import PhaseTerms
from simulations.protocol_checks.trial import TWO_PHASES, Trial, trial_terms
from tests.common.secagg._tools import refused

HOPS_OF_ONE_PHASE = ("share", "mask 0", "confirm 0", "reveal 0")
S = b"S" * 32


def one_phase(bits: int, length: int) -> tuple[PhaseTerms, ...]:
    return (PhaseTerms("values", bits, length),)


@settings(max_examples=30, deadline=None)
@given(
    clients=st.integers(2, 9),
    bits=st.integers(8, 32),
    length=st.integers(1, 300),
    signed=st.booleans(),
    seed=st.integers(),
)
def test_the_sum_is_exact(clients: int, bits: int, length: int, signed: bool, seed: int) -> None:
    trial = Trial(clients, seed=seed, terms=trial_terms(clients, phases=one_phase(bits, length), signed=signed))
    (total,) = trial.run()
    assert total.tolist() == trial.expected(0, trial.names).tolist()
    assert {state.stage for state in trial.states.values()} == {Stage.DONE}
    assert not trial.server.reasons


@pytest.mark.parametrize("length", [1, 255, 2**16 - 1, 2**16 + 1, 2**18 - 1, 2**18 + 1])
@pytest.mark.parametrize("bits", [8, 13, 16, 27, 32])
def test_lengths_around_the_blocks(bits: int, length: int) -> None:
    trial = Trial(3, terms=trial_terms(3, phases=one_phase(bits, length)))
    (total,) = trial.run()
    plain = sum(vector.astype(np.uint64) for vector in trial.vectors[0].values()) % 2**bits
    assert (total == plain).all()


def test_the_largest_values_wrap() -> None:
    for bits in (8, 11, 16, 20, 32):
        trial = Trial(5, terms=trial_terms(5, phases=one_phase(bits, 9)))
        for vector in trial.vectors[0].values():
            vector.fill(2**bits - 1)
        (total,) = trial.run()
        assert total.tolist() == [(5 * (2**bits - 1)) % 2**bits] * 9


def test_two_phases_have_sums_of_their_own() -> None:
    for signed in (False, True):
        trial = Trial(6, terms=trial_terms(6, phases=TWO_PHASES, signed=signed))
        first, second = trial.run(bind=S)
        assert (first == trial.expected(0, trial.names)).all() and first.dtype == np.uint16
        assert (second == trial.expected(1, trial.names)).all()


def outcome(trial: Trial, drops: dict[str, set[str]]) -> bool:
    """That a round of a complete graph does what the rules say; whether it ends with a sum."""
    terms, able = trial.terms, set(trial.names) - drops.get("share", set())
    _, threshold = terms.neighbourhood(len(trial.names))
    sums, fails = [], len(able) < max(terms.least_survivors, threshold + 1)
    for phase in range(len(terms.phases)):
        summed = able - drops.get(f"mask {phase}", set())
        confirmed = summed - drops.get(f"confirm {phase}", set())
        able = confirmed - drops.get(f"reveal {phase}", set())
        # Whoever is left holds everybody's shares except its own.
        fails = fails or len(summed) < terms.least_survivors or len(able) < threshold + 1
        sums.append(summed)
    if fails:
        with refused("too_few_survivors"):
            trial.run(drops, bind=S)
        assert trial.server.hop.name == "ABORTED" and trial.server._total.size == 0
        return False
    for phase, total in enumerate(trial.run(drops, bind=S)):
        assert (total == trial.expected(phase, sums[phase])).all()
    return True


def test_five_clients_drop_in_every_way() -> None:
    """How many are lost in which hop: all 126 ways to spread five clients over staying and four hops, names turning."""
    ended = 0
    for turn, where in enumerate(itertools.combinations_with_replacement(("", *HOPS_OF_ONE_PHASE), 5)):
        names = [f"client-00{(i + turn) % 5}" for i in range(5)]
        drops = {hop: {name for name, lost in zip(names, where, strict=True) if lost == hop} for hop in set(where)}
        ended += outcome(Trial(5, terms=trial_terms(5)), drops)
    assert ended == 5  # with t = 3 of four neighbours, one may be lost anywhere, or nobody


@pytest.mark.parametrize("hop", HOPS_OF_ONE_PHASE)
def test_each_of_five_clients_drops_in_each_hop(hop: str) -> None:
    for name in (f"client-00{i}" for i in range(5)):
        assert outcome(Trial(5, terms=trial_terms(5)), {hop: {name}})


def test_two_of_eight_clients_drop_anywhere() -> None:
    for (first, second), hops in itertools.product([(2, 5)], itertools.product(HOPS_OF_ONE_PHASE, repeat=2)):
        drops: dict[str, set[str]] = {}
        for client, hop in zip((first, second), hops, strict=True):
            drops.setdefault(hop, set()).add(f"client-00{client}")
        assert outcome(Trial(8, terms=trial_terms(8)), drops)


@pytest.mark.parametrize("hop", ["share", *(f"{h} {p}" for p in (0, 1) for h in ("mask", "confirm", "reveal"))])
@pytest.mark.parametrize("name", [f"client-00{i}" for i in range(5)])
def test_five_clients_two_phases_one_drops(hop: str, name: str) -> None:
    outcome(Trial(5, terms=trial_terms(5, phases=TWO_PHASES)), {hop: {name}})


def test_a_client_lost_before_its_advert_is_no_member() -> None:
    trial = Trial(6, terms=trial_terms(6, least_cohort=5, least_survivors=4))
    (total,) = trial.run({"advertise": {"client-002"}})
    assert (total == trial.expected(0, set(trial.names) - {"client-002"})).all()
    assert trial.server.survivors == tuple(name for name in trial.names if name != "client-002")


@pytest.mark.parametrize(("clients", "seed"), [(10, 0), (10, 1), (20, 2), (33, 3), (48, 4), (200, 5)])
def test_random_dropouts(clients: int, seed: int) -> None:
    """A tenth is lost, spread over all hops; neighbourhoods that seldom lose too many."""
    k, t = degree(clients, colluding=0.0, dropping=0.1, failure=0.05)
    terms = trial_terms(clients, degree=k, neighbour_threshold=t, phases=one_phase(16, 20))
    trial = Trial(clients, seed=seed, terms=replace(terms, least_survivors=2 * clients // 3, least_cohort=clients))
    generator = np.random.default_rng(seed)
    lost = generator.choice(trial.names, clients // 10, replace=False).tolist()
    drops = {hop: set(lost[i::4]) for i, hop in enumerate(HOPS_OF_ONE_PHASE)}
    (total,) = trial.run(drops)
    stayed = set(trial.names) - drops["share"] - drops["mask 0"]
    assert (total == trial.expected(0, stayed)).all()
    assert trial.server.reasons == {"silent": len(lost)}


@pytest.mark.parametrize("signed", [False, True])
def test_exactly_the_threshold_and_one_less(signed: bool) -> None:
    terms = trial_terms(8, least_survivors=7, least_cohort=8, signed=signed)
    exact = Trial(8, terms=terms)
    (total,) = exact.run({"mask 0": {"client-004"}})
    assert (total == exact.expected(0, set(exact.names) - {"client-004"})).all()
    less = Trial(8, terms=terms).advertise().share()
    with refused("too_few_survivors"):
        less.mask(skip={"client-004", "client-005"})
    assert less.server.hop.name == "ABORTED" and less.server._total.size == 0
    assert all(state.stage in (Stage.MASKED, Stage.SHARED) for state in less.states.values())


def test_shares_of_exactly_the_threshold_open_and_one_less_do_not() -> None:
    """t + 1 clients of a complete graph hold t shares of each other's secrets."""
    terms = trial_terms(9)
    enough, drops = Trial(9, terms=terms), [f"client-00{i}" for i in range(9)]
    stay = terms.neighbour_threshold + 1
    (total,) = enough.run({"reveal 0": set(drops[stay:])})
    assert (total == enough.expected(0, enough.names)).all()
    short = Trial(9, terms=terms)
    with refused("too_few_survivors"):
        short.run({"reveal 0": set(drops[stay - 1 :])})


def test_a_round_does_not_begin_with_too_few() -> None:
    with refused("small_cohort"):
        Trial(6, terms=trial_terms(6, least_cohort=6)).advertise(skip={"client-001"})
    with refused("too_few_survivors"):
        Trial(6, terms=trial_terms(6)).advertise().share(skip={"client-001", "client-002", "client-003"})


def test_a_client_without_enough_neighbours_ends_the_round_before_the_masks() -> None:
    """Nothing of it could be opened, and on a ring its neighbours lack as many."""
    terms = trial_terms(40, degree=4, neighbour_threshold=3, least_survivors=20, least_cohort=40)
    trial = Trial(40, terms=terms).advertise()
    cohort = trial.server._cohort
    with refused("too_few_survivors"):
        trial.share(skip={cohort.names[i] for i in cohort.of[7][:2]})
    assert {state.stage for state in trial.states.values()} == {Stage.ADVERTISED, Stage.SHARED}


def test_late_messages_change_nothing() -> None:
    """A vector that comes after its sender's masking key was opened is discarded, and its own mask never opens."""
    trial = Trial(6).advertise().share()
    late = "client-002"
    state, vector = trial.masked(ClientState.from_bytes(trial.states[late].to_bytes()), trial.inbox[late])
    trial.mask(skip={late})
    assert not trial.server.accept_masked(late, vector.header, vector.body)
    trial.confirm().reveal()
    assert not trial.server.accept_masked(late, vector.header, vector.body)
    total = trial.finish()
    assert not trial.server.accept_masked(late, vector.header, vector.body)
    assert trial.server.reasons == {"silent": 1, "late": 3}
    assert (total == trial.expected(0, set(trial.names) - {late})).all()
    assert state.stage is Stage.MASKED


def test_messages_out_of_turn_are_counted() -> None:
    trial = Trial(6).advertise()
    server, name = trial.server, "client-001"
    assert not server.accept_reveal(name, b"")
    assert not server.accept_advert(name, trial.sent["advert"][name])
    assert not server.accept_shares("nobody", b"")
    trial.share()
    assert not server.accept_shares(name, trial.sent["shares"][name])
    for name in server.awaited[:2]:
        server.accept_masked(name, b"", b"")
    assert not server.accept_masked(name, b"", b"")
    assert server.reasons == {"early": 1, "late": 3, "foreign_id": 1, "malformed": 2}
    for close in (
        server.close_adverts,
        server.close_shares,
        server.close_confirmations,
        server.finish,
        server.next_phase,
    ):
        with refused("wrong_phase"):
            close()


def test_a_state_goes_on_from_its_bytes() -> None:
    """Every client's process dies after every hop."""
    terms = trial_terms(6, phases=TWO_PHASES, signed=True)
    there, again = Trial(6, terms=terms), Trial(6, terms=terms)
    sums = there.run({"mask 0": {"client-003"}}, bind=S)
    again.advertise()
    for phase in (0, 1):
        if phase:
            again.next_phase(S)
        else:
            again.share()
        for hop in (again.mask, again.confirm, again.reveal):
            again.states = {name: ClientState.from_bytes(state.to_bytes()) for name, state in again.states.items()}
            skip = {"client-003"} if hop == again.mask and not phase else frozenset()
            hop(skip, **({"bind": S} if hop == again.mask and phase else {}))
        assert (again.finish() == sums[phase]).all()
    assert {name: state.stage for name, state in again.states.items() if name != "client-003"} == dict.fromkeys(
        (name for name in again.names if name != "client-003"), Stage.DONE
    )
