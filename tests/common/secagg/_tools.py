"""What the tests of secure aggregation share: randomness that can be repeated, and refusals by their code."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from common.errors import SecAggError


def stream(seed: str | int) -> Callable[[int], bytes]:
    """A source like ``os.urandom`` whose bytes follow from ``seed``: SHAKE-256 of seed and call number."""
    calls = 0

    def draw(size: int) -> bytes:
        nonlocal calls
        calls += 1
        return hashlib.shake_256(f"{seed}|{calls}".encode()).digest(size)

    return draw


@contextmanager
def refused(*codes: str) -> Iterator[None]:
    """The block must end in a ``SecAggError`` with one of these codes."""
    with pytest.raises(SecAggError) as caught:
        yield
    assert caught.value.code in codes, caught.value.message
