"""Attribute inference: from the vectors of a few rows with a known attribute, guess it for the rows without.

A probe (multinomial logistic regression on standardised columns) learns from four fifths of the labelled rows and
guesses the rest, in turn; its share of right guesses stands beside that of always naming the most frequent label.
What it finds is what the population tells: training with any epsilon does not stop it (``promised`` is false).

Source: Song and Raghunathan, "Information leakage in embedding models" (2020, arXiv 2004.00053), section 5.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import EvaluationError
from common.evaluation.leak import Leak
from common.evaluation.leakage import required
from common.evaluation.leakage._rates import clopper_pearson, leak
from common.evaluation.view import Truth, View
from common.table import FloatArray, IntArray

FOLDS = 5
LEAST_ROWS = 20  # fewer guesses tell an accuracy apart from chance in no interval
MOST_ROWS = 5000  # labels are few by assumption; more only cost time
_MOST_STEPS = 2000


class Attributes:
    """``attributes``: accuracy of a probe, beside the share of the most frequent label."""

    name = "attributes"
    sees = "table"
    promised = False

    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        """One figure: every labelled row is guessed once, by a probe that has not seen its label.

        Raises:
            EvaluationError: no table, rows outside of it, too few labelled rows, or one label alone.
        """
        table = required(view.table, self.name, "a released table")
        rows, labels = labelled(required(truth.labels, self.name, "labels of rows"), len(table), seed=seed)
        guess = guessed(table.vectors[rows], labels, seed=seed)
        right = int(np.count_nonzero(guess == labels))
        figure = (right / len(rows), *clopper_pearson(right, len(rows)))
        chance = ("most frequent label", float(np.bincount(labels).max() / len(labels)))
        return [leak(self, "accuracy", figure, len(rows), chance=chance)]


def labelled(labels: Mapping[int, int], rows: int, *, seed: int) -> tuple[IntArray, IntArray]:
    """Row numbers, and their labels renumbered from 0; at most ``MOST_ROWS`` of them, drawn at random.

    Raises:
        EvaluationError: a row that the table lacks, fewer than ``LEAST_ROWS`` rows, or no second label.
    """
    known = np.array(sorted(labels), dtype=np.int64)
    if known[0] < 0 or known[-1] >= rows:
        raise EvaluationError("a label belongs to a row that the table does not have")
    if len(known) > MOST_ROWS:
        known = np.sort(np.random.default_rng(seed).choice(known, MOST_ROWS, replace=False))
    numbers: IntArray = np.unique([labels[row] for row in known.tolist()], return_inverse=True)[1].astype(np.int64)
    if len(known) < LEAST_ROWS:
        raise EvaluationError(
            f"the attack attributes has {len(known)} labelled rows and needs {LEAST_ROWS}",
            remedy="Label more rows of the table.",
        )
    if int((np.bincount(numbers) >= 2).sum()) < 2:
        raise EvaluationError("attributes need two labels that belong to two rows each: there is nothing to guess")
    return known, numbers


def folds_of(labels: IntArray, *, seed: int) -> IntArray:
    """Fold of each row: rows of one label are dealt out evenly, in random order. Shape (n,), values in [0, FOLDS)."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(len(labels), dtype=np.int64)
    fold[order] = np.arange(len(labels)) % FOLDS
    return fold


def guessed(vectors: FloatArray, labels: IntArray, *, seed: int) -> IntArray:
    """The label that a probe trained on the other folds gives each row, shape (n,)."""
    fold = folds_of(labels, seed=seed)
    found = np.empty(len(labels), dtype=np.int64)
    for held in range(FOLDS):
        known, asked = fold != held, fold == held
        found[asked] = probe(vectors[known], labels[known]).predict(standardised(vectors[known], vectors[asked]))
    return found


def probe(vectors: FloatArray, labels: IntArray) -> Any:
    """Logistic regression with ridge 1 on standardised columns."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():  # a probe that has not settled is a weaker attack, not a wrong figure
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=1.0, max_iter=_MOST_STEPS).fit(standardised(vectors, vectors), labels)


def standardised(reference: FloatArray, values: FloatArray) -> NDArray[np.float64]:
    """``values`` less the reference's mean, in units of its stddev a column; constant columns become zero."""
    mean, spread = reference.mean(axis=0, dtype=np.float64), reference.std(axis=0, dtype=np.float64)
    return np.where(spread > 0, (values - mean) / np.where(spread > 0, spread, 1.0), 0.0)


ATTACK = Attributes()
