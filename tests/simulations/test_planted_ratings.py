"""The generated population is what its text says: fixed, without repeats, skewed, and with a taste to be found."""

from __future__ import annotations

from itertools import islice

import numpy as np

from simulations import corpora
from simulations.corpora.planted_ratings import CORPUS, ITEMS, USERS, item_key

FEW = 1500


def first(users: int) -> list[np.ndarray]:
    return list(CORPUS.lists(users))


def test_the_population_is_the_same_on_every_call_and_for_every_size() -> None:
    some, more = first(30), first(1020)
    assert USERS >= 20_000 and len(some) == 30 and len(more) == 1020
    assert all(np.array_equal(a, b) for a, b in zip(some, more, strict=False))


def test_lists_are_distinct_items_of_the_stated_lengths() -> None:
    lists = first(FEW)
    lengths = np.array([len(items) for items in lists])
    assert all(len(set(items.tolist())) == len(items) for items in lists)
    assert lengths.min() >= 6 and lengths.max() <= 200
    assert 25 <= np.median(lengths) <= 33 and 36 <= lengths.mean() <= 42
    assert all(items.min() >= 0 and items.max() < ITEMS for items in lists)


def test_items_are_skewed_and_the_order_in_time_says_nothing() -> None:
    lists = first(FEW)
    counts = np.sort(np.bincount(np.concatenate(lists), minlength=ITEMS))[::-1]
    assert counts[: ITEMS // 10].sum() > 0.25 * counts.sum()
    halves = [(items[: len(items) // 2], items[len(items) // 2 :]) for items in lists if len(items) >= 10]
    early, late = (np.mean([half[k].mean() for half in halves]) for k in (0, 1))
    assert abs(early - late) < 40  # item numbers follow popularity; the standard error is about 10


def test_people_who_share_items_share_more_than_popularity_explains() -> None:
    """Items that go together: the first eigenvalues of the centred Gram matrix stand out against shuffled lists."""
    lists = first(FEW)
    top = np.argsort(-np.bincount(np.concatenate(lists), minlength=ITEMS))[:300]
    had = np.zeros((FEW, ITEMS))
    for user, items in enumerate(lists):
        had[user, items] = 1.0
    had = had[:, top]
    shuffled = np.column_stack([np.random.default_rng(i).permutation(column) for i, column in enumerate(had.T)])
    planted, chance = (np.linalg.svd(x - x.mean(axis=0), compute_uv=False) for x in (had, shuffled))
    assert planted[:8].min() > 1.15 * chance[0]


def test_records_and_catalogue_agree() -> None:
    keys = corpora.vocabulary("planted-ratings")
    assert len(keys) == ITEMS and set(keys.values()) == {1.0}
    records = list(islice(corpora.load("planted-ratings"), 500))
    assert {record.value.item for record in records} <= set(keys)
    assert all(record.client == record.unit == record.value.user for record in records)
    own = [record.value.item for record in records if record.client == "user-00000"]
    assert own == [item_key(int(item)) for item in first(1)[0]]
    assert [record.value.timestamp for record in records[: len(own)]] == [float(n) for n in range(len(own))]
