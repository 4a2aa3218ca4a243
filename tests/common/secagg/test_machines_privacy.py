"""What the coordinator sees: uniform vectors, and nothing that the sum and who survived do not already tell.

The simulator argument of Bonawitz et al. 2017 (theorem 6.3), carried out: masks come from an oracle that hands out
uniform vectors. For any other inputs with the same sum of survivors, the oracle's answers on seeds that were never
opened can be chosen so that every message of the round is the same, bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy import stats

from common.errors import SecAggError
from common.secagg import client, server
from common.secagg.derivations import pair_seed, self_seed
from common.secagg.keys import AgreementKey
from common.secagg.masks import Masker, Words
from common.secagg.packing import unpacked
from common.secagg.terms import PhaseTerms
from simulations.protocol_checks.trial import Trial, trial_terms
from tests.common.secagg._tools import refused

LENGTH = 30
LOST = "client-003"
PHASES = (PhaseTerms("values", 16, LENGTH),)


class Oracle:
    """Seed -> uniform vector, drawn when it is first asked for; ``programmed`` answers come first."""

    def __init__(self, programmed: dict[bytes, Words] | None = None) -> None:
        self.answers: dict[bytes, Words] = dict(programmed or {})
        self._generator = np.random.default_rng(7)

    def __call__(self, seed: bytes) -> Words:
        drawn = self._generator.integers(0, 2**16, LENGTH).astype("<u2")
        return self.answers.setdefault(seed, drawn)

    def masker(self) -> type[Masker]:
        """A masker that asks this oracle in place of AES."""
        oracle = self

        class Asking(Masker):
            def apply(self, total: Words, *, plus: Sequence[bytes] = (), minus: Sequence[bytes] = ()) -> None:
                for seed in plus:
                    total += oracle(seed)
                for seed in minus:
                    total -= oracle(seed)

        return Asking


def view(
    monkeypatch: Any, oracle: Oracle, vectors: dict[str, Words], *, skip: set[str]
) -> tuple[Trial, list[Any], Any]:
    """The trial, every message that the coordinator sends or gets, and the clients' secrets before they mask."""
    monkeypatch.setattr(client, "Masker", oracle.masker())
    monkeypatch.setattr(server, "Masker", oracle.masker())
    trial = Trial(6, terms=trial_terms(6, phases=PHASES))
    trial.vectors[0] = vectors
    trial.advertise().share()
    secrets = {n: (s.secrets["masking 0"], s.secrets["self 0"]) for n, s in trial.states.items()}
    seen: list[Any] = [dict(trial.inbox)]
    try:
        trial.mask(skip=skip)
        trial.confirm().reveal()
        seen.append(trial.finish().tolist())
    except SecAggError as error:
        seen.append(error.code)
    return trial, [*seen, dict(trial.sent), dict(trial.inbox), trial.server.reasons], secrets


def seeds_between(trial: Trial, secrets: Any, names: list[str]) -> list[bytes]:
    """The seeds of the masks of each client with the next."""
    adverts, found = trial.server._cohort.adverts, []
    for first, second in pairwise(names):
        public = adverts[trial.names.index(second)].masking[0]
        key = AgreementKey(secrets[first][0])
        found.append(pair_seed(key, public, view=trial.server._opening.view, pair=(first, second)))
    return found


def other_inputs(survivors: list[str]) -> dict[str, Words]:
    """Everything in the first survivor's vector; the others', and the lost client's, are nothing."""
    true = Trial(6, terms=trial_terms(6, phases=PHASES))
    fake = {name: np.zeros(LENGTH, dtype="<u2") for name in true.names}
    fake[survivors[0]] = true.expected(0, survivors)
    return fake


def test_the_view_follows_from_the_sum_and_the_survivors(monkeypatch: pytest.MonkeyPatch) -> None:
    true = Trial(6, terms=trial_terms(6, phases=PHASES)).vectors[0]
    oracle = Oracle()
    trial, real, secrets = view(monkeypatch, oracle, true, skip={LOST})
    survivors = list(trial.server.survivors)
    fake = other_inputs(survivors)
    programmed, moved = dict(oracle.answers), np.zeros(LENGTH, dtype="<u2")
    for name, seed in zip(survivors, seeds_between(trial, secrets, survivors), strict=False):
        moved = moved + true[name] - fake[name]
        programmed[seed] = oracle.answers[seed] + moved
    _, simulated, _ = view(monkeypatch, Oracle(programmed), fake, skip={LOST})
    assert simulated == real
    assert real[1] == trial.expected(0, survivors).tolist()
    # The argument can fail: with another sum no answers on unopened seeds give this view.
    fake[survivors[-1]] = fake[survivors[-1]] + 1
    _, different, _ = view(monkeypatch, Oracle(programmed), fake, skip={LOST})
    assert different != real


def test_below_the_threshold_the_view_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is opened: the clients' own masks fit any inputs."""
    true = Trial(6, terms=trial_terms(6, phases=PHASES)).vectors[0]
    oracle, lost = Oracle(), {LOST, "client-000", "client-005"}
    trial, real, secrets = view(monkeypatch, oracle, true, skip=lost)
    assert real[1] == "too_few_survivors"
    programmed = dict(oracle.answers)
    for name in set(trial.names) - lost:
        seed = self_seed(secrets[name][1], trial.server._opening.view)
        programmed[seed] = programmed[seed] + true[name]
    nothing = {name: np.zeros(LENGTH, dtype="<u2") for name in trial.names}
    _, simulated, _ = view(monkeypatch, Oracle(programmed), nothing, skip=lost)
    assert simulated == real


