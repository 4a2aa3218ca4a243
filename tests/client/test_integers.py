"""What clients put into a secure sum, through the families' own code: beside mode central's sum, and when data fail."""

from __future__ import annotations

import math

import numpy as np
import pytest

from client.integers import client_integers
from client.training import Randomness, client_updates, local_training
from common.config import build_scenario
from common.errors import PrivacyConfigError
from common.privacy.distributed import released_from_sum
from common.privacy.private_sum import PrivateSum, release
from common.privacy.rng import NoiseSource
from common.privacy.rotation import rotation_seed
from common.table import RowDomain
from common.units import Record, Units
from common.work import Work, work_for

DOMAIN = RowDomain(tuple(f"w{chr(97 + i)}" for i in range(20)), np.ones(20))
SUM = {"secure_aggregation": "ideal", "min_clients": 3, "max_clients": 3}
WORDS = {"family": "word2vec", "dimension": 4, "subsample": 0.0}


def work(mode: str, unit: str, task: dict[str, object] | None = None, **federation: object) -> Work:
    privacy = {"mode": mode, "noise_multiplier": 0.01, "delta": 1e-5, "test_mode": True}
    if task is not None:
        privacy["l2_clip_norm"] = 0.5
    raw = {
        "task": task or {"family": "spectral", "dimension": 3},
        "data": {"unit": unit},
        "privacy": privacy,
        "federation": (SUM | federation) if mode == "distributed" else {},
    }
    return work_for(build_scenario(raw), DOMAIN)


def clients(which: Work) -> list[Units]:
    rng = np.random.default_rng(1)
    texts = [[" ".join(f"w{chr(97 + i)}" for i in rng.integers(0, 20, 6)) for _ in range(8)] for _ in range(3)]
    whole = which.plan.unit_is_client
    return [
        which.family.encode([Record("c", "c" if whole else str(k), t) for k, t in enumerate(of)], DOMAIN, which.options)
        for of in texts
    ]


def randomness(count: int) -> list[Randomness]:
    return [Randomness(k, NoiseSource.seeded_for_tests(5).derive("client", k)) for k in range(count)]


def vectors(which: Work, data: list[Units], round_number: int = 1) -> list[np.ndarray]:
    start = which.family.initial(which.options, which.specs, DOMAIN, 0)
    return list(
        client_integers(
            which,
            start,
            data,
            training=local_training(which, round_number),
            randomness=randomness(len(data)),
            round_number=round_number,
        )
    )


def decoded(which: Work, sent: list[np.ndarray], round_number: int = 1) -> dict[str, np.ndarray]:
    bits = which.plan.grid.secure.bits
    total = (np.sum([v.astype(np.int64) for v in sent], axis=0) % 2**bits).astype(sent[0].dtype)
    turn = rotation_seed(which.scenario.seed, round_number)
    found = released_from_sum(which.plan, which.update_specs, total, rotation_seed=turn)
    return {n: v for n, (_, v) in found.rows.items()} | dict(found.dense)


def central(unit: str, task: dict[str, object] | None, data: list[Units]) -> dict[str, np.ndarray]:
    """The clipped sum that mode central would noise."""
    which = work("central", unit, task)
    start = which.family.initial(which.options, which.specs, DOMAIN, 0)
    total = PrivateSum(which.update_specs)
    total.add(client_updates(which, start, data, training=local_training(which, 1), randomness=randomness(len(data))))
    import dataclasses

    found = release(total, dataclasses.replace(which.plan, mode="none"), NoiseSource.seeded_for_tests(0))
    whole = dict(found.dense)
    for spec in which.update_specs:
        if spec.is_table:
            ids, values = found.rows[spec.name]
            whole[spec.name] = np.zeros(spec.shape, np.float32)
            whole[spec.name][slice(None) if ids is None else ids] = values
    return whole


CASES = [("record", None), ("client", None), ("client", WORDS)]


