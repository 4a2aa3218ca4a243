"""What an adversary has seen of a run, and, kept apart from it, what an attack's guesses are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.privacy.private_sum import Released
from common.table import EmbeddingTable, FloatArray, IntArray
from common.units import Units
from common.update import UpdateBatch


@dataclass(frozen=True)
class RoundView:
    """One round as an adversary saw it.

    Attributes:
        participants: numbers of the clients that it knows to have taken part.
        updates: contribution k is what client ``participants[k]`` sent; ``None`` where single updates are hidden.
        total: the sum over the participants as it left the round; ``None`` where that is hidden.
        rehearsed: what the adversary computed itself from the round's public parameters: contribution c is what
            client c would send if its data were those of ``Truth.held_rows[c]``; ``None`` where it did not.
    """

    participants: IntArray
    updates: UpdateBatch | None = None
    total: Released | None = None
    rehearsed: UpdateBatch | None = None


@dataclass(frozen=True)
class Reference:
    """A table that the adversary trained itself, on data of its own choice.

    Attributes:
        table: as a release would hold it.
        member: shape (N,), whether candidate n of ``Truth.candidates`` was among its training units.
    """

    table: EmbeddingTable
    member: NDArray[np.bool_]


@dataclass(frozen=True)
class View:
    """What an adversary knows.

    Attributes:
        clients: number of enrolled clients; it is public.
        prior: shape (V,), public popularity of the rows, any scale.
        rounds: what it saw of each round; empty where it saw nothing.
        table: the released table; ``None`` before there is one.
        start: the public table before training, shape (V, D).
        references: tables that it trained itself.
        row_table: name of the table in updates and sums whose rows ``prior`` describes; empty: the one with the fewest
            entries, because further tables hold decoys (negatives).
        expected_rows: public guess of how many rows a client holds; ``None``: the perplexity of ``prior``.
    """

    clients: int
    prior: NDArray[np.float64]
    rounds: tuple[RoundView, ...] = ()
    table: EmbeddingTable | None = None
    start: FloatArray | None = None
    references: tuple[Reference, ...] = ()
    row_table: str = ""
    expected_rows: float | None = None


@dataclass(frozen=True)
class Candidates:
    """Units of which the adversary holds a copy and wants to know whether they were trained on.

    Attributes:
        rows: the rows that each unit holds; unit n owns ``rows.columns["rows"][offsets[n]:offsets[n + 1]]``.
    """

    rows: Units

    @property
    def count(self) -> int:
        """How many candidates there are."""
        return self.rows.count


@dataclass(frozen=True)
class Interactions:
    """Users of whom the adversary knows some rows, and asks whether one row more was theirs in the training data.

    Attributes:
        known: the rows that are known of user m: ``known.columns["rows"][offsets[m]:offsets[m + 1]]``.
        rows: shape (M,), the row that is asked for.
    """

    known: Units
    rows: IntArray

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Question:
    """What an attack is asked, without the answers: all of the truth that guessing may see.

    Attributes:
        candidates: units whose membership is asked for.
        pairs: shape (P, 2), pairs of rows whose relation is asked for.
        interactions: users, and a row of which it is asked whether it was theirs.
    """

    candidates: Candidates | None = None
    pairs: IntArray | None = None
    interactions: Interactions | None = None


@dataclass(frozen=True)
class Truth:
    """What guesses are compared with; an attack's guessing part never sees it, except for ``candidates``' content.

    Attributes:
        held_rows: the rows that each client's data hold, ascending.
        candidates: units whose membership is asked for, and
        member: shape (N,), the answer.
        pairs: shape (P, 2), two rows each, whose relation is asked for (an edge, an interaction), and
        linked: shape (P,), the answer.
        interactions: users, and a row of which it is asked whether it was theirs, and
        interacted: shape (M,), the answer.
        labels: row -> attribute of what the row stands for.
    """

    held_rows: tuple[IntArray, ...] = ()
    candidates: Candidates | None = None
    member: NDArray[np.bool_] | None = None
    pairs: IntArray | None = None
    linked: NDArray[np.bool_] | None = None
    interactions: Interactions | None = None
    interacted: NDArray[np.bool_] | None = None
    labels: Mapping[int, int] = field(default_factory=dict)

    @property
    def question(self) -> Question:
        """What is asked, without the answers."""
        return Question(self.candidates, self.pairs, self.interactions)
