"""word2vec as a torch module with one loss per privacy unit: the form that per-unit gradients need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import logsigmoid

from common.families._skipgram import Objective, keep_probabilities, negative_cdf
from common.families._skipgram_layout import window_ends
from common.table import FloatArray, IntArray, RowDomain
from common.units import Units


class SkipGram(torch.nn.Module):
    """The two tables. The loss reads them by attribute; there is no forward pass of its own."""

    def __init__(self, rows: int, dimensions: int) -> None:
        super().__init__()
        self.centre = torch.nn.Embedding(rows, dimensions)
        self.context = torch.nn.Embedding(rows, dimensions)


@dataclass(frozen=True)
class UnitSettings:
    """Public settings: the objective, the subsampling threshold, and the bounds of one unit."""

    objective: Objective
    subsample: float
    shared_negatives: int
    max_tokens: int
    max_pairs: int


@dataclass(frozen=True)
class _Examples:
    """n predictions: ``inputs`` (n, M) rows, mixed by ``mix`` (n, M), predict ``outputs`` (n,), in ``unit`` (n,)."""

    unit: IntArray
    inputs: IntArray
    mix: FloatArray
    outputs: IntArray


def unit_batch(
    units: Units, domain: RowDomain, settings: UnitSettings, rng: np.random.Generator
) -> Mapping[str, torch.Tensor]:
    """Padded predictions of B units, P at most in one; P follows the data and never exceeds ``max_pairs``.

    Skip-gram predicts one context from one centre (M = 1); CBOW predicts a word from the mean of M = 2 * window words.

    Returns:
        ``rows.centre.weight`` (B, P, M) and ``mix`` (B, P, M); ``rows.context.weight`` (B, P) and ``weights`` (B, P),
        0 for padding; ``rows.context.weight.negatives`` (B, N); ``noise`` (B,), the weight of one negative.
    """
    examples = _bounded(_examples(units, domain, settings, rng), units.count, settings.max_pairs, rng)
    size = np.bincount(examples.unit, minlength=units.count)
    place = (examples.unit, np.arange(len(examples.unit)) - (np.cumsum(size) - size)[examples.unit])
    shape = (units.count, max(int(size.max(initial=0)), 1))
    width = examples.inputs.shape[1]
    uniforms = rng.random((units.count, settings.shared_negatives))  # independent between units, unlike strata
    drawn = np.searchsorted(negative_cdf(domain)[:-1], uniforms, side="right")
    arrays: dict[str, np.ndarray] = {
        "rows.centre.weight": np.zeros((*shape, width), np.int64),
        "mix": np.zeros((*shape, width), np.float32),
        "rows.context.weight": np.zeros(shape, np.int64),
        "weights": np.zeros(shape, np.float32),
    }
    values: tuple[Any, ...] = (examples.inputs, examples.mix, examples.outputs, 1.0)
    for array, value in zip(arrays.values(), values, strict=True):
        array[place] = value
    noise = np.full(units.count, settings.objective.negatives / settings.shared_negatives, np.float32)
    arrays |= {"rows.context.weight.negatives": drawn.astype(np.int64), "noise": noise}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def unit_loss(module: SkipGram, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Negative-sampling loss (Mikolov et al. 2013, equation 4), mean over a unit's predictions, shape (B,)."""
    hidden = (module.centre(batch["rows.centre.weight"]) * batch["mix"][..., None]).sum(2)
    outputs = module.context(batch["rows.context.weight"])
    negative = module.context(batch["rows.context.weight.negatives"])
    positive = logsigmoid((hidden * outputs).sum(-1))
    noise = logsigmoid(-(hidden @ negative.transpose(1, 2))).sum(-1) * batch["noise"][:, None]
    weights = batch["weights"]
    return -((positive + noise) * weights).sum(1) / weights.sum(1).clamp(min=1)


def _examples(units: Units, domain: RowDomain, settings: UnitSettings, rng: np.random.Generator) -> _Examples:
    owner = np.repeat(np.arange(units.count), np.diff(units.offsets))
    rows = units.columns["rows"].astype(np.int64)
    uniforms = rng.random((2, len(rows)))
    early = np.arange(len(rows)) - units.offsets[:-1][owner] < settings.max_tokens
    kept = np.flatnonzero(early & (uniforms[0] < keep_probabilities(domain, settings.subsample)[rows]))
    rows, owner, sentences = rows[kept], owner[kept], units.columns["sentence"][kept].astype(np.int64)
    sentence = owner * (int(sentences.max(initial=0)) + 1) + sentences
    low, high = window_ends(sentence, 1 + (uniforms[1][kept] * settings.objective.window).astype(np.int64))
    distance = np.array([d for d in range(-settings.objective.window, settings.objective.window + 1) if d])
    paired = (distance >= low[:, None]) & (distance <= high[:, None])
    if settings.objective.model == "cbow":
        return _cbow_examples(rows, owner, paired, distance)
    centre, column = np.nonzero(paired)
    return _Examples(
        unit=owner[centre],
        inputs=rows[centre, None],
        mix=np.ones((len(centre), 1), np.float32),
        outputs=rows[centre + distance[column]],
    )


def _cbow_examples(rows: IntArray, owner: IntArray, paired: np.ndarray, distance: IntArray) -> _Examples:
    target = np.flatnonzero(paired.any(axis=1))
    chosen = paired[target]
    around = np.where(chosen, target[:, None] + distance, 0)
    mix = chosen / chosen.sum(axis=1, keepdims=True)
    return _Examples(owner[target], rows[around], mix.astype(np.float32), rows[target])


def _bounded(examples: _Examples, count: int, limit: int, rng: np.random.Generator) -> _Examples:
    """At most ``limit`` examples a unit, chosen at random, ordered by unit."""
    order = np.lexsort((rng.random(len(examples.unit)), examples.unit))
    unit = examples.unit[order]
    size = np.bincount(unit, minlength=count)
    order = order[np.arange(len(order)) - (np.cumsum(size) - size)[unit] < limit]
    return _Examples(examples.unit[order], examples.inputs[order], examples.mix[order], examples.outputs[order])
