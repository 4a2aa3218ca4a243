"""Mode distributed: what clients send and what is decoded, beside slow oracles; what is refused."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import PrivacyConfigError, WireError
from common.privacy import distributed
from common.privacy.distributed import (
    client_vector,
    client_vectors,
    released_from_sum,
    sum_of_units,
    vector_length,
)
from common.privacy.plan import PrivacyPlan
from common.privacy.private_sum import PrivateSum, release
from common.privacy.rng import NoiseSource
from common.privacy.rotation import rotation_seed
from common.update import ParameterSpec, RowBatch, UpdateBatch, concatenated

from ._distributed_toy import DIMENSION, SPECS, contributions, dense, flat, plan

TURN = rotation_seed(7, 1)


def sources(n: int, seed: int = 0) -> list[NoiseSource]:
    return [NoiseSource.seeded_for_tests(seed).derive("client", k) for k in range(n)]


def total_of(vectors: list[np.ndarray], bits: int) -> np.ndarray:
    """The ideal secure sum, in Python's integers."""
    summed = [sum(map(int, column)) % 2**bits for column in zip(*vectors, strict=True)]
    return np.array(summed, dtype=np.uint16 if bits == 16 else np.uint32)


def client_sum(made: PrivacyPlan, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(decoded sum, plain sum) over n clients whose unit is the whole client."""
    batch = contributions(n, seed)
    vectors = list(client_vectors(made, SPECS, batch, sources(n, seed), rotation_seed=TURN))
    total = total_of(vectors, made.grid.secure.bits)
    return flat(released_from_sum(made, SPECS, total, rotation_seed=TURN)), dense(batch).sum(axis=0)


def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_share", lambda grid, source: np.zeros(grid.length, np.int64))


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("mechanism", ["skellam", "discrete_gaussian"])
def test_the_decoded_sum_is_the_plain_sum_but_for_noise_and_rounding(bits: int, mechanism: str) -> None:
    made = plan(bits=bits, mechanism=mechanism)
    decoded, plain = client_sum(made, 5)
    wanted = math.hypot(made.grid.noise_stddev(5), math.sqrt(5) / 2 / made.grid.scale)
    found = float(np.sqrt(np.mean((decoded - plain) ** 2)))
    assert 0.85 * made.grid.noise_stddev(5) < found < 1.15 * wanted


def test_without_noise_the_decoded_sum_is_off_by_rounding_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet(monkeypatch)
    made = plan(bits=16)
    decoded, plain = client_sum(made, 5)
    error = (decoded - plain) * made.grid.scale
    # Each client rounds every rotated number by itself: a variance of at most 1/4 each, kept by the rotation.
    assert float(np.mean(error**2)) < 5 / 4 * 1.3 and abs(float(np.mean(error))) < 0.5


def test_clients_send_unsigned_integers_of_the_stated_length() -> None:
    for bits, kind in ((16, np.uint16), (24, np.uint32), (32, np.uint32)):
        made = plan(bits=bits)
        (vector,) = client_vectors(made, SPECS, contributions(1), sources(1), rotation_seed=TURN)
        assert vector.dtype == kind and vector.shape == (vector_length(made, SPECS),) == (512,)
        assert int(vector.max()) < 2**bits
    assert vector_length(plan("record"), SPECS) == DIMENSION


def test_units_are_rounded_one_by_one_and_summed_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    made, batch = plan("record"), contributions(30)
    whole = sum_of_units(made, SPECS, [batch], sources(1)[0])
    scale = Fraction(made.grid.scale)
    oracle = [sum((Fraction(float(v)) for v in column if v), Fraction(0)) * scale for column in dense(batch).T]
    assert whole.dtype == np.int64
    assert max(abs(Fraction(int(v)) - w) for v, w in zip(whole, oracle, strict=True)) < 30
    touched = dense(batch).any(axis=0)
    assert not whole[~touched].any()  # what no unit touches stays exactly zero before noise
    off = np.array([float(Fraction(int(v)) - w) for v, w in zip(whole, oracle, strict=True)])[touched]
    assert abs(float(off.mean())) < 6 * float(off.std()) / math.sqrt(len(off))


def test_chunks_of_units_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values on the grid need no rounding, so the sum is the same however it is taken."""
    made = plan("record")
    batch = contributions(6)
    coarse = 8.0 / made.grid.scale
    snapped = UpdateBatch(
        6,
        {
            n: RowBatch(t.offsets, t.ids, (np.rint(t.values / coarse) * coarse).astype(np.float32))
            for n, t in batch.rows.items()
        },
        {n: (np.rint(a / coarse) * coarse).astype(np.float32) for n, a in batch.dense.items()},
    )
    exact = np.rint(dense(snapped).sum(axis=0) * made.grid.scale).astype(np.int64)
    assert np.array_equal(sum_of_units(made, SPECS, [snapped], sources(1)[0]), exact)
    assert np.array_equal(sum_of_units(made, SPECS, [snapped, snapped], sources(1)[0]), 2 * exact)
    assert not sum_of_units(made, SPECS, [], sources(1)[0]).any()


@pytest.mark.parametrize("unit", ["client", "record"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_contributes_nothing_and_its_noise_is_sent(unit: str, bad: float) -> None:
    made = plan(unit)
    batch = contributions(1)
    batch.dense["bias"][0, 3] = bad
    nothing = UpdateBatch(1, {}, {"bias": np.zeros((1, 30), np.float32)})
    if unit == "record":
        assert not sum_of_units(made, SPECS, [batch], sources(1)[0]).any()
        return
    found, idle = (next(client_vectors(made, SPECS, b, sources(1), rotation_seed=TURN)) for b in (batch, nothing))
    assert np.array_equal(found, idle) and found.any()


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(
        st.floats(width=32) | st.sampled_from([3.4e38, -3.4e38, 1e-45, -0.0, 0.5]), min_size=30, max_size=30
    ),
    unit=st.sampled_from(["client", "record"]),
    bits=st.sampled_from([16, 32]),
)
def test_the_norm_bound_always_holds(values: list[float], unit: str, bits: int) -> None:
    made = plan(unit, bits=bits)
    batch = contributions(1)
    batch.dense["bias"][0] = np.array(values, dtype=np.float32)
    if unit == "record":
        integers = sum_of_units(made, SPECS, [batch], sources(1)[0])
    else:
        with pytest.MonkeyPatch.context() as patch:
            quiet(patch)
            (sent,) = client_vectors(made, SPECS, batch, sources(1), rotation_seed=TURN)
        signed = sent.astype(np.int64)
        integers = np.where(signed >= 2 ** (bits - 1), signed - 2**bits, signed)
    assert sum(int(v) ** 2 for v in integers) <= made.grid.most_squared_norm
    assert sum(abs(int(v)) for v in integers) <= made.grid.l1_sensitivity


def test_a_clamp_moves_neighbours_no_further_apart() -> None:
    """Clamping is 1-Lipschitz number by number, so it keeps L1 and L2 bounds between neighbours."""
    rng = np.random.default_rng(0)
    made = plan("record")
    big = rng.integers(-2 * made.grid.clamp, 2 * made.grid.clamp, DIMENSION)
    unit = sum_of_units(made, SPECS, [contributions(1)], sources(1)[0])
    clamped = [
        client_vector(made, SPECS, v, sources(1)[0]).astype(np.int64) for v in (big, big + unit)
    ]  # one source: the noise cancels
    bits = made.grid.secure.bits
    moved = (clamped[1] - clamped[0] + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
    assert np.all(np.abs(moved) <= np.abs(unit)) and np.any(moved != unit)


@pytest.mark.parametrize("unit", ["client", "record"])
def test_the_largest_cohort_at_the_clamp_does_not_overflow(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet(monkeypatch)
    made = plan(unit)
    grid = made.grid
    assert grid.clamp * grid.secure.max_clients <= grid.room
    top = np.full(grid.length, 2**40)
    for sign in (1, -1):
        vectors = [client_vector(made, SPECS, sign * top, s) for s in sources(8)]
        total = total_of(vectors, grid.secure.bits).astype(np.int64)
        centred = (total + 2 ** (grid.secure.bits - 1)) % 2**grid.secure.bits - 2 ** (grid.secure.bits - 1)
        assert np.all(centred == sign * 8 * grid.clamp)


def test_the_record_clamp_is_as_generous_as_documented() -> None:
    from common.privacy.grid import LEAST_CLIPS

    made = plan("record")
    assert made.grid.clamp >= LEAST_CLIPS * made.l2_clip_norm * made.grid.scale


def test_a_seeded_source_is_refused_outside_test_mode() -> None:
    made = plan("record", test_mode=False)
    with pytest.raises(PrivacyConfigError, match="seeded source"):
        client_vector(made, SPECS, np.zeros(DIMENSION, np.int64), sources(1)[0])
    client_vector(made, SPECS, np.zeros(DIMENSION, np.int64), NoiseSource.from_os())


def test_shares_of_the_system_source_never_repeat() -> None:
    made = plan("record", test_mode=False)
    source, zeros = NoiseSource.from_os(), np.zeros(DIMENSION, np.int64)
    one, other = (client_vector(made, SPECS, zeros, source.derive("client", 1)) for _ in range(2))
    assert np.mean(one == other) < 0.1


def test_sums_of_another_kind_are_refused() -> None:
    made = plan(bits=24)
    good = np.zeros(512, np.uint32)
    released_from_sum(made, SPECS, good, rotation_seed=TURN)
    for bad in (good[:-1], good.astype(np.int64), good + np.uint32(2**24), good.astype(np.float32)):
        with pytest.raises(WireError, match="unsigned integers below"):
            released_from_sum(made, SPECS, bad, rotation_seed=TURN)


def test_updates_of_another_size_are_refused() -> None:
    with pytest.raises(PrivacyConfigError, match="updates of 510 numbers"):
        vector_length(plan(), (ParameterSpec("centre", (40, 8), "words"),))
    with pytest.raises(PrivacyConfigError, match="a client sends 510 integers"):
        client_vector(plan("record"), SPECS, np.zeros(512, np.int64), sources(1)[0])


def test_units_inside_a_client_are_not_rounded_as_one() -> None:
    with pytest.raises(PrivacyConfigError, match="one by one"):
        next(client_vectors(plan("record"), SPECS, contributions(1), sources(1), rotation_seed=TURN))


def test_the_float_path_refuses_the_mode() -> None:
    with pytest.raises(PrivacyConfigError, match="released_from_sum"):
        release(PrivateSum(SPECS), plan(), NoiseSource.seeded_for_tests(0))


def test_the_same_seeds_give_the_same_integers() -> None:
    made, batch = plan(), contributions(3)
    first, again = (np.stack(list(client_vectors(made, SPECS, batch, sources(3), rotation_seed=TURN))) for _ in "ab")
    assert np.array_equal(first, again)
    alone = next(client_vectors(made, SPECS, concatenated([contributions(3)]), sources(3)[:1], rotation_seed=TURN))
    assert np.array_equal(alone, first[0])


def test_another_rotation_gives_other_integers_and_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet(monkeypatch)
    made, batch = plan(), contributions(1)
    decoded = []
    for number in (1, 2):
        turn = rotation_seed(7, number)
        (sent,) = client_vectors(made, SPECS, batch, sources(1), rotation_seed=turn)
        decoded.append((sent, flat(released_from_sum(made, SPECS, sent, rotation_seed=turn))))
    assert not np.array_equal(decoded[0][0], decoded[1][0])
    assert np.abs(decoded[0][1] - decoded[1][1]).max() < 6 / made.grid.scale


def test_dense_parts_alone_and_tables_alone_are_encoded() -> None:
    made = plan("record")
    only_tables = dataclasses.replace(contributions(4), dense={"bias": np.zeros((4, 30), np.float32)})
    assert not sum_of_units(made, SPECS, [only_tables], sources(1)[0])[480:].any()
    only_dense = dataclasses.replace(contributions(4), rows={})
    found = sum_of_units(made, SPECS, [only_dense], sources(1)[0])
    assert found[480:].any() and not found[:480].any()
