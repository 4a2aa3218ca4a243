"""Interactions of users with items as arrays: shared by the families of users and items."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from common.errors import ConfigError
from common.table import IntArray, RowDomain
from common.units import Interaction, Record, Units


def required(domain: RowDomain | None) -> RowDomain:
    """``domain``, which these families cannot do without."""
    if domain is None:
        raise ConfigError("a family of users and items needs a row domain of items", remedy="Set [vocabulary].")
    return domain


def encode_interactions(records: Iterable[Record], domain: RowDomain | None, *, max_items_per_user: int) -> Units:
    """Columns ``items`` and ``users`` of one client, grouped by unit, in order of first appearance.

    ``items`` are the distinct known rows of a user inside a unit, increasing; ``users`` numbers the client's users.
    Weights, repeats and order in time are not used.
    """
    row_of = required(domain).row_of
    numbers: dict[str, int] = {}
    found: dict[str, dict[str, set[str]]] = {}
    for record in records:
        value: Interaction = record.value
        numbers.setdefault(value.user, len(numbers))
        chosen = found.setdefault(record.unit, {})
        if value.item in row_of:
            chosen.setdefault(value.user, set()).add(value.item)
    items: list[int] = []
    owners: list[int] = []
    offsets = [0]
    for chosen in found.values():
        for user in sorted(chosen, key=numbers.__getitem__):
            kept = sorted(row_of[item] for item in _bounded(user, chosen[user], max_items_per_user))
            items.extend(kept)
            owners.extend([numbers[user]] * len(kept))
        offsets.append(len(items))
    columns = {"items": np.array(items, dtype=np.int64), "users": np.array(owners, dtype=np.int64)}
    return Units(np.array(offsets, dtype=np.int64), columns)


def _bounded(user: str, chosen: set[str], limit: int) -> Iterable[str]:
    """At most ``limit`` items: a pseudo-random choice that is the same on every call and needs no generator."""
    if len(chosen) <= limit:
        return chosen
    salt = hashlib.sha256(user.encode()).digest()
    return sorted(chosen, key=lambda item: hashlib.sha256(salt + item.encode()).digest())[:limit]


@dataclass(frozen=True)
class UserLists:
    """Distinct items of every (unit, user) pair.

    Attributes:
        offsets: shape (S + 1,); pair s owns ``items[offsets[s]:offsets[s + 1]]``, which increase strictly.
        items: row numbers, shape (R,).
        units: shape (S,), the unit of each pair, non-decreasing.
        owners: shape (R,), the pair of each item.
    """

    offsets: IntArray
    items: IntArray
    units: IntArray
    owners: IntArray


def user_lists(units: Units, rows: int) -> UserLists:
    """Regroup the elements of ``units`` by user inside a unit: merged units may hold one user in several places."""
    items, users = units.columns["items"], units.columns["users"]
    span = int(users.max()) + 1 if len(users) else 1
    unit = np.repeat(np.arange(units.count, dtype=np.int64), np.diff(units.offsets))
    keys = (unit * span + users) * rows + items
    if not np.all(keys[1:] > keys[:-1]):
        keys = np.unique(keys)
    pairs, owners, sizes = np.unique(keys // rows, return_inverse=True, return_counts=True)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return UserLists(offsets, keys % rows, pairs // span, owners.astype(np.int64))
