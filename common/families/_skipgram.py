"""The batched kernel of word2vec: skip-gram and CBOW with negatives that a whole step shares.

Mikolov et al. 2013 (arXiv 1310.4546) train one (centre, context) pair after another, at the speed of vector products.
Here a step takes blocks of consecutive centres together: all their contexts lie in one strip of ``block + 2 * window``
tokens, so scores and gradients are a few batched matrix products, and a band mask removes what no window covers. N
negatives are drawn for a group of blocks, and each stands for ``negatives * pairs / N`` of the usual ones, which leaves
the expected gradient as it was (Ji et al. 2016, arXiv 1604.04661, share them inside a window).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from common.families._skipgram_layout import band_table
from common.seeds import Streams
from common.table import IntArray, RowDomain

NEGATIVE_POWER = 0.75  # exponent of the noise distribution, Mikolov et al. 2013, section 2.2
# A step sums the moves of all its pairs at one stale point, where one pair after another would have saturated: a row
# that many pairs read (a frequent word, any word of a small vocabulary) overshoots, and its scores grow without bound.
# Gradient descent is stable while the learning rate times the curvature stays below 2; rows beyond are slowed to it.
MOST_CURVATURE = 2.0


@dataclass(frozen=True)
class Objective:
    """Public settings of the loss: ``model`` is "sgns" or "cbow"; ``negatives`` a pair; ``window`` tokens a side."""

    model: str
    window: int
    negatives: int


@dataclass(frozen=True)
class Step:
    """What one step reads: blocks in G groups of equal size, each with its own negatives.

    Attributes:
        strips: (n_blocks, block + 2 * window), int64 row numbers; the centres are the middle ``block`` columns.
        reach: (n_blocks, block), int64: how far each centre's window extends (``_skipgram_layout.reach_codes``).
        negatives: (G, N), int64 row numbers; group g owns blocks ``g * n_blocks / G`` and on.
    """

    strips: torch.Tensor
    reach: torch.Tensor
    negatives: torch.Tensor


@dataclass(frozen=True)
class Rows:
    """Rows as a step reads them, or what the step adds to them.

    Attributes:
        middle: (n_blocks, block, D), at the centres' places.
        strip: (n_blocks, block + 2 * window, D), at the strips' places.
        negative: (G, N, D).
    """

    middle: torch.Tensor
    strip: torch.Tensor
    negative: torch.Tensor


@dataclass(frozen=True)
class Moves:
    """``-lr`` times the gradient at every place that a step reads, and ``lr`` times a bound on the curvature there.

    The second derivative of a pair's loss along a row is ``s * (1 - s) * |other row|^2``; the gradient's own factor,
    ``s`` or ``1 - s``, bounds ``s * (1 - s)``. ``curvature`` has the shapes of ``rows`` without their last axis.
    """

    rows: Rows
    curvature: Rows


def negative_cdf(domain: RowDomain) -> NDArray[np.float64]:
    """Cumulative noise distribution ``p ** 0.75`` over the rows, shape (V,), from public frequencies; made once."""
    return _once(domain, "_negative_cdf", lambda: _cumulative(domain.probabilities**NEGATIVE_POWER))


def keep_probabilities(domain: RowDomain, threshold: float) -> NDArray[np.float64]:
    """Chance that a token survives subsampling, shape (V,): ``sqrt(t / f) + t / f``, at most 1 (word2vec's code).

    ``f`` is the public frequency: a local count would couple the privacy units of a client. A threshold of 0 keeps all.
    """
    return _once(domain, f"_keep_{threshold!r}", lambda: _keep(domain.probabilities, threshold))


def draw_negatives(domain: RowDomain, counts: IntArray, streams: Streams, *purpose: object) -> IntArray:
    """``counts[k]`` rows for each client, each from the noise distribution, by inversion: O(log V) a draw.

    A client's draws are stratified (one from each of ``counts[k]`` equal intervals, in random order), so that every
    row comes as often as it should within one: independent draws would leave a rare row to chance.
    """
    uniforms, order = streams.stratified(counts, *purpose)
    return np.searchsorted(negative_cdf(domain)[:-1], uniforms, side="right")[order]


def _cumulative(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.cumsum(weights)
    total /= total[-1]
    return total


def _keep(frequencies: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    if threshold == 0:
        return np.ones(len(frequencies))
    ratio = threshold / frequencies
    return np.minimum(1.0, np.sqrt(ratio) + ratio)


def _once(domain: RowDomain, name: str, make: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
    """Keep a derived array on the frozen domain itself, as ``cached_property`` does: it lives as long as its owner."""
    kept: dict[str, NDArray[np.float64]] = domain.__dict__
    if name not in kept:
        kept[name] = make()
    return kept[name]


def train_step(centre: torch.Tensor, context: torch.Tensor, step: Step, objective: Objective, *, lr: float) -> None:
    """One step of SGD on the summed loss, in place on tables of shape (rows, D); steep rows take shorter moves."""
    block, window = step.reach.shape[1], objective.window
    middle, strip = step.strips[:, window : window + block].contiguous(), step.strips.contiguous()
    # In skip-gram the centre row of a word predicts its contexts; in CBOW the contexts' centre rows predict the word.
    inner, outer, moves = (centre, context, sgns_moves) if objective.model == "sgns" else (context, centre, cbow_moves)
    read = Rows(_rows(inner, middle), _rows(outer, strip), _rows(context, step.negatives))
    move = moves(read, band(step.reach, window), objective.negatives, lr)
    rows, curvature = move.rows, move.curvature
    entries = {"middle": (inner, middle), "strip": (outer, strip), "negative": (context, step.negatives)}
    total = {id(table): table.new_zeros(len(table)) for table in (centre, context)}
    for place, (table, ids) in entries.items():
        total[id(table)].index_add_(0, ids.view(-1), getattr(curvature, place).reshape(-1))
    for slowed in total.values():
        slowed.clamp_(min=MOST_CURVATURE).reciprocal_().mul_(MOST_CURVATURE)
    for place, (table, ids) in entries.items():
        moved = getattr(rows, place).view(-1, table.shape[1])
        table.index_add_(0, ids.view(-1), moved.mul_(total[id(table)].index_select(0, ids.view(-1))[:, None]))


def band(reach: torch.Tensor, window: int) -> torch.Tensor:
    """1 where a centre is paired with a place of its strip, else 0. Shape (n_blocks, block, block + 2 * window)."""
    n, block = reach.shape
    width = block + 2 * window
    rows = _bands(window, str(reach.device)).index_select(0, reach.reshape(-1))
    mask = torch.zeros((n, block, width), device=reach.device)
    diagonal = mask.as_strided((n, block, 2 * window + 1), (block * width, width + 1, 1))
    diagonal.copy_(rows.view(diagonal.shape))
    return mask


@lru_cache(maxsize=8)
def _bands(window: int, device: str) -> torch.Tensor:
    return torch.from_numpy(band_table(window)).to(device)


def sgns_moves(read: Rows, mask: torch.Tensor, negatives: int, lr: float) -> Moves:
    """Moves of skip-gram with ``negatives`` a pair (Mikolov et al. 2013, equation 4), summed over pairs.

    ``mask`` (n_blocks, block, block + 2 * window) is 1 for a pair.
    """
    middle, strip, negative = read.middle, read.strip, read.negative
    groups, draws = negative.shape[:2]
    joined = middle.reshape(groups, -1, middle.shape[2])
    weight = (mask.sum(2) * (-lr * negatives / draws)).view(groups, -1, 1)
    noise = torch.bmm(joined, negative.transpose(1, 2)).sigmoid_().mul_(weight)
    positive = _minus_product(middle, strip).sigmoid_().mul_(mask.mul_(lr))
    rows = Rows(
        middle=torch.bmm(positive, strip).add_(torch.bmm(noise, negative).view(middle.shape)),
        strip=torch.bmm(positive.transpose(1, 2), middle),
        negative=torch.bmm(noise.transpose(1, 2), joined),
    )
    length = _squares(middle)
    back = torch.bmm(positive, _squares(strip)).sub_(torch.bmm(noise, _squares(negative)).view(length.shape))
    above = torch.bmm(noise.transpose(1, 2), length.view(groups, -1, 1)).neg_()
    return Moves(rows, Rows(back, torch.bmm(positive.transpose(1, 2), length), above))


def cbow_moves(read: Rows, mask: torch.Tensor, negatives: int, lr: float) -> Moves:
    """Moves of CBOW: the mean of the strip's rows in a window predicts the middle word.

    The mean's gradient is divided by the number of contexts, as the chain rule has it; word2vec's code leaves that out
    (Irsoy et al. 2021, arXiv 2012.15332).
    """
    middle, strip, negative = read.middle, read.strip, read.negative
    groups, draws = negative.shape[:2]
    pairs = mask.sum(2, keepdim=True)
    present = (pairs > 0).float()
    average = mask.div_(pairs.clamp(min=1))
    hidden = torch.bmm(average, strip)
    joined = hidden.reshape(groups, -1, hidden.shape[2])
    weight = (present * (-lr * negatives / draws)).view(groups, -1, 1)
    noise = torch.bmm(joined, negative.transpose(1, 2)).sigmoid_().mul_(weight)
    positive = (hidden * middle).sum(2, keepdim=True).neg_().sigmoid_().mul_(present * lr)
    back = (positive * middle).add_(torch.bmm(noise, negative).view(hidden.shape))
    rows = Rows(positive * hidden, torch.bmm(average.transpose(1, 2), back), torch.bmm(noise.transpose(1, 2), joined))
    length = _squares(hidden)
    bend = (positive * _squares(middle)).sub_(torch.bmm(noise, _squares(negative)).view(length.shape))
    above = torch.bmm(noise.transpose(1, 2), length.view(groups, -1, 1)).neg_()
    return Moves(rows, Rows(positive * length, torch.bmm(average.square().transpose(1, 2), bend), above))


def _squares(rows: torch.Tensor) -> torch.Tensor:
    """Squared length of every row, the last axis kept with size 1."""
    return torch.linalg.vector_norm(rows, dim=2, keepdim=True).square_()


def _minus_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``-left @ right^T``, batched. A contiguous copy of the transpose first is faster than the library's own way."""
    transposed = right.transpose(1, 2).contiguous()
    unread = left.new_empty(1)
    return torch.baddbmm(unread, left, transposed, beta=0, alpha=-1)


def _rows(table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return table.index_select(0, ids.view(-1)).view(*ids.shape, table.shape[1])
