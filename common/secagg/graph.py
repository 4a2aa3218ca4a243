"""Who masks with whom: a random k-regular graph that every client computes for itself.

Construction, events and bounds: Bell, Bonawitz, Gascon, Lepoint and Raykova, "Secure Single-Server Aggregation with
(Poly)Logarithmic Overhead", CCS 2020, section 3: a Harary graph (each node joined to its k/2 nearest on either side of
a ring) over a random order. ``degree`` computes the probabilities of their three events exactly where they bound them.
The bounds hold for colluders and dropouts that are fixed before the graph is: whoever can choose what the seed is
hashed from after seeing all else may try many graphs, and 2^g tries cost g bits of the failure probability.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from common.errors import SecAggError
from common.secagg.encoding import pack
from common.secagg.keys import KEY_BYTES, PROTOCOL

COMPLETE_UP_TO = 32
_BATCH_WORDS = 512


def degree(
    cohort: int, *, colluding: float, dropping: float, failure: float = 2**-40, signed: bool = False
) -> tuple[int, int]:
    """Neighbours ``k`` of each client and how many of them open its secrets, ``t``.

    Complete for a cohort of up to 32, and where nothing smaller will do; else the smallest even ``k``, with its
    smallest ``t``, so that with probability at least 1 - ``failure`` all of these hold (union over all clients):

    - colluders cannot open a secret alone: fewer than t in every neighbourhood; with ``signed``, where a coordinator
      may also tell clients different things, fewer than 2t - k, so that it cannot get both secrets of one client;
    - the honest survivors are connected, so that nothing but their whole sum opens;
    - at least t of every neighbourhood survive, so that the round ends.

    Besides, t > k/2 (with ``signed``: t > 2k/3).

    Args:
        cohort: clients that share secrets, at least 2.
        colluding: largest fraction of them that collude with the coordinator, in [0, 1).
        dropping: largest fraction of them that drop out after sharing, in [0, 1).
        failure: probability, in (0, 1), that a graph lacks one of the properties.
        signed: the coordinator may be malicious; clients check each other's signatures.

    Raises:
        SecAggError: ``bad_terms``: an argument is out of range; ``no_threshold``: even the complete graph has no t.
    """
    if cohort < 2 or not 0 <= colluding < 1 or not 0 <= dropping < 1 or not 0 < failure < 1:
        raise SecAggError("bad_terms", "a graph needs two clients, fractions in [0, 1) and a probability in (0, 1)")
    colluders, dropped = _count(colluding, cohort), _count(dropping, cohort)
    if cohort > COMPLETE_UP_TO:
        odds = _Odds(cohort, colluders, dropped)
        for k in range(2, cohort - 1, 2):
            if (t := odds.least_threshold(k, failure, signed=signed)) is not None:
                return k, t
    return _complete(cohort - 1, colluders, dropped, signed=signed)


def withstands(cohort: int, k: int, t: int, *, colluding: float, failure: float = 2**-40, signed: bool = False) -> bool:
    """Whether ``k`` neighbours of which ``t`` open a secret keep colluders from it, by the rules of ``degree``.

    What a client asks of a graph that it was given: that the round ends is the coordinator's concern.
    """
    colluders = _count(colluding, cohort)
    if not _least(k, signed=signed) <= t <= k < cohort:
        return False
    if k == cohort - 1:
        return min(colluders, k) <= _most_colluders(k, t, signed=signed)
    odds = _Odds(cohort, colluders, 0)
    held = odds.at_least(k, colluders)[_most_colluders(k, t, signed=signed) + 1]
    return bool(cohort * held + odds.disconnected(k) <= failure)


def _count(fraction: float, cohort: int) -> int:
    """Clients in a fraction, rounded up except for a float's last digits (0.1 of 30 is 3)."""
    return min(cohort - 1, math.ceil(fraction * cohort - 1e-9))


def _least(k: int, *, signed: bool) -> int:
    return 2 * k // 3 + 1 if signed else k // 2 + 1


def _most_colluders(k: int, t: int, *, signed: bool) -> int:
    """Colluders that a neighbourhood can hold without harm."""
    return 2 * t - k - 1 if signed else t - 1


def _complete(k: int, colluders: int, dropped: int, *, signed: bool) -> tuple[int, int]:
    """Everybody knows everybody: nothing is left to chance."""
    for t in range(_least(k, signed=signed), k - min(dropped, k) + 1):
        if min(colluders, k) <= _most_colluders(k, t, signed=signed):
            return k, t
    raise SecAggError(
        "no_threshold",
        f"no threshold of {k} neighbours stands against {colluders} colluders and {dropped} dropouts",
        remedy="Lower the tolerated dropout or collusion, or raise the cohort.",
    )


