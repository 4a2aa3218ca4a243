"""The row domain (public keys of a table) and the embedding table that evaluation and users see."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

HASHED = "hashed"


class HashedRows(Mapping[str, int]):
    """Row number of every possible key by hashing: SHA-256 of the key, modulo the number of rows.

    It contains every string; iterating gives the names of the buckets.
    """

    def __init__(self, buckets: tuple[str, ...]) -> None:
        self._buckets = buckets

    def __getitem__(self, key: str) -> int:
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % len(self._buckets)

    def __iter__(self) -> Iterator[str]:
        return iter(self._buckets)

    def __len__(self) -> int:
        return len(self._buckets)


@dataclass(frozen=True)
class RowDomain:
    """The V public keys of a table, in row order, with public frequencies where they are known.

    Attributes:
        keys: V distinct strings.
        frequencies: shape (V,), positive, any scale (counts or probabilities); ``None`` when unknown.
        source: where the keys come from (``public``, ``hashed``, ...): it is printed in the certificate.
    """

    keys: tuple[str, ...]
    frequencies: NDArray[np.float64] | None = None
    source: str = "public"

    def __post_init__(self) -> None:
        if not self.keys:
            raise ConfigError("a row domain needs at least one key")
        if len(set(self.keys)) != len(self.keys):
            raise ConfigError("a row domain has duplicate keys")
        if self.frequencies is not None:
            good = self.frequencies.shape == (len(self.keys),) and bool(np.all(np.isfinite(self.frequencies)))
            if not good or bool(np.any(self.frequencies <= 0)):
                raise ConfigError("frequencies must be one positive finite number a key")

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """Row number of each key; in a hashed domain, of every string."""
        if self.source == HASHED:
            return HashedRows(self.keys)
        return {key: row for row, key in enumerate(self.keys)}

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Public frequencies scaled to sum to one; uniform when none are known. Shape (V,)."""
        if self.frequencies is None:
            return np.full(len(self.keys), 1.0 / len(self.keys))
        return self.frequencies / self.frequencies.sum()

    @cached_property
    def digest(self) -> str:
        """SHA-256 over keys and frequencies: two parties with one digest have the same rows."""
        h = hashlib.sha256("\n".join(k.replace("\\", "\\\\").replace("\n", "\\n") for k in self.keys).encode())
        if self.frequencies is not None:
            h.update(self.frequencies.astype("<f8").tobytes())
        return h.hexdigest()


@dataclass(frozen=True)
class EmbeddingTable:
    """A released table: ``vectors[i]`` belongs to ``keys[i]``.

    Attributes:
        keys: V distinct strings.
        vectors: shape (V, D), float32, finite.
    """

    keys: tuple[str, ...]
    vectors: FloatArray

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.vectors.shape[0] != len(self.keys):
            raise ConfigError(f"{len(self.keys)} keys do not fit vectors of shape {self.vectors.shape}")

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def dimensions(self) -> int:
        """D, the number of columns."""
        return int(self.vectors.shape[1])

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """Row number of each key."""
        return {key: row for row, key in enumerate(self.keys)}

    @cached_property
    def unit_vectors(self) -> FloatArray:
        """Rows scaled to length 1; all-zero rows stay zero. Shape (V, D)."""
        norms = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        return (self.vectors / np.where(norms > 0, norms, 1.0)).astype(np.float32)

    def neighbors(self, key: str, k: int = 10) -> list[tuple[str, float]]:
        """The ``k`` keys with the highest cosine similarity to ``key``, best first.

        Raises:
            KeyError: ``key`` is not in the table.
        """
        row = self.row_of[key]
        scores = self.unit_vectors @ self.unit_vectors[row]
        scores[row] = -np.inf
        k = min(k, len(self.keys) - 1)
        best = np.argpartition(-scores, k - 1)[:k] if k > 0 else np.empty(0, dtype=np.int64)
        order = best[np.argsort(-scores[best], kind="stable")]
        return [(self.keys[i], float(scores[i])) for i in order]

    def rows(self, keys: Sequence[str]) -> FloatArray:
        """Vectors of ``keys``, shape (len(keys), D). Raises ``KeyError`` for an unknown key."""
        return self.vectors[[self.row_of[key] for key in keys]]
