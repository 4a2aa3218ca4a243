"""The batched kernel of word2vec: skip-gram and CBOW with negatives that a whole step shares.

Mikolov et al. 2013 (arXiv 1310.4546) train one (centre, context) pair after another, at the speed of vector products.
Here a step takes blocks of consecutive centres together: all their contexts lie in one strip of ``block + 2 * window``
tokens, so scores and gradients are a few batched matrix products, and a band mask removes what no window covers. The
negatives are drawn once a step and each stands for ``negatives * pairs / N`` of the usual ones, which leaves the
expected gradient as it was (Ji et al. 2016, arXiv 1604.04661, share them inside a window).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from common.table import IntArray, RowDomain

NEGATIVE_POWER = 0.75  # exponent of the noise distribution, Mikolov et al. 2013, section 2.2
# Longest move of a row by one entry of a step. A shared negative collects hundreds of pairs; their sum, taken at one
# stale row, overshoots where one pair after another would have saturated, and the rows can grow without bound.
MAX_ROW_STEP = 0.5
_FAR = 32_000  # a distance beyond every window: takes the centre itself out of its own band


@dataclass(frozen=True)
class Objective:
    """Public settings of the loss: ``model`` is "sgns" or "cbow"; ``negatives`` a pair; ``window`` tokens a side."""

    model: str
    window: int
    negatives: int


@dataclass(frozen=True)
class Step:
    """What one step reads. C clients take it together, each with the same number of blocks.

    Attributes:
        strips: (n_blocks, block + 2 * window), int64 row numbers; the centres are the middle ``block`` columns.
        low, high: (n_blocks, block), int16: centre i is paired with distances ``low <= d <= high``, ``d != 0``.
        negatives: (C, N), int64 row numbers; client c owns blocks ``c * n_blocks / C`` and on.
    """

    strips: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    negatives: torch.Tensor


@dataclass(frozen=True)
class Gradients:
    """Summed-loss gradients, one entry for every place where a step reads a row.

    Attributes:
        middle: (n_blocks, block, D), of the rows read for the centres.
        strip: (n_blocks, block + 2 * window, D), of the rows read for the strips.
        negative: (C, N, D).
    """

    middle: torch.Tensor
    strip: torch.Tensor
    negative: torch.Tensor


def negative_cdf(domain: RowDomain) -> NDArray[np.float64]:
    """Cumulative noise distribution ``p ** 0.75`` over the rows, shape (V,), from public frequencies; made once."""
    return _once(domain, "_negative_cdf", lambda: _cumulative(domain.probabilities**NEGATIVE_POWER))


def keep_probabilities(domain: RowDomain, threshold: float) -> NDArray[np.float64]:
    """Chance that a token survives subsampling, shape (V,): ``sqrt(t / f) + t / f``, at most 1 (word2vec's code).

    ``f`` is the public frequency: a local count would couple the privacy units of a client. A threshold of 0 keeps all.
    """
    if threshold == 0:
        return _once(domain, "_keep_all", lambda: np.ones(len(domain)))
    ratio = threshold / domain.probabilities
    return _once(domain, f"_keep_{threshold!r}", lambda: np.minimum(1.0, np.sqrt(ratio) + ratio))


def negative_rows(domain: RowDomain, uniforms: NDArray[np.float64]) -> IntArray:
    """Rows from the noise distribution by inversion of ``uniforms`` in [0, 1): O(log V) a draw."""
    return np.searchsorted(negative_cdf(domain)[:-1], uniforms, side="right")


def _cumulative(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.cumsum(weights)
    total /= total[-1]
    return total


def _once(domain: RowDomain, name: str, make: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
    """Keep a derived array on the frozen domain itself, as ``cached_property`` does: it lives as long as its owner."""
    kept: dict[str, NDArray[np.float64]] = domain.__dict__
    if name not in kept:
        kept[name] = make()
    return kept[name]


def train_step(centre: torch.Tensor, context: torch.Tensor, step: Step, objective: Objective, *, lr: float) -> None:
    """One step of SGD on the summed loss, in place on tables of shape (rows, D)."""
    window, block = objective.window, step.low.shape[1]
    middle_ids = step.strips[:, window : window + block]
    pairs = (step.high - step.low).float()
    negative = _rows(context, step.negatives)
    if objective.model == "cbow":
        middle, strip = _rows(context, middle_ids), _rows(centre, step.strips)
        gradients = cbow_gradients(middle, strip, negative, band(step, window), pairs, objective.negatives)
        targets = (context, centre)
    else:
        middle, strip = _rows(centre, middle_ids), _rows(context, step.strips)
        gradients = sgns_gradients(middle, strip, negative, band(step, window), pairs, objective.negatives)
        targets = (centre, context)
    _descend(targets[0], middle_ids, gradients.middle, lr)
    _descend(targets[1], step.strips, gradients.strip, lr)
    _descend(context, step.negatives, gradients.negative, lr)


def band(step: Step, window: int) -> torch.Tensor:
    """1 where a centre is paired with a place of its strip, else 0. Shape (n_blocks, block, block + 2 * window)."""
    block = step.low.shape[1]
    distance = torch.arange(block + 2 * window) - window - torch.arange(block)[:, None]
    distance = torch.where(distance == 0, _FAR, distance).to(step.low)
    return (distance >= step.low[:, :, None]).logical_and_(distance <= step.high[:, :, None]).float()


def sgns_gradients(
    middle: torch.Tensor, strip: torch.Tensor, negative: torch.Tensor, mask: torch.Tensor, pairs: torch.Tensor, k: int
) -> Gradients:
    """Gradients of skip-gram with ``k`` negatives a pair (Mikolov et al. 2013, equation 4).

    Args:
        middle: (B, b, D) centre rows. strip: (B, b + 2w, D) context rows. negative: (C, N, D) context rows.
        mask: (B, b, b + 2w), 1 for a pair. pairs: (B, b), its sums over the last axis.
    """
    clients, draws = negative.shape[:2]
    positive = (middle @ strip.transpose(1, 2)).sigmoid_().sub_(1).mul_(mask)
    joined = middle.reshape(clients, -1, middle.shape[2])
    noise = (joined @ negative.transpose(1, 2)).sigmoid_().mul_((pairs * (k / draws)).view(clients, -1, 1))
    return Gradients(
        middle=(positive @ strip).add_((noise @ negative).view(middle.shape)),
        strip=positive.transpose(1, 2) @ middle,
        negative=noise.transpose(1, 2) @ joined,
    )


def cbow_gradients(
    middle: torch.Tensor, strip: torch.Tensor, negative: torch.Tensor, mask: torch.Tensor, pairs: torch.Tensor, k: int
) -> Gradients:
    """Gradients of CBOW: the mean of the strip's rows in a window predicts the middle word; shapes as in SGNS.

    The mean's gradient is divided by the number of contexts, as the chain rule has it; word2vec's code leaves that out
    (Irsoy et al. 2021, arXiv 2012.15332).
    """
    clients, draws = negative.shape[:2]
    average = mask / pairs.clamp(min=1)[:, :, None]
    present = (pairs > 0).float()
    hidden = average @ strip
    joined = hidden.reshape(clients, -1, hidden.shape[2])
    positive = ((hidden * middle).sum(-1).sigmoid_().sub_(1) * present)[:, :, None]
    noise = (joined @ negative.transpose(1, 2)).sigmoid_().mul_((present * (k / draws)).view(clients, -1, 1))
    back = (positive * middle).add_((noise @ negative).view(hidden.shape))
    return Gradients(positive * hidden, average.transpose(1, 2) @ back, noise.transpose(1, 2) @ joined)


def _rows(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return table.index_select(0, ids.reshape(-1)).view(*ids.shape, table.shape[1])


def _descend(table: torch.Tensor, ids: torch.Tensor, gradient: torch.Tensor, lr: float) -> None:
    """Subtract ``lr * gradient``, every entry's move at most ``MAX_ROW_STEP`` long."""
    entries = gradient.view(-1, table.shape[1])
    length = torch.linalg.vector_norm(entries, dim=1, keepdim=True).mul_(lr / MAX_ROW_STEP).clamp_(min=1)
    table.index_add_(0, ids.reshape(-1), entries.div_(length), alpha=-lr)