@pytest.mark.parametrize(("unit", "task"), CASES)
@pytest.mark.parametrize("bits", [16, 32])
def test_the_decoded_sum_differs_from_central_by_noise_and_rounding_alone(
    unit: str, task: dict[str, object] | None, bits: int
) -> None:
    which = work("distributed", unit, task, bits=bits)
    data = clients(which)
    grid, found, wanted = which.plan.grid, decoded(which, vectors(which, data)), central(unit, task, data)
    units = 3 if unit == "client" else sum(d.count for d in data)
    most = math.hypot(grid.noise_stddev(3), math.sqrt(units) / 2 / grid.scale)
    off = np.concatenate([(found[n] - wanted[n]).ravel() for n in wanted])
    assert float(np.sqrt(np.mean(off**2))) < 1.5 * most
    assert float(np.linalg.norm(np.concatenate([w.ravel() for w in wanted.values()]))) > 4 * np.linalg.norm(off)


@pytest.mark.parametrize(("unit", "task"), CASES)
def test_the_same_seeds_give_the_same_integers_in_full_and_ideal(unit: str, task: dict[str, object] | None) -> None:
    one, other = (work("distributed", unit, task, secure_aggregation=name) for name in ("full", "ideal"))
    data = clients(one)
    for a, b in zip(vectors(one, data), vectors(other, data), strict=True):
        assert np.array_equal(a, b)


def test_rounds_have_rotations_of_their_own() -> None:
    which = work("distributed", "client", WORDS)
    data = clients(which)
    first, second = vectors(which, data, 1), vectors(which, data, 2)
    assert not np.array_equal(first[0], second[0])
    one, two = decoded(which, first, 1), decoded(which, second, 2)
    assert max(np.abs(one[n] - two[n]).max() for n in one) < 1.0


@pytest.mark.parametrize("unit", ["record", "client"])
def test_a_client_whose_data_fail_sends_its_noise(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from common.families.spectral import FAMILY

    which = work("distributed", unit)
    data, original = clients(which), FAMILY.contributions
    mark = np.float32(0.6251)
    data[1] = Units(data[1].offsets, {**data[1].columns, "weight": np.full_like(data[1].columns["weight"], mark)})

    def contributions(parameters, units, options):
        if mark in units.columns["weight"]:
            raise np.linalg.LinAlgError("Singular matrix")
        return original(parameters, units, options)

    honest = vectors(which, data)
    monkeypatch.setattr(type(FAMILY), "contributions", staticmethod(contributions))
    sent = vectors(which, data)
    assert np.array_equal(sent[0], honest[0]) and np.array_equal(sent[2], honest[2])
    assert not np.array_equal(sent[1], honest[1]) and np.count_nonzero(sent[1]) > len(sent[1]) / 2


def test_a_fault_of_the_program_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    from common.families.spectral import FAMILY

    def broken(parameters, units, options):
        raise LookupError("a fault")

    which = work("distributed", "record")
    data = clients(which)
    monkeypatch.setattr(type(FAMILY), "contributions", staticmethod(broken))
    with pytest.raises(LookupError):
        vectors(which, data)
    assert len(vectors(which, data[:1])) == 1


def test_a_client_without_data_sends_noise_alone() -> None:
    which = work("distributed", "record")
    (sent,) = vectors(which, [clients(which)[0].take(np.empty(0, np.int64))])
    assert np.count_nonzero(sent)


def test_other_modes_have_no_integers_and_this_one_no_floats() -> None:
    which = work("central", "client")
    with pytest.raises(PrivacyConfigError, match="no secure sum"):
        vectors(which, clients(which))
    which = work("distributed", "client")
    with pytest.raises(PrivacyConfigError, match="integers alone"):
        client_updates(which, {}, clients(which), training=local_training(which, 1), randomness=randomness(3))


def test_a_source_of_noise_is_needed() -> None:
    which = work("distributed", "record")
    start = which.family.initial(which.options, which.specs, DOMAIN, 0)
    with pytest.raises(PrivacyConfigError, match="source of noise"):
        client_integers(
            which,
            start,
            clients(which),
            training=local_training(which, 1),
            randomness=[Randomness(0)] * 3,
            round_number=1,
        )
