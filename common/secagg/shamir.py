"""Shamir's secret sharing (Communications of the ACM 22, 1979) of 32-byte secrets over the field of 2^256 + 297.

That prime is the first above 2^256, so that every 32-byte string is an element. Fewer than ``threshold`` shares are
independent of the secret, exactly: the coefficients are uniform over the whole field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from common.errors import SecAggError
from common.secagg._horner import PRIME, values
from common.secagg.keys import Entropy, drawn

SECRET_BYTES = 32
SHARE_BYTES = 33
_DRAW_BITS = 257
_MANY = 160  # shares, over all secrets, from which numpy is quicker than Python's integers


def split(secret: bytes, xs: Sequence[int], threshold: int, entropy: Entropy) -> list[bytes]:
    """One share of 33 bytes for every place in ``xs``; any ``threshold`` of them give the secret back.

    Raises:
        SecAggError: ``bad_secret``: not 32 bytes; ``bad_place``: a place is repeated or not in [1, 2^32);
            ``bad_threshold``: not in [1, number of places].
    """
    return split_many([secret], xs, threshold, entropy)[0]


def split_many(secrets: Sequence[bytes], xs: Sequence[int], threshold: int, entropy: Entropy) -> list[list[bytes]]:
    """``split`` for several secrets among the same places, each with randomness of its own; cheaper than one by one."""
    if any(len(secret) != SECRET_BYTES for secret in secrets):
        raise SecAggError("bad_secret", f"a shared secret has another length than {SECRET_BYTES} bytes")
    _check_places(xs)
    if not 1 <= threshold <= len(xs):
        raise SecAggError("bad_threshold", f"{threshold} of {len(xs)} shares cannot be required")
    polynomials = [[*_uniform(threshold - 1, entropy), int.from_bytes(secret, "big")] for secret in secrets]
    found = (values if len(xs) * len(secrets) >= _MANY else _values)(polynomials, xs)
    return [[y.to_bytes(SHARE_BYTES, "big") for y in row] for row in found]


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret from the ``threshold`` shares at the lowest places; further shares are not looked at.

    Raises:
        SecAggError: ``too_few_shares``; ``bad_place``; ``bad_share``: see ``Recombiner``.
    """
    if threshold < 1 or len(shares) < threshold:
        raise SecAggError("too_few_shares", f"{len(shares)} shares where {threshold} are required")
    places = sorted(shares)[:threshold]
    return Recombiner(places).combine([shares[x] for x in places])


class Recombiner:
    """Lagrange's coefficients at zero for one set of places, computed once for all secrets shared among them."""

    def __init__(self, xs: Sequence[int]) -> None:
        """``xs``: as many places as the threshold.

        Raises:
            SecAggError: ``bad_place``: a place is repeated or not in [1, 2^32), or there is none.
        """
        _check_places(xs)
        self.places = tuple(xs)
        self._weights = _weights(xs)

    def combine(self, shares: Sequence[bytes]) -> bytes:
        """The secret whose shares, in the order of ``places``, these are.

        Raises:
            SecAggError: ``wrong_length``: another number of shares; ``bad_share``: a share is no element of the
                field, or together they are not the shares of a 32-byte secret.
        """
        if len(shares) != len(self.places):
            raise SecAggError("wrong_length", f"{len(shares)} shares for {len(self.places)} places")
        secret = sum(w * _element(share) for w, share in zip(self._weights, shares, strict=True)) % PRIME
        if secret >> 8 * SECRET_BYTES:
            raise SecAggError("bad_share", "the shares do not belong to one secret")
        return secret.to_bytes(SECRET_BYTES, "big")


def check_share(share: bytes) -> None:
    """Refuse what cannot be a share.

    Raises:
        SecAggError: ``bad_share``: not 33 bytes, or not an element of the field.
    """
    if len(share) != SHARE_BYTES or share[0]:  # below 2^256 every number is an element
        _element(share)


def _element(share: bytes) -> int:
    value = int.from_bytes(share, "big")
    if len(share) != SHARE_BYTES or value >= PRIME:
        raise SecAggError("bad_share", "a share is not an element of the field")
    return value


def _check_places(xs: Sequence[int]) -> None:
    if not xs or len(set(xs)) != len(xs) or not all(1 <= x < 2**32 for x in xs):
        raise SecAggError("bad_place", "places of shares must be different numbers from 1 to 2^32 - 1")


def _uniform(count: int, entropy: Entropy) -> list[int]:
    """Uniform elements of the field: 257 random bits, drawn again where they are not below the prime."""
    found: list[int] = []
    while len(found) < count:
        # A draw succeeds with probability one half; a few more than twice as many seldom need a second batch.
        batch = drawn(entropy, SHARE_BYTES * (2 * (count - len(found)) + 16))
        for start in range(0, len(batch), SHARE_BYTES):
            value = int.from_bytes(batch[start : start + SHARE_BYTES], "big") >> (8 * SHARE_BYTES - _DRAW_BITS)
            if value < PRIME:
                found.append(value)
    return found[:count]


def _values(polynomials: Sequence[Sequence[int]], xs: Sequence[int]) -> list[list[int]]:
    """Every polynomial at every place, by Horner's rule in Python's integers."""
    return [[_value(polynomial, x) for x in xs] for polynomial in polynomials]


def _value(coefficients: Sequence[int], x: int) -> int:
    """One polynomial, highest power first, at ``x``."""
    total = 0
    for coefficient in coefficients:
        total = (total * x + coefficient) % PRIME
    return total


def _weights(xs: Sequence[int]) -> list[int]:
    """prod over j != i of x_j / (x_j - x_i), for every i, with one division for all of them."""
    product = math.prod(xs) % PRIME
    return [product * inverse % PRIME for inverse in _inverses(_divisors(xs))]


def _divisors(xs: Sequence[int]) -> list[int]:
    """x_i times the product over j != i of x_j - x_i; as many factors as fit are multiplied in 64-bit words."""
    places = np.array(xs, dtype=np.int64)
    factors = places[None, :] - places[:, None]
    np.fill_diagonal(factors, places)
    width = 62 // max(xs).bit_length()
    padding = np.ones((len(xs), -len(xs) % width), dtype=np.int64)
    words = np.concatenate([factors, padding], axis=1).reshape(len(xs), -1, width).prod(axis=2)
    return [math.prod(row) % PRIME for row in words.tolist()]


def _inverses(values: Sequence[int]) -> list[int]:
    """All inverses from one (Montgomery 1987, section 10.3.1)."""
    before = [1]
    for value in values:
        before.append(before[-1] * value % PRIME)
    rest = pow(before[-1], -1, PRIME)
    inverses = []
    for i in reversed(range(len(values))):
        inverses.append(rest * before[i] % PRIME)
        rest = rest * values[i] % PRIME
    return inverses[::-1]
