"""Partitions: every record on exactly one client, units whole, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import DataConfig
from common.errors import ConfigError, DataError
from common.units import Image, Interaction, Record
from simulations.partition import partition

SYNTHETIC = ("uniform", "dirichlet", "quantity")


def texts(*shape: int) -> list[Record]:
    """Client c has ``shape[c]`` units of three records each."""
    return [
        Record(f"c{c}", f"{c}-{u}", f"{c}-{u}-{i}") for c, n in enumerate(shape) for u in range(n) for i in range(3)
    ]


def pictures(count: int, classes: int) -> list[Record]:
    pixels = np.zeros((2, 2), np.uint8)
    return [Record("all", str(i), Image(pixels, label=i % classes)) for i in range(count)]


def config(kind: str, clients: int, **more: Any) -> DataConfig:
    return DataConfig(partition=kind, clients=clients, **more)


def check(records: list[Record], parts: dict[str, list[Record]]) -> None:
    """The slow obvious check: nothing lost, nothing twice, no unit on two clients, no two units joined."""
    assert Counter(r.value for r in records) == Counter(r.value for part in parts.values() for r in part)
    assert all(r.client == name for name, part in parts.items() for r in part)
    before = {r.value: (r.client, r.unit) for r in records}
    homes: dict[Any, set[Any]] = {}
    sources: dict[Any, set[Any]] = {}
    for part in parts.values():
        for r in part:
            homes.setdefault(before[r.value], set()).add((r.client, r.unit))
            sources.setdefault((r.client, r.unit), set()).add(before[r.value])
    assert all(len(h) == 1 for h in homes.values()), "a unit was split"
    assert all(len(s) == 1 for s in sources.values()), "two units were joined"


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(SYNTHETIC),
    shape=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    clients=st.integers(1, 9),
    alpha=st.sampled_from([1e-3, 0.1, 0.5, 1.0, 100.0]),
    seed=st.integers(0, 3),
)
def test_whole_units_on_exactly_one_client(kind: str, shape: list[int], clients: int, alpha: float, seed: int) -> None:
    records = texts(*shape)
    settings_ = config(kind, clients, alpha=alpha)
    if sum(shape) < clients:
        with pytest.raises(DataError, match="cannot be spread"):
            partition(records, settings_, seed)
        return
    parts = partition(iter(records), settings_, seed)
    check(records, parts)
    assert len(parts) == clients and all(parts.values())
    assert parts == partition(records, settings_, seed)


@pytest.mark.parametrize("flaw", ["lost", "twice", "split", "joined"])
def test_the_check_rejects_a_broken_partition(flaw: str) -> None:
    records = texts(4, 4)
    parts = partition(records, config("uniform", 3), 0)
    name, other = list(parts)[:2]
    if flaw == "lost":
        parts[name].pop()
    elif flaw == "twice":
        parts[name].append(parts[name][0])
    elif flaw == "split":
        moved = parts[name].pop()
        parts[other].append(Record(other, moved.unit, moved.value))
    else:
        parts[name] = [Record(name, "same", r.value) for r in parts[name]]
    with pytest.raises(AssertionError):
        check(records, parts)


def test_a_unit_read_from_several_files_stays_one_unit() -> None:
    files = [Record(f"file{f}", f"user{u}", Interaction(f"user{u}", f"item{f}")) for f in range(3) for u in range(8)]
    parts = partition(files, config("uniform", 2, reader="interactions", unit="user"), 0)
    homes = {(r.value.user, name, r.unit) for name, part in parts.items() for r in part}
    assert len(homes) == 8
    assert [len(part) for part in parts.values()] == [12, 12]


def test_keys_of_a_corpus_hold_within_its_clients() -> None:
    records = [Record(f"package{c}", str(u), f"{c} {u}") for c in range(3) for u in range(8)]
    parts = partition(records, config("uniform", 2, reader="corpus"), 0)
    assert len({(r.client, r.unit) for part in parts.values() for r in part}) == 24


def test_by_key_is_the_data_as_read() -> None:
    records = texts(2, 3)
    parts = partition(records, config("key", 0), 0)
    assert [r for part in parts.values() for r in part] == records
    assert list(parts) == ["c0", "c1"]


@pytest.mark.parametrize("kind", SYNTHETIC)
def test_seeds_differ(kind: str) -> None:
    records = texts(40)
    assert partition(records, config(kind, 4), 0) != partition(records, config(kind, 4), 1)


def test_uniform_sizes_differ_by_at_most_one_unit() -> None:
    parts = partition(texts(50), config("uniform", 7), 0)
    assert {len(part) // 3 for part in parts.values()} == {7, 8}


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_quantity_follows_the_power_law(alpha: float) -> None:
    parts = partition(texts(5000), config("quantity", 10, alpha=alpha), 0)
    sizes = np.array([len(part) / 3 for part in parts.values()]) - 1
    law = np.arange(1, 11) ** (-1 / alpha)
    assert np.all(np.abs(sizes - law / law.sum() * 4990) < 1)


def _mean_top_share(alpha: float) -> float:
    """Mean over clients of the share of their commonest label, with 10 labels."""
    parts = partition(pictures(4000, 10), config("dirichlet", 20, alpha=alpha, unit="image"), 0)
    counts = [Counter(r.value.label for r in part) for part in parts.values()]
    return float(np.mean([max(c.values()) / c.total() for c in counts]))


def test_dirichlet_skews_labels_more_for_smaller_alpha() -> None:
    even, middle, skewed = (_mean_top_share(alpha) for alpha in (1000.0, 1.0, 0.05))
    assert even < 0.15 < middle < 0.5 < skewed


def test_dirichlet_shares_have_the_right_moments() -> None:
    """Share of a client in a label: mean 1/K, variance (1/K)(1 - 1/K) / (K * alpha + 1)."""
    clients, alpha = 5, 0.5
    parts = partition(pictures(20_000, 100), config("dirichlet", clients, alpha=alpha, unit="image"), 3)
    shares = np.array([np.bincount([r.value.label for r in p], minlength=100) / 200 for p in parts.values()])
    expected = (1 / clients) * (1 - 1 / clients) / (clients * alpha + 1)
    assert np.allclose(shares.sum(axis=0), 1)
    assert 2 / 3 < shares.var() / expected < 3 / 2


def test_dirichlet_without_labels_skews_the_clients_as_read() -> None:
    parts = partition(texts(100, 100), config("dirichlet", 2, alpha=0.01), 1)
    owners = [Counter(r.value[0] for r in part) for part in parts.values()]
    assert any(max(c.values()) / c.total() > 0.9 for c in owners)


def test_where_the_client_is_the_unit_single_records_are_dealt() -> None:
    records = [Record("all", "all", f"text {i}") for i in range(12)]
    parts = partition(records, config("uniform", 4, unit="client"), 0)
    assert sorted(len(p) for p in parts.values()) == [3, 3, 3, 3]
    assert all(r.unit == r.client == name for name, part in parts.items() for r in part)
    rated = [Record("all", "all", Interaction(f"u{i % 6}", f"i{i}")) for i in range(30)]
    parts = partition(rated, config("uniform", 3, unit="client"), 0)
    users = [{r.value.user for r in part} for part in parts.values()]
    assert sum(len(u) for u in users) == 6


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"needs data\.clients"):
        partition(texts(3), config("uniform", 0), 0)
    with pytest.raises(DataError, match="cannot be spread"):
        partition([], config("uniform", 2), 0)
