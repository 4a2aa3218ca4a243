"""Randomness that every party can reproduce. Never for privacy: noise and secret sampling use ``privacy.rng``."""

from __future__ import annotations

import hashlib

import numpy as np


def public_rng(*context: object) -> np.random.Generator:
    """A generator that every party can reproduce: for simulated faults and public choices, never for privacy."""
    text = "\x1f".join(str(part) for part in context)
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))
