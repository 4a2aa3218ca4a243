"""What every attack is tried on: a run of which nothing but noise is to be seen, and what each kind of sight is."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from common.evaluation.view import Candidates, Interactions, Reference, RoundView, Truth, View
from common.privacy.private_sum import Released
from common.table import EmbeddingTable
from common.units import Units
from common.update import RowBatch, UpdateBatch

ROWS, WIDTH, CLIENTS, UNITS, LONG = 120, 6, 20, 300, 6
NESTED = 8  # cohorts, each with one client less than the one before


def noise_view(seed: int) -> View:
    """Updates, sums and tables that are Gaussian noise on every coordinate."""
    rng = np.random.default_rng(seed)

    def noise(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    rounds = []
    for number in range(NESTED):
        cohort = np.arange(number, CLIENTS)
        ids = np.tile(np.arange(ROWS), len(cohort))
        rows = RowBatch(np.arange(len(cohort) + 1) * ROWS, ids, noise(len(ids), WIDTH))
        total = Released({"rows": (None, noise(ROWS, WIDTH))}, {})
        rounds.append(RoundView(cohort, updates=UpdateBatch(len(cohort), {"rows": rows}), total=total))
    keys = tuple(map(str, range(ROWS)))
    return View(
        clients=CLIENTS,
        prior=1 / np.arange(3, ROWS + 3),
        rounds=tuple(rounds),
        table=EmbeddingTable(keys, noise(ROWS, WIDTH)),
        start=noise(ROWS, WIDTH),
        references=tuple(
            Reference(EmbeddingTable(keys, noise(ROWS, WIDTH)), rng.random(UNITS) < 0.5) for _ in range(4)
        ),
        expected_rows=12.0,
    )


def truth(seed: int) -> Truth:
    """Answers that have nothing to do with the view; clients' rows follow the prior."""
    rng = np.random.default_rng([seed, 1])
    p = 1 / np.arange(3, ROWS + 3)
    held = tuple(np.unique(rng.choice(ROWS, int(n), p=p / p.sum())) for n in rng.integers(5, 25, CLIENTS))
    rows = np.concatenate([rng.choice(ROWS, LONG, replace=False) for _ in range(UNITS)])
    return Truth(
        held_rows=held,
        candidates=Candidates(Units(np.arange(UNITS + 1) * LONG, {"rows": rows})),
        member=rng.random(UNITS) < 0.5,
        pairs=rng.integers(0, ROWS, (UNITS, 2)),
        linked=rng.random(UNITS) < 0.5,
        interactions=Interactions(Units(np.arange(UNITS + 1) * LONG, {"rows": rows}), rng.integers(0, ROWS, UNITS)),
        interacted=rng.random(UNITS) < 0.5,
        labels={row: int(label) for row, label in enumerate(rng.integers(0, 2, ROWS))},
    )


def shuffled(given: Truth, seed: int) -> Truth:
    """The same questions with other answers."""
    rng = np.random.default_rng([seed, 2])
    order = rng.permutation(len(given.held_rows))
    labels = rng.permutation(list(given.labels.values())).tolist()
    return dataclasses.replace(
        given,
        held_rows=tuple(given.held_rows[client] for client in order),
        member=None if given.member is None else rng.permutation(given.member),
        linked=None if given.linked is None else rng.permutation(given.linked),
        interacted=None if given.interacted is None else rng.permutation(given.interacted),
        labels=dict(zip(given.labels, labels, strict=True)),
    )


def blind_view(attack: Any, seed: int) -> View:
    """A view that says nothing about what the attack wants to know.

    A bag's mean can be taken apart in any table whose rows differ, also in a random one: for ``inversion`` all rows
    are equal.
    """
    view = noise_view(seed)
    if attack.name != "inversion":
        return view
    flat = EmbeddingTable(tuple(map(str, range(ROWS))), np.ones((ROWS, WIDTH), np.float32))
    return dataclasses.replace(view, table=flat)


def without(view: View, sight: str) -> View:
    """The view less one kind of sight."""
    if sight == "updates":
        return dataclasses.replace(view, rounds=tuple(dataclasses.replace(r, updates=None) for r in view.rounds))
    if sight == "sums":
        return dataclasses.replace(view, rounds=tuple(dataclasses.replace(r, total=None) for r in view.rounds))
    if sight == "table":
        return dataclasses.replace(view, table=None)
    return dataclasses.replace(view, references=())


def flattened(guesses: Any) -> list[Any]:
    """A guess of any make as plain numbers."""
    if isinstance(guesses, np.ndarray):
        return [(guesses.shape, str(guesses.dtype), guesses.tobytes())]
    if dataclasses.is_dataclass(guesses):
        return [part for field in dataclasses.fields(guesses) for part in flattened(getattr(guesses, field.name))]
    if isinstance(guesses, dict):
        return [part for key in sorted(guesses) for part in [key, *flattened(guesses[key])]]
    if isinstance(guesses, (list, tuple)) or hasattr(guesses, "__next__"):
        return [part for guess in guesses for part in flattened(guess)]
    return [repr(guesses)]
