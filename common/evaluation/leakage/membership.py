"""Membership from the released table alone: was this unit trained on?

Threat: an adversary that has the released table, and copies of candidate units (a sentence, a basket). Training pulls
the rows of one unit together, so that members lie closer than others (Song and Raghunathan 2020, "Information leakage
in embedding models", arXiv 2004.00053, section 5.3; Mahloujifar et al. 2021, "Membership inference on word embedding
and beyond", arXiv 2106.11384). Scores:

* ``cosine``: mean cosine over all pairs of the unit's rows;
* ``loss``: mean ln sigma(v_i . v_j) over neighbours, the model's own loss (Yeom et al. 2018, arXiv 1709.01604).

Where the public start table is known, a score is the change since then: how close rows were beforehand says nothing
about membership. Rates at a low false-positive rate count, not the mean (Carlini et al. 2022, arXiv 2112.03570).
"""

from __future__ import annotations

from common.evaluation.leak import Leak
from common.evaluation.leakage._candidates import (
    answers,
    asked,
    checked_vectors,
    kept,
    log_likelihood,
    mean_cosine,
)
from common.evaluation.leakage._rates import FloatVector, detection_leaks
from common.evaluation.view import Question, Truth, View

STATISTICS = {"cosine": mean_cosine, "loss": log_likelihood}


class Membership:
    """``membership``: AUC, and TPR at low FPR, of telling members from others."""

    name = "membership"
    sees = "table"
    promised = True

    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        """Figures of every statistic; candidates without two different rows are left out.

        Raises:
            EvaluationError: no table, no candidates, rows that the table lacks, or one kind of candidates alone.
        """
        scores = self.guess(view, truth.question, seed=seed)
        member = answers(truth, asked(truth.question, self.name), self.name)
        keep = kept(scores["cosine"] + scores["loss"], member, self.name)
        return detection_leaks(self, {n: s[keep] for n, s in scores.items()}, member[keep], seed=seed)

    def guess(self, view: View, question: Question, *, seed: int) -> dict[str, FloatVector]:
        """Statistic -> score of every candidate, shape (N,); higher says member, NaN says nothing."""
        vectors = checked_vectors(view.table, view, self.name)
        units = asked(question, self.name)
        found = {name: statistic(vectors, units) for name, statistic in STATISTICS.items()}
        if view.start is not None:
            found = {name: found[name] - statistic(view.start, units) for name, statistic in STATISTICS.items()}
        return found


ATTACK = Membership()
