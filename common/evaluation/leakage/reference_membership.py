"""Membership with reference models: the released table beside tables that the adversary trained itself.

Threat: an adversary that has the released table, candidate units, and data like the training data, enough to train a
few tables of its own, with some of the candidates in and some out. Scores:

* ``lira``: ln N(phi; in) - ln N(phi; out), Gaussians fitted to the candidate's statistic phi over the references with
  and without it (Carlini et al. 2022, "Membership inference attacks from first principles", arXiv 2112.03570,
  algorithm 1), with variances pooled over candidates, as there for few models, and widened by 1 + 1/n for a mean of n;
* ``lira_offline``: (phi - mean out) / stddev out, without any reference that has seen the candidate (equation 4 there);
* ``rmia``: share of the other candidates z with (p(x) / mean p(x)) / (p(z) / mean p(z)) >= ``GAMMA``, means over the
  references (Zarifzadeh, Liu and Shokri 2024, "Low-cost high-power membership inference attacks", arXiv 2312.03262,
  equation 2).

p(x) is exp of the unit's mean log likelihood in the table, phi = ln(p / (1 - p)), as Carlini scales confidences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.errors import EvaluationError
from common.evaluation.leak import Leak
from common.evaluation.leakage import required
from common.evaluation.leakage._candidates import answers, asked, checked_vectors, kept, log_likelihood
from common.evaluation.leakage._rates import BoolVector, FloatVector, detection_leaks
from common.evaluation.view import Question, Truth, View

GAMMA = 1.0
LEAST_REFERENCES = 2  # a variance needs two
_LEAST_VARIANCE = 1e-12


@dataclass(frozen=True)
class Fit:
    """A candidate's statistic over the references of one side (with it, or without it).

    Attributes:
        mean: shape (N,), NaN where the side is empty.
        variance: shape (N,), of one more observation: pooled over candidates, times 1 + 1 / count.
    """

    mean: FloatVector
    variance: FloatVector


class ReferenceMembership:
    """``reference_membership``: AUC, and TPR at low FPR, of telling members from others with reference tables."""

    name = "reference_membership"
    sees = "table"
    promised = True

    def run(self, view: View, truth: Truth, *, seed: int) -> list[Leak]:
        """Figures of every score; candidates without two different rows, or in every reference, are left out.

        Raises:
            EvaluationError: no table, fewer than two references, no candidates, or one kind of candidates alone.
        """
        scores = self.guess(view, truth.question, seed=seed)
        member = answers(truth, asked(truth.question, self.name), self.name)
        keep = kept(sum(scores.values(), np.zeros(len(member))), member, self.name)
        return detection_leaks(self, {n: s[keep] for n, s in scores.items()}, member[keep], seed=seed)

    def guess(self, view: View, question: Question, *, seed: int) -> dict[str, FloatVector]:
        """Score name -> score of every candidate, shape (N,); higher says member, NaN says nothing.

        ``lira`` is there only where some candidate was in a reference.
        """
        vectors = checked_vectors(view.table, view, self.name)
        references = required(view.references, self.name, "tables that the adversary trained itself")
        units = asked(question, self.name)
        if len(references) < LEAST_REFERENCES:
            raise EvaluationError(f"the attack {self.name} needs {LEAST_REFERENCES} references, and has one")
        seen = np.array([reference.member for reference in references])
        if seen.shape != (len(references), units.count):
            raise EvaluationError("a reference does not say of every candidate whether it was in")
        target = log_likelihood(vectors, units)
        logs = np.array([log_likelihood(checked_vectors(r.table, view, self.name), units) for r in references])
        found = {"lira_offline": offline(logit(target), logit(logs), seen), "rmia": rmia(target, logs, seen)}
        if seen.any():
            found["lira"] = online(logit(target), logit(logs), seen)
        return found


def logit(log_p: FloatVector) -> FloatVector:
    """ln(p / (1 - p)) from ln p < 0; finite also where p is rounded to one."""
    return log_p - np.log(np.maximum(-np.expm1(log_p), np.finfo(np.float64).tiny))


def fitted(values: FloatVector, side: BoolVector) -> Fit:
    """Mean of each candidate over the references of one side, and the variance pooled over candidates.

    Args:
        values: shape (K, N), NaN where a candidate has no statistic.
        side: shape (K, N), whether reference k is on this side for candidate n.

    Raises:
        EvaluationError: no candidate has two references on this side: there is no variance to be had.
    """
    used = side & ~np.isnan(values)
    count = used.sum(axis=0)
    mean = np.where(used, values, 0.0).sum(axis=0) / np.where(count > 0, count, np.nan)
    left = np.where(used, values - mean, 0.0)
    freedom = float(np.maximum(count - 1, 0).sum())
    if freedom == 0:
        raise EvaluationError("no candidate was left out of two references: train more of them")
    pooled = max(float((left**2).sum()) / freedom, _LEAST_VARIANCE)
    return Fit(mean, pooled * (1 + 1 / np.maximum(count, 1)))


def offline(target: FloatVector, values: FloatVector, seen: BoolVector) -> FloatVector:
    """How many stddevs the target's statistic lies above those of the references without the candidate."""
    out = fitted(values, ~seen)
    return (target - out.mean) / np.sqrt(out.variance)


