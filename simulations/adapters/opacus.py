"""Conformance and canaries for a training loop made private by Opacus.

What is looked at is ``p.grad`` as Opacus hands it to the wrapped optimizer, times the divisor that Opacus used: the
clipped sum with its noise. All that happens to it later is post-processing. Trials begin from the same parameters, so
that what one example moves is the clip's work alone. Leave dropout and ``secure_mode`` out of the trial: its masks and
its noise cannot be made to repeat.

Opacus itself is not imported: any optimizer with ``add_noise``, ``noise_multiplier`` and ``expected_batch_size`` does.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import ConformanceError, EvaluationError
from common.evaluation.audit import CanaryScores
from common.evaluation.conformance.findings import ENOUGH, Finding, bound_finding, correlation_finding, scale_finding
from common.evaluation.conformance.noise import white
from common.evaluation.conformance.sampler import draws_findings
from simulations.adapters._lent import lent

Arrays = dict[str, NDArray[np.float64]]

SIZES = (3, 4, 7, 8, 15, 16, 31, 32, 33, 64)  # of the data set: int(n * rate) steps inside
_SAMPLED, _DRAWS = 80, 60
_MOST_STEPS = 24
_SLACK = 1e-4  # of sigma C a square root of coordinates: sums and noise are float32


@dataclass(frozen=True)
class OpacusLoop:
    """Somebody's loop, cut into the two pieces that the trials need.

    Attributes:
        make: from a data set (a list of examples) everything new: the model, the optimizer, the loader, made private;
            returns what ``make_private`` returned: module, optimizer, (criterion,) loader.
        step: one step of the loop on one batch: ``step(made, batch)`` calls forward, backward and ``optimizer.step()``.
        examples: some ordinary examples, at least four.
        adversaries: name -> an example that stresses the clip: long, repeated, extreme.
        noise_multiplier, max_grad_norm: what is claimed of the noise and of the clip.
    """

    make: Callable[[list[Any]], tuple[Any, ...]]
    step: Callable[[tuple[Any, ...], Any], object]
    examples: Sequence[Any]
    adversaries: Mapping[str, Any]
    noise_multiplier: float
    max_grad_norm: float

    @property
    def noise_stddev(self) -> float:
        """Claimed standard deviation on every coordinate of the clipped sum."""
        return self.noise_multiplier * self.max_grad_norm


class _Trial:
    """One private model; every step begins from its first parameters."""

    def __init__(self, loop: OpacusLoop, dataset: Sequence[Any]) -> None:
        self._loop = loop
        self.made = loop.make(list(dataset))
        self.optimizer, self.loader = self.made[1], self.made[-1]
        named = self.made[0].named_parameters()
        self._parameters = {n.removeprefix("_module."): p for n, p in named if p.requires_grad}
        self._start = {name: p.detach().clone() for name, p in self._parameters.items()}

    @property
    def divisor(self) -> float:
        """What Opacus divided the noised sum by."""
        mean = getattr(self.optimizer, "loss_reduction", "mean") == "mean"
        return float(self.optimizer.expected_batch_size) if mean else 1.0

    def couple(self, seed: int) -> None:
        """From now on every step draws the same noise."""
        original = self.optimizer.add_noise

        def add_noise() -> None:
            with lent(seed):
                original()

        self.optimizer.add_noise = add_noise

    def gradient(self, examples: Sequence[Any]) -> Arrays:
        """What a step on these examples hands to the wrapped optimizer, by parameter.

        Raises:
            ConformanceError: the loop failed on them.
        """
        for name, parameter in self._parameters.items():
            parameter.data.copy_(self._start[name])
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                self.optimizer.zero_grad()
                self._loop.step(self.made, self.loader.collate_fn(list(examples)))
        except Exception as error:  # somebody else's code may fail in any way, and that it does is the finding
            raise ConformanceError(f"the loop raised {type(error).__name__}") from error
        empty = {name: np.zeros(tuple(p.shape)) for name, p in self._parameters.items()}
        given = {n: p.grad.detach().double().numpy().copy() for n, p in self._parameters.items() if p.grad is not None}
        return empty | given


def conformance(loop: OpacusLoop, *, seed: int = 0) -> list[Finding]:
    """T1 (one example; how many there are; an empty batch), T2, T3 and T4 of a loop.

    Raises:
        EvaluationError: fewer than four examples, or noise that does not repeat under a seed.
    """
    if len(loop.examples) < 4:
        raise EvaluationError("the trials need at least four ordinary examples")
    _check_coupled(loop, seed)
    checks = (sensitivity, cardinality, empty_batch, noise_scale_and_whiteness, poisson_draw)
    return [finding for check in checks for finding in check(loop, seed=seed)]


def _check_coupled(loop: OpacusLoop, seed: int) -> None:
    first, second = (_flat(_coupled(loop, loop.examples, seed).gradient(loop.examples[:3])) for _ in range(2))
    if not np.array_equal(first, second):
        raise EvaluationError(
            "two trials of this loop under one seed differ: neighbours cannot be compared",
            remedy="Leave dropout and secure_mode out of the trial; make the model's first values in `make`.",
        )


def _coupled(loop: OpacusLoop, dataset: Sequence[Any], seed: int) -> _Trial:
    with lent(seed):
        trial = _Trial(loop, dataset)
    trial.couple(seed + 1)
    return trial


def _flat(arrays: Arrays) -> NDArray[np.float64]:
    return np.concatenate([array.ravel() for array in arrays.values()])


def sensitivity(loop: OpacusLoop, *, seed: int = 0) -> list[Finding]:
    """With the same noise, one example more moves the noised sum by at most C, whatever it is."""
    trial, found = _coupled(loop, loop.examples, seed), []
    others = list(loop.examples[:3])
    without = _flat(trial.gradient(others))
    slack = _SLACK * loop.noise_stddev * math.sqrt(len(without))
    for name, extra in {"ordinary": loop.examples[3], **loop.adversaries}.items():
        try:
            moved = float(np.linalg.norm(_flat(trial.gradient([*others, extra])) - without)) * trial.divisor
        except ConformanceError as error:
            found.append(Finding("T1", f"example {name}", error.message, False))
            continue
        found.append(bound_finding("T1", f"example {name}", moved, loop.max_grad_norm, slack=slack))
    return found


def cardinality(loop: OpacusLoop, *, seed: int = 0) -> list[Finding]:
    """One more example in the data set that is not in the batch changes nothing, at any size of the data set."""
    moved, worst = 0.0, 0
    for size in SIZES:
        fewer, more = (_coupled(loop, _cycled(loop, n), seed) for n in (size, size + 1))
        before, after = (_flat(trial.gradient(loop.examples[:1])) for trial in (fewer, more))
        difference = float(np.linalg.norm(before - after)) * fewer.divisor
        moved, worst = max((moved, worst), (difference if math.isfinite(difference) else math.inf, size))
    told = f"moves the step by {moved / loop.max_grad_norm:.3f} of C" + (f" at {worst} examples" if moved else "")
    return [Finding("T1", f"an example outside the batch, {SIZES[0]} to {SIZES[-1]} beside it", told, moved == 0.0)]


def _cycled(loop: OpacusLoop, size: int) -> list[Any]:
    return [loop.examples[k % len(loop.examples)] for k in range(size)]


def empty_batch(loop: OpacusLoop, *, seed: int = 0) -> list[Finding]:
    """A Poisson sample may be empty; its step is a step of noise."""
    trial = _coupled(loop, loop.examples, seed)
    trial.gradient(loop.examples[:1])  # a loader learns from its first batch what an empty one looks like
    try:
        noise = _flat(trial.gradient([])) * trial.divisor / loop.noise_stddev
    except ConformanceError as error:
        return [Finding("T1", "an empty batch", error.message, False)]
    return [scale_finding("T2", "noise of an empty batch", noise)]


def noise_scale_and_whiteness(loop: OpacusLoop, *, seed: int = 0) -> list[Finding]:
    """The noise of several steps from one generator: declared scale on every parameter, nothing shared or repeated."""
    smallest = min(array.size for array in _coupled(loop, loop.examples, seed).gradient(loop.examples[:3]).values())
    steps = max(4, min(_MOST_STEPS, -(-ENOUGH // smallest)))
    with lent(seed + 2):
        trial = _Trial(loop, loop.examples)
        noised = [trial.gradient(loop.examples[:3]) for _ in range(steps)]
    trial.optimizer.noise_multiplier = 0.0
    plain = trial.gradient(loop.examples[:3])
    unit = trial.divisor / loop.noise_stddev
    residuals = [{name: (step[name] - plain[name]) * unit for name in plain} for step in noised]
    scales = [scale_finding("T2", f"noise on {n}", np.concatenate([r[n].ravel() for r in residuals])) for n in plain]
    rounds = [_flat(found) for found in residuals]
    lag = correlation_finding("T3", "lag-1 over steps", np.concatenate(rounds[:-1]), np.concatenate(rounds[1:]))
    return [*scales, *white("T3", residuals[0]), lag]


def poisson_draw(loop: OpacusLoop, *, seed: int = 0) -> list[Finding]:
    """Every example enters a batch by itself with the loader's rate; nothing where the loader tells no batches."""
    with lent(seed + 3):
        loader = _Trial(loop, _cycled(loop, _SAMPLED)).loader
        batches: list[Any] = []
        while getattr(loader, "batch_sampler", None) is not None and len(batches) < _DRAWS:
            batches.extend(loader.batch_sampler)
    drawn = np.zeros((len(batches), _SAMPLED), dtype=bool)
    for number, batch in enumerate(batches):
        drawn[number, list(batch)] = True
    return draws_findings("examples", drawn, 1 / len(loader)) if batches else []


def canary_scores(loop: OpacusLoop, canaries: Sequence[Any], *, seed: int = 0) -> CanaryScores:
    """Scores of canary examples in one step of which each is part with probability 1/2, for ``audited``.

    A score is the noised sum along the gradient that the canary has by itself: its mean is C for one that is clipped
    and was in, 0 for one that was not. Canaries that meet in no parameter (rows of their own in a table) do not disturb
    one another.

    Raises:
        EvaluationError: a canary without a gradient.
    """
    included = np.random.default_rng(seed).random(len(canaries)) < 0.5
    with lent(seed + 4):
        trial = _Trial(loop, canaries)
        noised = _flat(trial.gradient([c for c, inside in zip(canaries, included, strict=True) if inside]))
    trial.optimizer.noise_multiplier = 0.0
    scores = np.array([_along(noised, _flat(trial.gradient([canary]))) for canary in canaries])
    return CanaryScores(scores * trial.divisor, included, design="canary examples", view="one step")


def _along(noised: NDArray[np.float64], alone: NDArray[np.float64]) -> float:
    length = float(np.linalg.norm(alone))
    if not length > 0:
        raise EvaluationError("a canary without a gradient tells nothing")
    return float(alone @ noised) / length
