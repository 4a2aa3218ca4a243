"""A seed lent to the global generators that other people's code draws its noise from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def lent(seed: int) -> Iterator[None]:
    """Python's, numpy's and torch's (CPU) global generators start from ``seed``; afterwards they are as before."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.setstate(random.Random(seed).getstate())
    np.random.set_state(np.random.RandomState(seed % 2**32).get_state())
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
