"""Was a row touched? Likelihood ratios from the lengths of rows, and what popularity says before anything is seen.

Without noise, rows that nobody touched are exactly zero. With noise of stddev s on every coordinate, such a row has
the squared length s^2 chi^2_k over k coordinates; a touched one is longer by an unknown factor, which is taken from a
mixture over a grid of factors (a nonparametric maximum likelihood estimate: Kiefer and Wolfowitz 1956; on a grid, with
a point mass at no effect: Stephens 2017, "False discovery rates: a new deal"). Where noise hides everything the
mixture finds factor 1 alone, all likelihood ratios are 1, and the guess is the prior's.
"""

from __future__ import annotations

import math

import numpy as np

from common.errors import EvaluationError
from common.evaluation.leakage._rates import FloatVector

CERTAIN = 60.0  # nats: a row that is not zero was touched; finite, so that popularity still orders such rows
ROWS_OF_PADDING = 1  # a padding row is zero under any noise: one zero row alone shows nothing
_FACTORS = np.concatenate([[1.0], np.geomspace(1.5, 1e8, 24)])
_BINS = 256
_OUTER, _INNER = 8, 20  # steps of EM: the variance, and the weights between two of its steps
_SMALLEST = 1e-300
_SURE = 1e-12


def held_log_odds(prior: FloatVector, expected_rows: float | None) -> FloatVector:
    """Log odds that a client holds each row, shape (V,): it draws rows from the prior until it expects to hold enough.

    A client with m independent draws holds row r with probability 1 - exp(-m p_r). m is set so that these add up to
    ``expected_rows``, or, where that is unknown, to the perplexity of the prior (2 to the power of its entropy in
    bits), at most half of the rows.

    Raises:
        EvaluationError: the prior is not one finite popularity a row, or the expectation is not between 0 and V.
    """
    if prior.ndim != 1 or not len(prior) or not np.isfinite(prior).all() or prior.min() < 0 or prior.sum() <= 0:
        raise EvaluationError("the popularity of the rows is not one finite number a row, at least one above zero")
    rows = len(prior)
    p = np.maximum(prior / prior.sum(), _SURE / rows)
    wanted = min(math.exp(-float(p @ np.log(p))), rows / 2) if expected_rows is None else float(expected_rows)
    if not 0 < wanted < rows:
        raise EvaluationError(f"a client is expected to hold more than 0 and less than {rows} rows, not {wanted:g}")
    low, high = math.log(wanted), math.log(wanted) + 60.0  # 1 - exp(-m p) <= m p: m is at least the number wanted
    for _ in range(80):
        middle = (low + high) / 2
        few = -np.expm1(-math.exp(middle) * p).sum() < wanted
        low, high = (middle, high) if few else (low, middle)
    return log_odds(-np.expm1(-math.exp(high) * p))


def log_odds(probability: FloatVector) -> FloatVector:
    """ln(p / (1 - p)), finite: nothing is certain beforehand."""
    p = np.clip(probability, _SURE, 1 - _SURE)
    return np.log(p) - np.log1p(-p)


def of_any(odds: FloatVector, clients: int) -> FloatVector:
    """Log odds that at least one of ``clients`` holds a row, from the log odds that one does."""
    from scipy.special import log_expit

    return log_odds(-np.expm1(clients * log_expit(-odds)))


def touched(squared: FloatVector, degrees: int, *, share: float) -> FloatVector:
    """Log likelihood ratio of touched against untouched for each row, shape (V,); minus infinity for a zero row.

    Args:
        squared: squared length of each row, shape (V,), summed over all that was seen of it.
        degrees: number of coordinates that went into each.
        share: share of the rows that is expected to be touched; the rest of these are touched and hidden by noise.

    Raises:
        EvaluationError: a length is not finite.
    """
    if not np.isfinite(squared).all():
        raise EvaluationError("an update or a sum has values that are not finite: there is nothing to be seen in it")
    zero = squared == 0
    if int(zero.sum()) > ROWS_OF_PADDING or bool(zero.all()):
        return np.where(zero, -np.inf, CERTAIN)
    found = np.full(len(squared), -np.inf)
    found[~zero] = _log_ratios(squared[~zero], degrees, share)
    return found


def _log_ratios(squared: FloatVector, degrees: int, share: float) -> FloatVector:
    """log f1 / f0, with f0 the shortest rows' density and f1 = ((share - e) f0 + sum_j W_j f_j) / share.

    W_j are the shares of rows lengthened by factor j > 0, and e is their sum: rows longer than noise are touched ones.
    """
    from scipy.special import logsumexp

    scale, weights = fit(squared, degrees)
    longer = float(weights[1:].sum())
    share = max(share, longer, _SURE)
    mixed = np.concatenate([[max(share - longer, 0.0)], weights[1:]]) / share
    with np.errstate(divide="ignore"):
        logs = np.log(mixed)
    found = np.empty(len(squared))
    for start in range(0, len(squared), 1 << 16):  # (rows, factors) at a time
        part = slice(start, start + (1 << 16))
        densities = _log_densities(squared[part], degrees, scale)
        found[part] = np.minimum(logsumexp(densities - densities[:, :1] + logs, axis=1), CERTAIN)
    return found


def fit(squared: FloatVector, degrees: int) -> tuple[float, FloatVector]:
    """Noise variance and the weight of each factor in ``_FACTORS``, by EM on the lengths gathered into bins.

    The weights take ``_INNER`` steps for each step of the variance: the densities change with the variance alone.
    """
    from scipy.stats import chi2

    lengths, counts = _binned(squared)
    scale = float(np.quantile(squared, 0.25)) / float(chi2.ppf(0.25, degrees))
    weights = np.full(len(_FACTORS), 0.1 / (len(_FACTORS) - 1))
    weights[0] = 0.9
    for _ in range(_OUTER):
        logs = _log_densities(lengths, degrees, scale)
        densities = np.exp(logs - logs.max(axis=1, keepdims=True))
        for _ in range(_INNER):
            share = counts / np.maximum(densities @ weights, _SMALLEST)
            weights = weights * (share @ densities) / counts.sum()
        explained = densities * weights * (counts / np.maximum(densities @ weights, _SMALLEST))[:, None]
        scale = float((explained / _FACTORS).sum(axis=1) @ lengths) / (degrees * float(explained.sum()))
    return scale, weights / weights.sum()


def _binned(squared: FloatVector) -> tuple[FloatVector, FloatVector]:
    """Mean and number of the lengths in each of ``_BINS`` bins, even on a logarithmic scale, that is not empty."""
    logs = np.log(squared)
    width = max(float(logs.max() - logs.min()), 1e-9) / _BINS
    index = np.minimum(((logs - logs.min()) / width).astype(np.int64), _BINS - 1)
    counts = np.bincount(index, minlength=_BINS).astype(np.float64)
    sums = np.bincount(index, weights=squared, minlength=_BINS)
    return sums[counts > 0] / counts[counts > 0], counts[counts > 0]


def _log_densities(squared: FloatVector, degrees: int, scale: float) -> FloatVector:
    """Log density of each length under each factor, up to a term of the length alone; shape (rows, factors)."""
    variance = scale * _FACTORS
    return -0.5 * degrees * np.log(variance) - squared[:, None] / (2 * variance)
