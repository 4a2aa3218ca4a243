"""Statistics of audits: what scores of canaries prove about a claim of differential privacy. No attack is in here.

* ``bounds``: epsilon and mu from error counts (Clopper and Pearson) and from differences of means.
* ``one_run``: bounds from one run with many canaries, valid whatever their dependence.
* ``thresholds``: thresholds fixed in advance, chosen on another half, or all of them at a shared error rate.
* ``power``: the cap, the smallest noise error that would be noticed, the best attainable bound.
* ``roc``: area under the curve and true positives at few false ones, with intervals.
* ``verdict``: CONSISTENT, VIOLATION FOUND or INCONCLUSIVE.
"""

from common.evaluation.audit.bounds import (
    ErrorCounts,
    effect_size_bound,
    epsilon_bound,
    epsilon_estimate,
    epsilon_of_mu,
    mean_difference_bound,
    mu_bound,
    mu_estimate,
    mu_of_epsilon,
)
from common.evaluation.audit.evidence import CanaryScores, Evidence, Outcome, Verdict
from common.evaluation.audit.methods import ONE_RUN, ONE_RUN_FDP
from common.evaluation.audit.one_run import Guesses, guesses
from common.evaluation.audit.power import cap, choose_guesses, smallest_factor
from common.evaluation.audit.roc import FALSE_POSITIVE_RATES, Interval, auc, true_positive_rate
from common.evaluation.audit.thresholds import Bonferroni, Explicit, Split, best_bound
from common.evaluation.audit.verdict import ALPHA, alpha_of_each, audited

__all__ = [
    "ALPHA",
    "FALSE_POSITIVE_RATES",
    "ONE_RUN",
    "ONE_RUN_FDP",
    "Bonferroni",
    "CanaryScores",
    "ErrorCounts",
    "Evidence",
    "Explicit",
    "Guesses",
    "Interval",
    "Outcome",
    "Split",
    "Verdict",
    "alpha_of_each",
    "auc",
    "audited",
    "best_bound",
    "cap",
    "choose_guesses",
    "effect_size_bound",
    "epsilon_bound",
    "epsilon_estimate",
    "epsilon_of_mu",
    "guesses",
    "mean_difference_bound",
    "mu_bound",
    "mu_estimate",
    "mu_of_epsilon",
    "smallest_factor",
    "true_positive_rate",
]
