"""Links: do two rows belong together (an edge, an interaction, a pair of words of one text)?

Threat: an adversary that has the released table, or may ask it for similarities, and a list of pairs of rows. Nodes
that training has linked lie closer (He et al. 2021, "Stealing links from graph neural networks", arXiv 2005.02131,
attack 0; Duddu et al. 2020, "Quantifying privacy leakage in graph embedding", arXiv 2010.00906). Scores:

* ``cosine``: similarity of the pair in the released table;
* ``change``: the same less the similarity in the public start table, where that is known.

Popular rows are linked anyway: the prior of a pair is the product of the two rows' popularities, which is the expected
number of links of a random graph with these degrees (Chung and Lu 2002).
"""

from __future__ import annotations

import numpy as np

from common.errors import EvaluationError
from common.evaluation.leak import Leak
from common.evaluation.leakage import required
from common.evaluation.leakage._candidates import checked_vectors, unit_rows
from common.evaluation.leakage._rates import (
    FloatVector,
    auc,
    average_precision,
    leak,
    ranked,
    ranked_intervals,
)
from common.evaluation.view import Question, Truth, View
from common.table import FloatArray, IntArray

METRICS = {"auc": auc, "ap": average_precision}
PRIOR = "popularity product"


class Links:
    """``links``: AUC and average precision of telling linked pairs from others, beside the popularity product."""

    name = "links"
    sees = "table"
    promised = True

    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        """Both figures of every score.

        Raises:
            EvaluationError: no table, no pairs, rows that the table lacks, or pairs that are all linked or all not.
        """
        scores = self.guess(view, truth.question, seed=seed)
        linked = required(truth.linked, self.name, "the answer which pairs are linked")
        pairs = required(truth.pairs, self.name, "pairs of rows")
        if linked.shape != (len(pairs),) or not linked.any() or linked.all():
            raise EvaluationError("the attack links needs one answer a pair, and pairs of either kind")
        prior = popularity(view, pairs)
        found = []
        for name, values in scores.items():
            intervals = ranked_intervals(list(METRICS.values()), values, linked, seed=seed)
            for (label, metric), interval in zip(METRICS.items(), intervals, strict=True):
                chance = (PRIOR, ranked(metric, prior, linked))
                figure = (ranked(metric, values, linked), *interval)
                found.append(leak(self, f"{label}:{name}", figure, len(pairs), chance=chance))
        return found

    def guess(self, view: View, question: Question, *, seed: int) -> dict[str, FloatVector]:
        """Score name -> score of every pair, shape (P,); higher says linked."""
        vectors = checked_vectors(view.table, view, self.name)
        pairs = required(question.pairs, self.name, "pairs of rows")
        if pairs.ndim != 2 or pairs.shape[1] != 2 or int(pairs.min()) < 0 or int(pairs.max()) >= len(vectors):
            raise EvaluationError("the pairs are not two rows of the table each")
        found = {"cosine": cosines(vectors, pairs)}
        if view.start is not None:
            found["change"] = found["cosine"] - cosines(view.start, pairs)
        return found


def cosines(vectors: FloatArray, pairs: IntArray) -> FloatVector:
    """Cosine of each pair, shape (P,); zero where a row is zero."""
    unit = unit_rows(vectors)
    found: FloatVector = np.einsum("pd,pd->p", unit[pairs[:, 0]], unit[pairs[:, 1]], dtype=np.float64)
    return found


def popularity(view: View, pairs: IntArray) -> FloatVector:
    """Product of the two rows' popularities, shape (P,).

    Raises:
        EvaluationError: the prior is not one finite number a row.
    """
    if int(pairs.max()) >= len(view.prior) or not np.isfinite(view.prior).all():
        raise EvaluationError("the popularity of the rows is not one finite number a row")
    return view.prior[pairs[:, 0]] * view.prior[pairs[:, 1]]


ATTACK = Links()
