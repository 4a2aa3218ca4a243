"""Interactions from the released table: was this item among those of this user that were trained on?

Threat: an adversary that has the released table, knows some items of a user, and asks about one item more. All items
that are asked for are the user's own; a coin left half of them out of training, so that popularity and taste say
nothing and guessing is a coin. Training pulls the items of one user together: it is the attack on links of He et al.
2021 ("Stealing links from graph neural networks", arXiv 2005.02131, attack 0) for a user who is known by items. Yuan
et al. 2023 (arXiv 2301.10964) ask the same of updates.

Scores:

* ``cosine``: mean cosine of the item with the known ones;
* ``product``: mean dot product of the same, in which lengths count.

Where the public start table is known, a score is the change since then.
"""

from __future__ import annotations

import numpy as np

from common.errors import EvaluationError
from common.evaluation.leak import Leak
from common.evaluation.leakage import required
from common.evaluation.leakage._candidates import checked_vectors, kept, unit_rows
from common.evaluation.leakage._rates import FloatVector, detection_leaks
from common.evaluation.view import Interactions as Asked
from common.evaluation.view import Question, Truth, View
from common.table import FloatArray


class Interactions:
    """``interactions``: AUC, and TPR at low FPR, of telling items that were trained on from others of the user."""

    name = "interactions"
    sees = "table"
    promised = True

    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        """Figures of every score; users of whom no item is known are left out.

        Raises:
            EvaluationError: no table, no interactions, rows that the table lacks, or one kind of answers alone.
        """
        scores = self.guess(view, truth.question, seed=seed)
        answer = required(truth.interacted, self.name, "the answer which interactions were trained on")
        if answer.shape != scores["cosine"].shape:
            raise EvaluationError(f"{len(answer)} answers do not fit {len(scores['cosine'])} interactions")
        keep = kept(scores["cosine"], answer, self.name)
        return detection_leaks(self, {n: s[keep] for n, s in scores.items()}, answer[keep], seed=seed)

    def guess(self, view: View, question: Question, *, seed: int) -> dict[str, FloatVector]:
        """Score name -> score of every interaction, shape (M,); higher says trained on, NaN says nothing."""
        vectors = checked_vectors(view.table, view, self.name)
        asked: Asked = required(question.interactions, self.name, "users and items that are asked for")
        _check(asked, len(vectors))
        found = {"cosine": mean_products(unit_rows(vectors), asked), "product": mean_products(vectors, asked)}
        if view.start is not None:
            found["cosine"] = found["cosine"] - mean_products(unit_rows(view.start), asked)
            found["product"] = found["product"] - mean_products(view.start, asked)
        return found


def mean_products(vectors: FloatArray, asked: Asked) -> FloatVector:
    """Mean dot product of the row that is asked for with the known ones, shape (M,); NaN where none is known."""
    sizes = np.diff(asked.known.offsets)
    owner = np.repeat(np.arange(len(asked)), sizes)
    known = vectors[asked.known.columns["rows"]]
    dots = np.einsum("rd,rd->r", vectors[asked.rows[owner]], known, dtype=np.float64)
    return np.where(sizes > 0, np.bincount(owner, weights=dots, minlength=len(asked)) / np.maximum(sizes, 1), np.nan)


def _check(asked: Asked, rows: int) -> None:
    named = np.concatenate([asked.rows, asked.known.columns["rows"]])
    if asked.known.count != len(asked) or int(named.min()) < 0 or int(named.max()) >= rows:
        raise EvaluationError("the interactions are not one row, and known rows, of the table for each user")


ATTACK = Interactions()
