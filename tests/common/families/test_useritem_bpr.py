"""BPR with reconstructed users: what is drawn, and one client's work against plain loops."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.families import LocalTraining
from common.families import useritem_bpr as module
from common.families._interactions import UserLists, user_lists
from common.families._pairs import drawn_pairs, not_had
from common.families.useritem_bpr import FAMILY, BprOptions
from common.table import RowDomain
from common.units import Interaction, Record, Units
from common.update import UpdateBatch

ROWS, DIMENSION = 15, 4
DOMAIN = RowDomain(tuple(f"i{n}" for n in range(ROWS)))
OPTIONS = BprOptions(dimension=DIMENSION, negatives=3)


def client(lists: list[list[int]]) -> Units:
    records = [Record("c", f"u{u}", Interaction(f"u{u}", f"i{i}")) for u, items in enumerate(lists) for i in items]
    return FAMILY.encode(records, DOMAIN, OPTIONS)


def training(*, steps: int = 0, epochs: int = 1, batch_size: int = 64, lr: float = 0.1) -> LocalTraining:
    return LocalTraining(local_steps=steps, local_epochs=epochs, batch_size=batch_size, lr=lr)


def table(seed: int = 0) -> np.ndarray:
    return FAMILY.initial(OPTIONS, FAMILY.specs(OPTIONS, ROWS), DOMAIN, seed)["items"]


def update(clients: list[Units], *, seeds: list[int], with_training: LocalTraining | None = None) -> UpdateBatch:
    return FAMILY.local_update(
        {"items": table()}, clients, DOMAIN, OPTIONS, training=with_training or training(), seeds=seeds
    )


def dense(batch: UpdateBatch, k: int) -> np.ndarray:
    rows, out = batch.rows["items"], np.zeros((ROWS, DIMENSION))
    part = slice(int(rows.offsets[k]), int(rows.offsets[k + 1]))
    out[rows.ids[part]] = rows.values[part]
    return out


@settings(max_examples=40, deadline=None)
@given(
    lists=st.lists(st.sets(st.integers(0, ROWS - 1), min_size=1, max_size=ROWS - 1), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_items_drawn_are_exactly_the_ones_not_had(lists: list[set[int]], seed: int) -> None:
    found = user_lists(client([sorted(items) for items in lists]), ROWS)
    uniform = np.random.default_rng(seed).random((len(found.items), 4))
    drawn = not_had(found, uniform, ROWS)
    for entry, own in enumerate(found.owners):
        missing = sorted(set(range(ROWS)) - lists[own])
        expected = [missing[int(u * len(missing))] for u in uniform[entry]]
        assert drawn[entry].tolist() == expected


def test_every_item_not_had_is_drawn_equally_often_and_a_held_out_item_too() -> None:
    """Item 7 stands for a held-out one: nothing but the training items is known, so it must be drawn like the rest."""
    pairs = drawn_pairs([client([[0, 3, 14]])], ROWS, 4000, training=training(), seeds=[1])
    counts = Counter(np.concatenate([pairs.first.ravel(), pairs.negatives[0].ravel()]).tolist())
    assert set(counts) == set(range(ROWS)) - {0, 3, 14}
    expected = sum(counts.values()) / (ROWS - 3)
    chi2 = sum((n - expected) ** 2 / expected for n in counts.values())
    assert chi2 < 35  # 11 degrees of freedom: exceeded by chance once in 4,000 seeds
    without = {item: n for item, n in counts.items() if item != 7}
    assert (without.get(7, 0) - expected) ** 2 / expected > 35  # what a leak would look like


def test_a_user_who_has_everything_is_left_out() -> None:
    pairs = drawn_pairs([client([list(range(ROWS)), [2]])], ROWS, 2, training=training(), seeds=[0])
    assert len(pairs.lists.units) == 1 and pairs.lists.units.tolist() == [1]
    assert not dense(update([client([list(range(ROWS))])], seeds=[0]), 0).any()


def slow_update(lists: list[list[int]], seed: int, *, lr: float) -> np.ndarray:
    """One pass in one step, pair by pair, as Rendle et al. (2009) write the gradient."""
    start = table().astype(np.float64)
    pairs = drawn_pairs([client(lists)], ROWS, OPTIONS.negatives, training=training(), seeds=[seed])
    change = np.zeros_like(start)
    scale = np.mean((start**2).sum(axis=1))
    for user, own in enumerate(lists):
        entries = np.flatnonzero(pairs.lists.owners == user)
        x = np.zeros(DIMENSION)
        for _ in range(OPTIONS.reconstruction_steps):
            gradient = np.zeros(DIMENSION)
            for e in entries:
                for j in pairs.first[e]:
                    difference = start[pairs.lists.items[e]] - start[j]
                    gradient += difference / (1 + np.exp(x @ difference)) / OPTIONS.negatives / len(own)
            x = x + OPTIONS.reconstruction_lr / scale * gradient
            x = x / (1 + OPTIONS.reconstruction_lr * OPTIONS.ridge)
        for e in entries:
            i = pairs.lists.items[e]
            change[i] -= lr * OPTIONS.ridge * start[i]
            for j in pairs.negatives[0][e]:
                gain = 1 / (1 + np.exp(x @ (start[i] - start[j]))) / OPTIONS.negatives
                change[i] += lr * gain * x
                change[j] -= lr * (gain * x + OPTIONS.ridge / OPTIONS.negatives * start[j])
    return change


@pytest.mark.parametrize("lists", [[[1]], [[0, 5, 9]], [[0, 5], [5, 6, 7], [14]]])
def test_one_step_equals_the_loop_over_pairs(lists: list[list[int]]) -> None:
    found = dense(update([client(lists)], seeds=[4]), 0)
    np.testing.assert_allclose(found, slow_update(lists, 4, lr=0.1), atol=1e-5)
    assert not np.allclose(found, slow_update(lists, 5, lr=0.1), atol=1e-4)
    assert not np.allclose(found, -slow_update(lists, 4, lr=0.1), atol=1e-4)


def test_other_clients_change_nothing_even_with_more_passes_and_in_other_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clients = [client([[1, 2], [3]]), client([[i] for i in range(9)]), client([[4, 5, 6]])]
    several = training(steps=7, batch_size=2)
    together = update(clients, seeds=[1, 2, 3], with_training=several)
    for k, own in enumerate(clients):
        alone = update([own], seeds=[k + 1], with_training=several)
        np.testing.assert_allclose(dense(alone, 0), dense(together, k), atol=1e-6)
    monkeypatch.setattr(module, "_ELEMENTS_A_CHUNK", 1)
    apart = update(clients, seeds=[1, 2, 3], with_training=several)
    np.testing.assert_allclose(apart.rows["items"].values, together.rows["items"].values, atol=1e-6)


def test_steps_and_passes_count_as_the_settings_say() -> None:
    pairs = drawn_pairs(
        [client([[0], [1], [2], [3], [4]]), client([[0]])],
        ROWS,
        1,
        training=training(batch_size=2, epochs=2),
        seeds=[0, 1],
    )
    assert pairs.batches.tolist() == [3, 1] and pairs.steps.tolist() == [6, 2]
    turns = [taking for step in range(6) for _, taking in pairs.taking_part(step)]
    assert np.sum(turns, axis=0).tolist() == [2] * 6  # every user once a pass
    assert max(int(taking[:5].sum()) for taking in turns) == 2


def test_a_row_shared_by_many_users_of_one_client_does_not_run_away() -> None:
    crowd = client([[0] for _ in range(500)])
    change = dense(update([crowd], seeds=[0], with_training=training(batch_size=500, lr=0.1)), 0)
    assert np.abs(change[0]).max() < 8 * 0.1 * 10
    assert np.isfinite(change).all()


def test_empty_lists() -> None:
    empty = UserLists(*(np.zeros(n, np.int64) for n in (1, 0, 0, 0)))
    assert not_had(empty, np.zeros((0, 2)), ROWS).shape == (0, 2)
    assert FAMILY.local_update({"items": table()}, [], DOMAIN, OPTIONS, training=training(), seeds=[]).count == 0
