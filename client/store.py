"""Encoded clients: made from records once, kept as plain arrays, reopened by every later process."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from common.config import Scenario
from common.errors import ConfigError, DataError
from common.files import atomic_files
from common.table import RowDomain
from common.units import ClientStore, Image, Interaction, Record, Units

_KINDS: Mapping[str, type] = {"text": str, "interactions": Interaction, "images": Image}


def encode_clients(
    clients: Iterable[tuple[str, Sequence[Record]]], family: Any, options: Any, *, domain: RowDomain | None
) -> ClientStore:
    """Encode every client's records with the family, one after the other.

    Raises:
        ConfigError: the records are not of a kind that the family takes.
        DataError: there is no client at all.
    """
    names: list[str] = []
    parts: list[Units] = []
    kinds = tuple(_KINDS[kind] for kind in family.records.split("|"))
    for name, records in clients:
        if records and not isinstance(records[0].value, kinds):
            taken = family.records.replace("|", " or ")
            raise ConfigError(
                f"family {family.name!r} takes {taken}, and these records are of another kind",
                remedy="Choose another [data] or another task.family; `fedembed list` names them.",
            )
        names.append(name)
        parts.append(family.encode(records, domain, options))
    if not parts:
        raise DataError("no records were read, so there is no client")
    offsets = np.concatenate([[0], np.cumsum([p.count for p in parts])]).astype(np.int64)
    sizes = np.concatenate([np.diff(p.offsets) for p in parts])
    columns = {n: np.concatenate([p.columns[n] for p in parts]) for n in parts[0].columns}
    units = Units(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), columns)
    return ClientStore(tuple(names), offsets, units)


class DataSource(Protocol):
    """Where a node's encoded data come from."""

    def store(self, scenario: Scenario, domain: RowDomain | None) -> ClientStore:
        """The clients that this node hosts, encoded for the scenario's family and the given rows."""

    def fingerprints(self, store: ClientStore) -> tuple[str, ...]:
        """The ledger's name for the data of each client of ``store``."""


def save_store(store: ClientStore, path: Path) -> None:
    """Write a store as one ``.npz`` without pickled objects, atomically.

    Raises:
        StorageError: the disk is full or not writable.
    """
    names = np.frombuffer(json.dumps(store.names).encode(), dtype=np.uint8)
    arrays: dict[str, Any] = {f"column/{n}": c for n, c in store.units.columns.items()}
    with atomic_files(path) as (partial,), partial.open("wb") as file:
        partial.chmod(0o600)
        np.savez(file, names=names, clients=store.offsets, units=store.units.offsets, **arrays)


def load_store(path: Path) -> ClientStore:
    """Inverse of ``save_store``. Raises ``DataError`` for a damaged or missing file."""
    try:
        with np.load(path, allow_pickle=False) as data:
            names = tuple(json.loads(data["names"].tobytes()))
            columns = {k.removeprefix("column/"): data[k] for k in data.files if k.startswith("column/")}
            return ClientStore(names, data["clients"], Units(data["units"], columns))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"cannot read the encoded clients in {path} ({type(error).__name__})",
            remedy="Remove this file: the next run makes it again from the records.",
        ) from None


def shard(store: ClientStore, index: int, count: int) -> ClientStore:
    """Clients ``index::count`` of a store: what simulated node ``index`` of ``count`` hosts."""
    chosen = np.arange(index, len(store), count)
    counts = np.diff(store.offsets)[chosen]
    starts = store.offsets[chosen]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    units = np.repeat(starts - offsets[:-1], counts) + np.arange(offsets[-1])
    return ClientStore(tuple(store.names[i] for i in chosen), offsets, store.units.take(units))


def by_client(records: Iterable[Record]) -> Mapping[str, list[Record]]:
    """Group records by their client, in order of first appearance."""
    grouped: dict[str, list[Record]] = {}
    for record in records:
        grouped.setdefault(record.client, []).append(record)
    return grouped