def online(target: FloatVector, values: FloatVector, seen: BoolVector) -> FloatVector:
    """Log likelihood ratio of the two Gaussians.

    A candidate in no reference gets the others' mean shift; where no candidate is in two of them, both sides share
    the variance of those without.
    """
    out = fitted(values, ~seen)
    try:
        inside = fitted(values, seen)
    except EvaluationError:
        inside = Fit(np.where(seen, values, 0.0).sum(axis=0) / np.where(seen.any(axis=0), 1.0, np.nan), out.variance)
    mean = np.where(np.isnan(inside.mean), out.mean + mean_rise(out.mean, inside.mean), inside.mean)
    far = (target - out.mean) ** 2 / out.variance - (target - mean) ** 2 / inside.variance
    return 0.5 * (far + np.log(out.variance / inside.variance))


def rmia(target: FloatVector, values: FloatVector, seen: BoolVector) -> FloatVector:
    """Share of the other candidates that x dominates, from log p of the target (N,) and of the references (K, N)."""
    log_mean = log_average(values, seen)
    ratio = target - log_mean
    known = np.sort(ratio[~np.isnan(ratio)])
    below = np.searchsorted(known, ratio - np.log(GAMMA), side="right").astype(np.float64) - 1  # itself is no other
    return np.where(np.isnan(ratio), np.nan, below / max(len(known) - 1, 1))


def log_average(values: FloatVector, seen: BoolVector) -> FloatVector:
    """ln of mean p(x), half of the mean with x and half of the mean without, shape (N,).

    A candidate in no reference gets the others' mean rise; where no reference has seen any candidate, the mean with x
    is unknown and the mean without it stands for both (a = 1 in appendix B.2.2 of the source: its smaller a is made for
    classifiers, whose confidence in a member is near one).
    """
    out, inside = _log_mean(values, ~seen), _log_mean(values, seen)
    if not seen.any():
        return out
    raised = np.exp(out) + mean_rise(np.exp(out), np.exp(inside))
    known = np.where(np.isnan(inside), np.log(np.maximum(raised, np.finfo(np.float64).tiny)), inside)
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        return np.logaddexp(out, known) - np.log(2)


def _log_mean(values: FloatVector, side: BoolVector) -> FloatVector:
    """ln of mean p over the references of one side, from ln p, which may lie below what exp can hold; NaN for none."""
    count = side.sum(axis=0)
    logs = np.where(side, values, -np.inf)
    top = np.where(count > 0, logs.max(axis=0), np.nan)
    total = np.exp(logs - np.where(count > 0, top, 0.0)).sum(axis=0)
    return top + np.log(np.where(count > 0, total / np.maximum(count, 1), 1.0))


def mean_rise(out: FloatVector, inside: FloatVector) -> float:
    """Mean over the candidates on both sides of what membership adds.

    Raises:
        EvaluationError: no candidate is on both sides.
    """
    rise = (inside - out)[~np.isnan(inside - out)]
    if not len(rise):
        raise EvaluationError("every reference has seen the same candidates: train them on different ones")
    return float(rise.mean())


ATTACK = ReferenceMembership()
