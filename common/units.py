"""Records as read, and a client's encoded data grouped by privacy unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from common.table import IntArray


@dataclass(frozen=True)
class Record:
    """One piece of data as a reader yields it.

    Attributes:
        client: key of the client that owns it.
        unit: key of its privacy unit inside the client; records with one key are hidden together.
        value: what the family understands: ``str`` (text), ``Interaction``, ``Image``.
    """

    client: str
    unit: str
    value: Any


@dataclass(frozen=True)
class Interaction:
    """A user did something with an item; ``weight`` is finite and positive."""

    user: str
    item: str
    weight: float = 1.0
    timestamp: float = 0.0


@dataclass(frozen=True)
class Image:
    """``pixels`` of shape (H, W), uint8; ``label`` is ``-1`` when unknown."""

    pixels: NDArray[np.uint8]
    label: int = -1


@dataclass(frozen=True)
class Units:
    """Encoded data of one client (or of many, one after the other), grouped by privacy unit.

    Attributes:
        offsets: shape (n_units + 1,), int64; unit u owns elements ``offsets[u]:offsets[u + 1]``.
        columns: name -> array whose first axis has length ``offsets[-1] - offsets[0]`` counted from element 0.
    """

    offsets: IntArray
    columns: Mapping[str, NDArray[Any]]

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            if len(column) != self.offsets[-1]:
                raise DataError(f"column {name!r} has {len(column)} elements, the units have {self.offsets[-1]}")

    @property
    def count(self) -> int:
        """Number of privacy units."""
        return len(self.offsets) - 1

    def slice(self, start: int, stop: int) -> Units:
        """Units ``start:stop`` as views."""
        lo, hi = int(self.offsets[start]), int(self.offsets[stop])
        return Units(self.offsets[start : stop + 1] - lo, {n: c[lo:hi] for n, c in self.columns.items()})

    def take(self, chosen: IntArray) -> Units:
        """The units with the given indices, copied, in that order."""
        lengths = np.diff(self.offsets)[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        index = np.repeat(self.offsets[chosen] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Units(offsets, {n: c[index] for n, c in self.columns.items()})

    def as_one(self) -> Units:
        """All elements as a single unit: the whole client is what is hidden."""
        return Units(np.array([0, self.offsets[-1]], dtype=np.int64), self.columns)


def joined(parts: Sequence[Units]) -> Units:
    """The units of several clients (at least one), one after the other."""
    if len(parts) == 1:
        return parts[0]
    sizes = np.concatenate([np.diff(p.offsets) for p in parts])
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Units(offsets, {n: np.concatenate([p.columns[n] for p in parts]) for n in parts[0].columns})


@dataclass(frozen=True)
class ClientStore:
    """Encoded data of many clients in one set of arrays; a client is a view, so 100,000 of them cost little.

    Attributes:
        names: one key a client.
        offsets: shape (n_clients + 1,), int64, into the units of ``units``.
    """

    names: tuple[str, ...]
    offsets: IntArray
    units: Units

    def __len__(self) -> int:
        return len(self.names)

    def client(self, index: int) -> Units:
        """Units of client ``index`` as views."""
        return self.units.slice(int(self.offsets[index]), int(self.offsets[index + 1]))
