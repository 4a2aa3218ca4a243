"""A generated population of 20,000 users whose taste is planted: recommendation under privacy needs many people.

How it is made. Every item i has a popularity ``b_i = -0.8 log(10 + i)`` (a Zipf-like tail) and a taste vector v_i of
8 independent normal coordinates of variance 1/8; every user has a taste vector p_u of 8 standard normal coordinates.
A user's list is drawn without replacement with weights ``exp(b_i + 2 p_u . v_i)`` (by Gumbel top-k, which is the same),
its length is log-normal (median 29, mean 39 after cutting to 6..200), and its order in time is a random permutation.
A model that knows the planted vectors can therefore do far better than popularity, and one that has learned nothing
does exactly as well as popularity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from common.table import IntArray
from common.units import Interaction, Record

USERS, ITEMS = 20_000, 2_000
_RANK, _TASTE, _ZIPF = 8, 2.0, 0.8
_SHORTEST, _LONGEST, _MEDIAN, _SPREAD = 6, 200, 29.0, 0.8
_BLOCK = 1_000
_SEED = 20_241


class PlantedRatings:
    """``planted-ratings``: one client and one privacy unit a user."""

    unit = "user"

    def records(self) -> Iterator[Record]:
        """About 784,000 interactions; the same ones on every call and machine."""
        for user, items in enumerate(self.lists()):
            name = f"user-{user:05d}"
            for time, item in enumerate(items):
                yield Record(name, name, Interaction(name, item_key(int(item)), timestamp=float(time)))

    def lists(self, users: int = USERS) -> Iterator[IntArray]:
        """Item numbers of the first ``users`` users, each in the order of time."""
        rng = np.random.default_rng(_SEED)
        items = rng.normal(size=(ITEMS, _RANK)) / np.sqrt(_RANK)
        popularity = -_ZIPF * np.log(10.0 + np.arange(ITEMS))
        for start in range(0, users, _BLOCK):
            taste = rng.normal(size=(_BLOCK, _RANK))
            weights = popularity + _TASTE * taste @ items.T + rng.gumbel(size=(_BLOCK, ITEMS))
            best = np.argpartition(-weights, _LONGEST, axis=1)[:, :_LONGEST]
            best = np.take_along_axis(best, np.argsort(-np.take_along_axis(weights, best, 1), axis=1), 1)
            lengths = np.exp(rng.normal(np.log(_MEDIAN), _SPREAD, _BLOCK)).round().astype(np.int64)
            for row, length in zip(best[: users - start], np.clip(lengths, _SHORTEST, _LONGEST), strict=False):
                yield rng.permutation(row[:length])

    def vocabulary(self) -> Mapping[str, float]:
        """The catalogue; how popular an item is stays private."""
        return {item_key(item): 1.0 for item in range(ITEMS)}


def item_key(item: int) -> str:
    """Name of an item."""
    return f"item-{item:04d}"


CORPUS = PlantedRatings()