def masked_bytes(value: int, *, seed: str, length: int = 2**15, bits: int = 16) -> bytes:
    """One client's masked vector of a constant."""
    trial = Trial(3, seed=seed, terms=trial_terms(3, phases=(PhaseTerms("values", bits, length),))).advertise().share()
    trial.vectors[0]["client-001"].fill(value)
    _, masked = trial.masked(trial.states["client-001"], trial.inbox["client-001"])
    return bytes(masked.body)


def byte_p_value(data: bytes) -> float:
    """Chi-square of the 256 byte values against uniform."""
    return float(stats.chisquare(np.bincount(np.frombuffer(data, np.uint8), minlength=256)).pvalue)


def bit_p_values(data: bytes, bits: int) -> list[float]:
    """For each bit of a value: how often it is set, against one half."""
    values = unpacked(data, bits, 8 * len(data) // bits)
    return [stats.binomtest(int((values >> b & 1).sum()), len(values)).pvalue for b in range(bits)]


@pytest.mark.parametrize("bits", [10, 16, 32])
@pytest.mark.parametrize("value", [0, 255])
def test_a_masked_vector_is_uniform(bits: int, value: int) -> None:
    data = masked_bytes(value, seed="uniform", bits=bits)
    assert byte_p_value(data) > 1e-4
    assert min(bit_p_values(data, bits)) > 1e-4


def test_the_uniformity_test_can_fail() -> None:
    """A mask whose low bit is set in 52 of 100 values; one that is one bit short; none."""
    generator = np.random.default_rng(3)
    values = generator.integers(0, 2**16, 2**15).astype("<u2")
    biased = values | (generator.random(2**15) < 0.04).astype("<u2")
    assert min(bit_p_values(biased.tobytes(), 16)) < 1e-6
    assert byte_p_value((values >> 1).tobytes()) < 1e-6
    assert byte_p_value(bytes(2**16)) < 1e-6


def test_inputs_with_one_sum_look_alike() -> None:
    """Two-sample chi-square of bytes: a vector of zeros against one of the largest value."""
    tables = [
        np.bincount(np.frombuffer(masked_bytes(value, seed=seed), np.uint8), minlength=256)
        for value, seed in ((0, "one"), (2**16 - 1, "two"))
    ]
    assert stats.chi2_contingency(np.array(tables)).pvalue > 1e-4


def test_masks_of_two_clients_are_not_related() -> None:
    """XOR and difference of two clients' masked zeros are uniform too, though they share a pairwise mask."""
    trial = Trial(3, terms=trial_terms(3, phases=(PhaseTerms("values", 16, 2**15),))).advertise().share()
    bodies = []
    for name in trial.names[:2]:
        trial.vectors[0][name].fill(0)
        bodies.append(np.frombuffer(trial.masked(trial.states[name], trial.inbox[name])[1].body, "<u2"))
    for mixed in (bodies[0] ^ bodies[1], bodies[0] - bodies[1], bodies[0] + bodies[1]):
        assert byte_p_value(mixed.tobytes()) > 1e-4


def test_states_and_errors_show_no_secret() -> None:
    """Neither in what is printed nor in copies made behind the protocol's back."""
    trial = Trial(5).advertise().share()
    state = trial.states["client-001"]
    hidden = [state.secrets[name] for name in state.secrets.names]
    shown = repr(state) + repr(state.secrets) + str(vars(state).keys())
    assert not any(secret.hex() in shown or repr(secret)[2:-1] in shown for secret in hidden)
    with pytest.raises(TypeError, match="to_bytes"):
        copy.deepcopy(state)
    with refused("malformed") as _:
        trial.masked(state, b"")
    with refused("wrong_phase"):
        state.to_bytes()
    assert state.secrets.names == () and not state.usable


def test_every_hop_leaves_only_what_later_hops_need() -> None:
    trial = Trial(5, terms=trial_terms(5, phases=(PhaseTerms("a", 16, 3), PhaseTerms("b", 16, 3))))
    kept: list[tuple[str, ...]] = []

    def look() -> None:
        kept.append(trial.states["client-000"].secrets.names)

    trial.advertise()
    look()
    trial.share()
    look()
    for phase in (0, 1):
        if phase:
            trial.next_phase()
        for step in (trial.mask, trial.confirm, trial.reveal):
            step()
            look()
        trial.finish()
    assert kept == [
        ("masking 0", "masking 1", "sealing", "signing"),
        ("masking 0", "masking 1", "sealing", "self 0", "self 1", "signing"),
        ("held 0", "held 1", "masking 1", "self 1", "signing"),
        ("held 0", "held 1", "masking 1", "self 1", "signing"),
        ("held 1", "masking 1", "self 1", "signing"),
        ("held 1", "signing"),
        ("held 1", "signing"),
        (),
    ]


def test_erased_secrets_are_overwritten() -> None:
    state = Trial(5).advertise().states["client-000"]
    kept = dict(state.secrets._values)
    assert all(any(value) for value in kept.values())
    state.abort()
    assert not any(any(value) for value in kept.values())
