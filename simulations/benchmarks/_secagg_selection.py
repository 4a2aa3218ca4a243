"""Selected rows in two phases, votes and then values: what a client sends, and how much of an update is covered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.secagg.packing import packed
from common.secagg.terms import PhaseTerms
from simulations.benchmarks._harness import Row, at_least, reported
from simulations.benchmarks._secagg_round import UP, Setting, run

VOTE_BITS, VALUE_BITS = 10, 16
ROWS_A_CLIENT = 100  # votes of a client, of weight 1: the histogram's L2 sensitivity is their square root
DRAWS = 5 * ROWS_A_CLIENT  # rows that a client's data touch, with repetitions
NOISE_MULTIPLIER, THRESHOLD = 1.0, 4.0  # of the votes; in standard deviations of their noise
BLOCK = 500


@dataclass(frozen=True)
class Table:
    """V rows, D columns, of which so many rows are selected; a cohort and its graph."""

    rows: int
    columns: int
    selected: int
    clients: int
    degree: int
    threshold: int


def upload_rows(table: Table, bar: float) -> list[Row]:
    """A real round in two phases beside one dense vector of 16 bits; the values padded to a power of two."""
    padded = 1 << (table.selected * table.columns - 1).bit_length()
    phases = (PhaseTerms("votes", VOTE_BITS, table.rows), PhaseTerms("values", VALUE_BITS, padded))
    setting = Setting(table.clients, table.degree, table.threshold, phases, least=table.clients * 2 // 3)
    found = run(setting)
    if found.wrong:
        raise ArithmeticError("a sum of the two phases is not that of the clients' vectors")
    dense = len(packed(np.zeros(table.rows * table.columns, dtype="<u2"), VALUE_BITS))
    name = f"V={table.rows:,} D={table.columns} |S|={table.selected:,}, {table.clients} clients"
    return [
        reported(f"{name}: bytes a client sends, votes at {VOTE_BITS} bits", found.bytes_of(UP, "masked")),
        reported(f"{name}: bytes a client sends, values at 16 bits", found.bytes_of(UP, "masked, phase 2")),
        reported(f"{name}: bytes a client sends, all hops of both phases", found.bytes_of(UP)),
        reported(f"{name}: bytes of a dense vector at 16 bits", dense),
        at_least(f"{name}: dense / both phases", dense / found.bytes_of(UP), bar),
    ]


def coverage_rows(rows: int, cohorts: tuple[int, ...]) -> list[Row]:
    """Share of all votes (each a row of a client's update) that lies in the selected rows."""
    listed = []
    for clients in cohorts:
        selected, touched, covered = covered_mass(rows, clients, np.random.default_rng(clients))
        name = f"{clients:,} clients, V={rows:,}, Zipf(1), {ROWS_A_CLIENT} rows a client"
        listed += [
            reported(f"{name}: rows selected at {THRESHOLD:g} sigma", selected),
            reported(f"{name}: of these touched by a client", touched),
            reported(f"{name}: update mass covered, %", 100 * covered),
        ]
    return listed


def covered_mass(rows: int, clients: int, generator: np.random.Generator) -> tuple[int, int, float]:
    """Rows selected from noised votes, how many of them got a vote, and their share of all votes."""
    votes = zipf_votes(rows, clients, generator)
    sigma = NOISE_MULTIPLIER * np.sqrt(ROWS_A_CLIENT)
    selected = votes + generator.normal(0, sigma, rows) > THRESHOLD * sigma
    return int(selected.sum()), int((selected & (votes > 0)).sum()), float(votes[selected].sum() / votes.sum())


def zipf_votes(rows: int, clients: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Votes of each row: a client draws by Zipf's law and votes for some of its different rows, chosen at random."""
    cumulative = np.cumsum(1 / np.arange(1, rows + 1))
    cumulative /= cumulative[-1]
    votes = np.zeros(rows, dtype=np.int64)
    for start in range(0, clients, BLOCK):
        block = min(BLOCK, clients - start)
        drawn = np.searchsorted(cumulative, generator.random((block, DRAWS)))
        held = np.unique(np.arange(block)[:, None] * rows + drawn)
        owner = held // rows
        order = np.lexsort((generator.random(len(held)), owner))
        place = np.arange(len(held)) - np.searchsorted(owner, owner)  # among its owner's rows, in the random order
        votes += np.bincount(held[order][place < ROWS_A_CLIENT] % rows, minlength=rows)
    return votes
