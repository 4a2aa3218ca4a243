"""Items from users' lists on one large client, unit = user: ``useritem_bpr``'s loss with users made of their items.

The federation's families for users and items have no example mode: a user's vector there is solved for. Here a user is
the mean of what the items had point to (FISM: Kabbur, Ning and Karypis 2013, section 4), so no user has a row of their
own, and the whole user is one unit that touches as many rows as the list has items, and as many negatives:

    loss_u = mean over i in L_u of -log sigmoid( x_i . (y_i - y_j) ),    x_i = mean of p_k over k in L_u, k != i

with j drawn uniformly from all items. The last coordinate of x is a constant, so that y holds each item's popularity.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import logsigmoid

from common.evaluation.quality.recommendation import (
    RecommendationBenchmark,
    gains,
    hits,
    ranks,
    read_benchmark,
    vector_scorer,
)
from common.table import IntArray
from simulations.benchmarks._federated import clients_of, privacy, scenario
from simulations.benchmarks._interactions import movielens
from simulations.benchmarks._rows_training import Batch, Problem
from simulations.corpora import planted_ratings
from simulations.federation import HELD_OUT_ITEMS

DELTA = 1e-5
CONSTANT = 0.25  # near the length of a mean of 20 random unit vectors


@dataclass(frozen=True)
class Training:
    """Settings of one items problem; see ``Problem`` for the last four.

    Attributes:
        longest: items of one user in a step at most, chosen at random.
        judged: users whose held-out item is ranked, from the first.
    """

    dimension: int
    longest: int
    judged: int
    steps: int
    unit_rate: float
    clip: float
    reach: float


class _ItemLists(nn.Module):
    """Where items point (``had``) and where they are (``items``)."""

    def __init__(self, rows: int, dimension: int, seed: int) -> None:
        super().__init__()
        self.had, self.items = nn.Embedding(rows, dimension), nn.Embedding(rows, dimension)
        generator = torch.Generator().manual_seed(seed)
        self.had.weight.data = torch.randn(rows, dimension, generator=generator) / dimension**0.5
        self.items.weight.data.zero_()

    def forward(self, batch: Batch) -> torch.Tensor:
        mask = batch["mask"]
        rows = self.had(batch["had"]) * mask[..., None]
        others = (rows.sum(1, keepdim=True) - rows) / (mask.sum(1)[:, None, None] - 1).clamp(min=1)
        users = torch.cat([others[..., :-1], torch.full_like(others[..., -1:], CONSTANT)], dim=2)
        apart = self.items(batch["had"]) - self.items(batch["negatives"])
        return -(logsigmoid((users * apart).sum(2)) * mask).sum(1) / mask.sum(1).clamp(min=1)


def generated_split(users: int, rows: int) -> RecommendationBenchmark:
    """The first users of ``planted-ratings`` in a catalogue of ``rows`` items, of which they use the first ones."""
    lists = list(planted_ratings.CORPUS.lists(users))
    offsets = np.concatenate([[0], np.cumsum([len(items) - 1 for items in lists])])
    kept, held = np.concatenate([items[:-1] for items in lists]), np.array([items[-1] for items in lists])
    return RecommendationBenchmark(offsets, kept, held, rows=rows)


def movielens_split(folder: Path) -> RecommendationBenchmark:
    """MovieLens latest-small: 610 users, each user's last film held out."""
    population = movielens(folder)
    base = {**population.sections, "task": {"family": "useritem"}}
    clients_of(scenario(base, privacy("none", None, DELTA)), folder)
    return read_benchmark(folder / HELD_OUT_ITEMS)


def problem(label: str, split: RecommendationBenchmark, training: Training) -> Problem:
    """One items problem."""
    judged = split.first(min(training.judged, len(split)))
    return Problem(
        label=f"items of lists, {label}, {split.rows:,} items, unit user ({len(split):,})",
        units=len(split),
        start=lambda seed: _ItemLists(split.rows, training.dimension, seed),
        batch=lambda users, rng: _batch(split, users, training.longest, rng),
        scores=lambda module: _scores(judged, module),
        steps=training.steps,
        unit_rate=training.unit_rate,
        clip=training.clip,
        reach=training.reach,
        delta=DELTA,
    )


def _batch(split: RecommendationBenchmark, users: IntArray, longest: int, rng: np.random.Generator) -> Batch:
    """``had``, ``negatives`` and ``mask``, shape (B, longest); a longer list is a random part of it."""
    sizes = np.diff(split.offsets)[users]
    owner = np.repeat(np.arange(len(users)), sizes)
    begin = np.cumsum(sizes) - sizes
    index = np.repeat(split.offsets[:-1][users] - begin, sizes) + np.arange(len(owner))
    order = np.lexsort((rng.random(len(owner)), owner))
    place = np.arange(len(owner)) - begin[owner]
    kept = place < longest
    had = np.zeros((len(users), longest), np.int64)
    mask = np.zeros((len(users), longest), np.float32)
    had[owner[kept], place[kept]] = split.items[index[order][kept]]
    mask[owner[kept], place[kept]] = 1.0
    negatives = rng.integers(0, split.rows, had.shape)
    return {name: torch.from_numpy(array) for name, array in (("had", had), ("negatives", negatives), ("mask", mask))}


def _scores(split: RecommendationBenchmark, module: nn.Module) -> dict[str, float]:
    """Full ranking of the held-out items; users are the means of all their items."""
    had, items = (getattr(module, name).weight.detach().numpy() for name in ("had", "items"))
    sizes = np.diff(split.offsets)
    owner = np.repeat(np.arange(len(split)), sizes)
    users = np.zeros((len(split), had.shape[1]), np.float32)
    np.add.at(users, owner, had[split.items])
    users /= np.maximum(sizes, 1)[:, None]
    users[:, -1] = CONSTANT
    rank = ranks(split, vector_scorer(items, users))
    return {"HR@10": float(hits(rank).mean()), "NDCG@10": float(gains(rank).mean())}
