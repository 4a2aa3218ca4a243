"""Made-up records of every kind that a family takes, for trials that must not touch anybody's data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.errors import ConfigError
from common.units import Image, Interaction, Record

CLIENTS, UNITS_PER_CLIENT = 4, 12
_WORDS, _SIDE, _CLASSES = 10, 28, 4


def trial_records(kind: str, keys: Sequence[str], seed: int = 0) -> list[Record]:
    """Twelve units of each of four clients: texts or interactions over ``keys``, or noise images.

    Raises:
        ConfigError: a kind of record that nobody made up yet.
    """
    rng = np.random.default_rng(seed)
    return [
        record
        for client in range(CLIENTS)
        for unit in range(UNITS_PER_CLIENT)
        for record in _unit(kind, keys, f"client-{client}", f"unit-{unit}", rng)
    ]


def _unit(kind: str, keys: Sequence[str], client: str, unit: str, rng: np.random.Generator) -> list[Record]:
    if kind == "images":
        pixels = rng.integers(0, 256, (_SIDE, _SIDE), dtype=np.uint8)
        return [Record(client, unit, Image(pixels, int(rng.integers(_CLASSES))))]
    chosen = [keys[i] for i in rng.integers(0, len(keys), _WORDS)]
    if kind == "text":
        return [Record(client, unit, " ".join(chosen))]
    if kind == "interactions":
        user = f"{client}/{unit}"
        return [Record(client, unit, Interaction(user, key, timestamp=float(n))) for n, key in enumerate(chosen)]
    raise ConfigError(f"no trial records of the kind {kind!r} are made")
