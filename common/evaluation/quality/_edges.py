"""Edges of an undirected graph over the rows of a table: held out, seen in training, and pairs that are none."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import EvaluationError
from common.evaluation.quality._fields import records, refuse
from common.evaluation.quality._ranking import Lists, lists_of
from common.table import EmbeddingTable, IntArray

FORM = "key<TAB>key[<TAB>test|train|negative]"
ROLES = ("test", "train", "negative")
TEST, TRAIN, NEGATIVE = range(3)
_LISTED_PAIRS = 1 << 22  # up to so many pairs of rows are listed to find those that are no edge


@dataclass(frozen=True)
class Edges:
    """Pairs of rows, first row below second; a pair is named once.

    Attributes:
        rows: V, rows of the table.
        test: held-out edges, shape (P, 2).
        train: edges that training saw, shape (T, 2).
        negative: pairs given as no edges, shape (N, 2).
        asked: held-out edges in the file, also those whose keys the table lacks.
    """

    rows: int
    test: IntArray
    train: IntArray
    negative: IntArray
    asked: int

    @property
    def degrees(self) -> IntArray:
        """Training edges of each row, shape (V,)."""
        return np.bincount(self.train.reshape(-1), minlength=self.rows)

    def neighbours(self, edges: IntArray) -> Lists:
        """The rows joined to each row by these edges."""
        both = np.concatenate([edges, edges[:, ::-1]])
        return lists_of(both[:, 0], both[:, 1], self.rows)


def read_edges(path: Path | None, table: EmbeddingTable) -> Edges:
    """Read lines ``key<TAB>key`` (a held-out edge) with an optional third field: ``test``, ``train`` or ``negative``.

    Raises:
        EvaluationError: unreadable, a malformed line, a key joined to itself, a pair twice (also in two roles or in
            both orders), or no held-out edge with both keys in the table.
    """
    codes, roles, lines = array("q"), array("b"), array("q")
    asked, row_of, rows = 0, table.row_of, len(table)
    for number, fields in records(path, "link_prediction", FORM, most=3):
        role = fields[2] if len(fields) == 3 else ROLES[TEST]
        if role not in ROLES:
            refuse(path, number, f"expected {FORM}")
        if fields[0] == fields[1]:
            refuse(path, number, "a key joined to itself")
        asked += role == ROLES[TEST]
        a, b = row_of.get(fields[0], -1), row_of.get(fields[1], -1)
        if min(a, b) >= 0:
            codes.append(min(a, b) * rows + max(a, b))
            roles.append(ROLES.index(role))
            lines.append(number)
    code, kind = np.array(codes, dtype=np.int64), np.array(roles, dtype=np.int64)
    order = np.argsort(code, kind="stable")
    twice = np.flatnonzero(np.diff(code[order]) == 0)
    if len(twice):
        refuse(path, int(np.array(lines)[order[twice + 1]].min()), "a pair occurs twice")
    pairs = np.stack([code // rows, code % rows], axis=1) if rows else np.empty((0, 2), dtype=np.int64)
    edges = Edges(rows, pairs[kind == TEST], pairs[kind == TRAIN], pairs[kind == NEGATIVE], asked=asked)
    if not len(edges.test):
        raise EvaluationError(f"the table holds both keys of none of {asked} held-out edges")
    return edges


def with_negatives(edges: Edges, seed: int) -> Edges:
    """The same edges with as many negatives as held-out edges, unless the file gave some.

    They are drawn without replacement from the pairs of distinct rows that are neither held out nor seen in training.

    Raises:
        EvaluationError: fewer such pairs than held-out edges.
    """
    if len(edges.negative):
        return edges
    needed, rows = len(edges.test), edges.rows
    known = np.sort(np.concatenate([edges.test, edges.train]) @ np.array([rows, 1]))
    free = rows * (rows - 1) // 2 - len(known)
    if free < needed:
        raise EvaluationError(
            f"{free} pairs of keys are no known edge, and {needed} negatives are needed",
            remedy="Give pairs that are no edge in the file, as lines key<TAB>key<TAB>negative.",
        )
    rng = np.random.default_rng(seed)
    codes = _listed(known, needed, rows, rng) if rows * rows <= _LISTED_PAIRS else _drawn(known, needed, rows, rng)
    negative = np.stack([codes // rows, codes % rows], axis=1)
    return Edges(rows, edges.test, edges.train, negative, asked=edges.asked)


def _listed(known: IntArray, needed: int, rows: int, rng: np.random.Generator) -> IntArray:
    first, second = np.triu_indices(rows, k=1)
    return rng.choice(np.setdiff1d(first * rows + second, known, assume_unique=True), needed, replace=False)


def _drawn(known: IntArray, needed: int, rows: int, rng: np.random.Generator) -> IntArray:
    """By rejection: of more than a million pairs nearly all are free in a graph that fits a file."""
    found = np.empty(0, dtype=np.int64)
    while len(found) < needed:
        pair = rng.integers(0, rows, (2 * needed, 2))
        codes = pair.min(axis=1) * rows + pair.max(axis=1)
        codes = codes[(pair[:, 0] != pair[:, 1]) & ~np.isin(codes, known)]
        both = np.concatenate([found, codes])
        found = both[np.sort(np.unique(both, return_index=True)[1])]
    return found[:needed]