class _Odds:
    """The probabilities that a random graph on one cohort lacks a property (natural logarithms inside)."""

    def __init__(self, cohort: int, colluders: int, dropped: int) -> None:
        from scipy.special import gammaln

        self._log_factorial: NDArray[np.float64] = gammaln(np.arange(cohort + 1) + 1.0)
        self._cohort, self._colluders, self._dropped = cohort, colluders, dropped

    def least_threshold(self, k: int, failure: float, *, signed: bool) -> int | None:
        """The smallest ``t`` for ``k`` neighbours, or None."""
        thresholds = np.arange(_least(k, signed=signed), k + 1)
        split = self.disconnected(k)
        if split > failure:
            return None
        too_many = self.at_least(k, self._colluders)[_most_colluders_of(k, thresholds, signed=signed) + 1]
        too_few = self.at_least(k, self._dropped)[k - thresholds + 1]  # t survive unless k - t + 1 drop
        good = self._cohort * (too_many + too_few) + split <= failure
        return int(thresholds[good.argmax()]) if good.any() else None

    def at_least(self, k: int, marked: int) -> NDArray[np.float64]:
        """P[a neighbourhood holds >= j of the ``marked``], j = 0 .. k + 1: the hypergeometric tail.

        A client's neighbours are k of the other ``cohort - 1``, each set equally likely. That the client itself is not
        among the marked is the worse case.
        """
        others = self._cohort - 1
        j = np.arange(max(0, k - (others - marked)), min(k, marked) + 1)
        log_p = self._log_choose(marked, j) + self._log_choose(others - marked, k - j) - self._log_choose(others, k)
        tail = np.zeros(k + 2)
        tail[j] = np.minimum(1.0, np.cumsum(np.exp(log_p)[::-1])[::-1])
        tail[: j[0]] = 1.0
        return tail

    def disconnected(self, k: int) -> float:
        """A bound on P[removing colluders and dropouts cuts the ring's graph in two].

        A cut takes k/2 removed clients in a row; such a run has ``cohort`` places to begin (Bell et al., section 3).
        """
        run, removed = k // 2, min(self._cohort, self._colluders + self._dropped)
        if run > removed:
            return 0.0
        log_p = self._log_choose(self._cohort - run, removed - run) - self._log_choose(self._cohort, removed)
        return min(1.0, self._cohort * math.exp(float(log_p)))

    def _log_choose(self, n: int, r: NDArray[np.int64] | int) -> NDArray[np.float64]:
        f = self._log_factorial
        return np.asarray(f[n] - f[r] - f[n - np.asarray(r)])


def _most_colluders_of(k: int, thresholds: NDArray[np.int64], *, signed: bool) -> NDArray[np.int64]:
    return np.array([_most_colluders(k, int(t), signed=signed) for t in thresholds])


class Graph:
    """The graph of one cohort; everybody who has the same identifiers, ``k`` and seed has the same one."""

    def __init__(self, ids: Sequence[str], k: int, seed: bytes) -> None:
        """``ids`` in any order; ``k`` even and below their number, or one less than it (complete); 32 bytes of seed.

        Raises:
            SecAggError: ``bad_graph``: no such graph; ``duplicate_id``; ``bad_key``: a seed of another length.
        """
        if len(set(ids)) != len(ids):
            raise SecAggError("duplicate_id", "an identifier comes twice")
        if len(seed) != KEY_BYTES:
            raise SecAggError("bad_key", f"a graph's seed has {len(seed)} bytes instead of {KEY_BYTES}")
        if not 1 <= k < len(ids) or (k % 2 and k != len(ids) - 1):
            raise SecAggError("bad_graph", f"no graph joins each of {len(ids)} clients to {k} others")
        self.k = k
        self._ring = _shuffled(sorted(ids), seed)
        self._position = {name: i for i, name in enumerate(self._ring)}

    def of(self, name: str) -> tuple[str, ...]:
        """The neighbours of a client, sorted.

        Raises:
            SecAggError: ``foreign_id``: not in this cohort.
        """
        if name not in self._position:
            raise SecAggError("foreign_id", "an identifier is not in the cohort")
        n, at = len(self._ring), self._position[name]
        if self.k == n - 1:
            return tuple(sorted(other for other in self._ring if other != name))
        near = (at + step * side for step in range(1, self.k // 2 + 1) for side in (1, -1))
        return tuple(sorted(self._ring[i % n] for i in near))


def neighbours(ids: Sequence[str], k: int, seed: bytes) -> dict[str, tuple[str, ...]]:
    """The neighbours of every client, both in sorted order; raises as ``Graph``."""
    graph = Graph(ids, k, seed)
    return {name: graph.of(name) for name in sorted(ids)}


def _shuffled(names: list[str], seed: bytes) -> list[str]:
    """A uniform order: Fisher and Yates with draws by rejection, from AES-256-CTR under a key made from ``seed``."""
    words = _words(hashlib.sha256(pack(b"graph", PROTOCOL, seed)).digest())
    for last in range(len(names) - 1, 0, -1):
        limit = 2**64 - 2**64 % (last + 1)
        word = next(word for word in words if word < limit)
        other = word % (last + 1)
        names[last], names[other] = names[other], names[last]
    return names


def _words(key: bytes) -> Iterator[int]:
    stream = Cipher(AES256(key), CTR(bytes(16))).encryptor()
    while True:
        yield from np.frombuffer(stream.update(bytes(8 * _BATCH_WORDS)), dtype="<u8").tolist()
