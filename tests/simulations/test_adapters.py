"""Other people's mechanisms under our checks: their known findings appear, corrected versions pass, mutants do not."""

from __future__ import annotations

import dataclasses
import math
import os
import random
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message
from flwr.clientapp.mod import fixedclipping_mod
from flwr.serverapp import Grid, NeighboringRelation, PrivacyConfig, RdpAccountant, SamplingMethod
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    Strategy,
)
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader

from common.errors import EvaluationError
from common.evaluation.audit import CanaryScores, Outcome, audited
from common.evaluation.conformance import Finding, failures
from common.evaluation.conformance.claims import gaussian_epsilon
from simulations.adapters import flower, opacus
from simulations.adapters._lent import lent
from simulations.adapters.flower import FlowerStrategy
from simulations.adapters.opacus import OpacusLoop

pytestmark = [
    pytest.mark.filterwarnings("ignore:Secure RNG turned off"),
    pytest.mark.filterwarnings("ignore:Full backward hook is firing"),
]

SIGMA, CLIP, DELTA = 1.3, 0.5, 1e-5
EPSILON = gaussian_epsilon(SIGMA, DELTA)

FLOWER_FINDINGS = {
    "weight of 1000 examples declared",
    "all-zero update",
    "update beside dropouts",
    "contribution tiny",
    "contribution NaN",
    "contribution Inf",
    "contribution -Inf",
}
OUTSIDE = "an example outside the batch, 3 to 64 beside it"

Change = Callable[[Any], object]


def told(findings: Iterable[Finding]) -> dict[str, str]:
    """What was tried -> what was found."""
    return {finding.subject: finding.statistic for finding in findings}


def verdict(scores: CanaryScores) -> Outcome:
    return audited([scores], claimed_epsilon=EPSILON, delta=DELTA).outcome


def test_the_documented_lines_run(root: Path) -> None:
    """Blocks of one section share their names, as they do for a reader; the audit goes on from the strategy."""
    page = (root / "docs" / "adapters.md").read_text(encoding="utf-8")
    strategy, loop, audit = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    exec(strategy + audit, first)
    exec(loop, second)
    assert {f.subject for f in failures(first["findings"])} == FLOWER_FINDINGS
    assert {f.subject for f in failures(second["findings"])} == {OUTSIDE}
    assert first["verdict"].outcome is not Outcome.VIOLATION_FOUND


# Flower


def server_side(clients: int, **settings: Any) -> Strategy:
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
    return DifferentialPrivacyServerSideFixedClipping(inner, SIGMA, CLIP, clients, **settings)


def client_side(clients: int) -> Strategy:
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
    return DifferentialPrivacyClientSideFixedClipping(inner, SIGMA, CLIP, clients)


class Corrected(Strategy):
    """Fixed clipping as it ought to be: total, by no weight, over a public number of clients."""

    def __init__(self, clients: int) -> None:
        self.clients, self.sent_out = clients, ArrayRecord()
        self.inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self.sent_out = arrays
        return self.inner.configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        start = {name: array.numpy().astype(np.float64) for name, array in self.sent_out.items()}
        total = {name: np.zeros(array.shape) for name, array in start.items()}
        for reply in replies:
            arrays = next(iter(reply.content.array_records.values()))
            update = {name: arrays[name].numpy() - start[name] for name in start}
            norm = math.sqrt(sum(float(np.sum(array**2)) for array in update.values()))
            if math.isfinite(norm) and norm > 0:
                total = {name: total[name] + min(1.0, CLIP / norm) * update[name] for name in total}
        noised = {name: array + self.noise(array.shape) for name, array in total.items()}
        released = {name: (start[name] + noised[name] / self.clients).astype(np.float32) for name in start}
        return ArrayRecord({name: Array(array) for name, array in released.items()}), None

    def noise(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.random.normal(0, SIGMA * CLIP, shape)

    def configure_evaluate(self, *_: Any) -> Iterable[Message]:
        return []

    def aggregate_evaluate(self, *_: Any) -> None:
        return None

    def summary(self) -> None:
        """Nothing."""


def flower_case(make: Callable[[int], Strategy], **settings: Any) -> FlowerStrategy:
    return FlowerStrategy(make, CLIP, SIGMA, **settings)


@cache
def of_flower() -> tuple[Finding, ...]:
    return tuple(flower.conformance(flower_case(server_side)))


def test_flower_s_fixed_clipping_has_its_known_findings() -> None:
    """num-examples is a client's own word and weighs it; zeros end the round; NaN passes; dropouts change the mean."""
    found = told(failures(of_flower()))
    assert set(found) == FLOWER_FINDINGS
    assert found["weight of 1000 examples declared"] == "moves the release by 7.949 of C"  # 8 x 1000 / 1007
    assert found["all-zero update"] == "the strategy raised ZeroDivisionError"
    assert found["update beside dropouts"] == "moves the release by 2.000 of C"
    assert found["contribution NaN"] == "moves the release by nan of C"


def test_flower_s_noise_and_clip_are_as_claimed() -> None:
    found = told(of_flower())
    assert found["contribution over-norm"] == "moves the release by 1.000 of C"
    assert [f.subject for f in of_flower() if f.test in ("T2", "T3") and not f.holds] == []
    assert {f.test for f in of_flower()} == {"T1", "T2", "T3"}


def test_flower_s_accounted_mode_refuses_instead() -> None:
    """Unequal weights end the run, which tells about a client; after dropouts nothing is released."""

    def make(clients: int) -> Strategy:
        relation, sampling = NeighboringRelation.ADD_OR_REMOVE_ONE, SamplingMethod.NO_AMPLIFICATION
        return server_side(clients, accountant=RdpAccountant(PrivacyConfig(DELTA, 1000, relation, sampling)))

    found = {f.subject: f for f in flower.conformance(flower_case(make))}
    assert found["weight of 1000 examples declared"].statistic == "the strategy raised ValueError"
    assert found["update beside dropouts"].holds
    assert not found["all-zero update"].holds


def test_client_side_clipping_is_the_client_s_word() -> None:
    with_mod = told(flower.conformance(flower_case(client_side, mods=(fixedclipping_mod,))))
    assert with_mod["contribution over-norm"] == "moves the release by 1.000 of C"
    assert with_mod["all-zero update"] == "a client's mod raised ZeroDivisionError"
    without = told(failures(flower.conformance(flower_case(client_side))))
    assert without["contribution over-norm"] == "moves the release by 20.000 of C"


@pytest.mark.parametrize("seed", range(2))
def test_a_corrected_strategy_passes(seed: int) -> None:
    assert failures(flower.conformance(flower_case(Corrected), seed=seed)) == []


class TooQuiet(Corrected):
    def noise(self, shape: tuple[int, ...]) -> np.ndarray:
        return super().noise(shape) / math.sqrt(1.5)


class OneArrayBare(Corrected):
    def noise(self, shape: tuple[int, ...]) -> np.ndarray:
        return super().noise(shape) * (len(shape) > 1)


class NoiseKept(Corrected):
    def noise(self, shape: tuple[int, ...]) -> np.ndarray:
        if not hasattr(self, "kept"):
            self.kept: dict[tuple[int, ...], np.ndarray] = {}
        return self.kept.setdefault(shape, super().noise(shape))


class OneDrawARow(Corrected):
    def noise(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.broadcast_to(super().noise((*shape[:-1], 1)), shape) if len(shape) > 1 else super().noise(shape)


@pytest.mark.parametrize(
    ("mutant", "test", "subject"),
    [
        (TooQuiet, "T2", "noise on table"),
        (OneArrayBare, "T2", "noise on bias"),
        (NoiseKept, "T3", "lag-1 over rounds"),
        (OneDrawARow, "T3", "columns of table"),
    ],
)
def test_mutants_of_the_corrected_strategy_are_found(mutant: type[Corrected], test: str, subject: str) -> None:
    found = failures(flower.conformance(flower_case(mutant)))
    assert (test, subject) in {(f.test, f.subject) for f in found}
    assert {f.test for f in found} <= {"T2", "T3"}


def test_canary_clients_serve_an_audit() -> None:
    case = flower_case(server_side)
    scores = flower.canary_scores(case, 120)
    gap = scores.scores[scores.included].mean() - scores.scores[~scores.included].mean()
    assert gap == pytest.approx(CLIP, abs=5 * case.noise_stddev * math.sqrt(4 / 120))
    assert np.std(scores.scores[~scores.included]) == pytest.approx(case.noise_stddev, rel=0.3)

    def bare(clients: int) -> Strategy:
        made: Any = server_side(clients)
        made.noise_multiplier = SIGMA / 20
        return made

    assert verdict(flower.canary_scores(flower_case(bare), 120)) is Outcome.VIOLATION_FOUND


def test_a_strategy_that_cannot_be_tried_is_refused() -> None:
    class Unseeded(Corrected):
        def noise(self, shape: tuple[int, ...]) -> np.ndarray:
            return np.random.default_rng(int.from_bytes(os.urandom(8), "big")).normal(0, SIGMA * CLIP, shape)

    with pytest.raises(EvaluationError, match="under one seed differ"):
        flower.conformance(flower_case(Unseeded))
    with pytest.raises(EvaluationError, match="at least five"):
        flower.conformance(flower_case(server_side, clients=4))


# Opacus

ROWS, COLUMNS, LENGTH = 40, 8, 20


class Words(nn.Module):
    """Sums the vectors of a unit's words, by a plain table or by a bag, and classifies the sum."""

    def __init__(self, *, bag: bool = False, rows: int = ROWS, columns: int = COLUMNS) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(rows, columns, mode="sum") if bag else nn.Embedding(rows, columns)
        self.out = nn.Linear(columns, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.out(self.pooled(rows))

    def pooled(self, rows: torch.Tensor) -> torch.Tensor:
        if isinstance(self.table, nn.EmbeddingBag):
            return self.table(rows.reshape(-1), torch.arange(len(rows)) * rows.shape[1])
        return self.table(rows).sum(dim=1)


class Coupled(Words):
    """Takes the mean of the batch away, so that an example is in everybody's gradient."""

    def pooled(self, rows: torch.Tensor) -> torch.Tensor:
        found = super().pooled(rows)
        return found - found.mean(dim=0, keepdim=True)


def ordinary(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, ROWS, (LENGTH,), generator=generator), torch.randint(0, 3, (), generator=generator)


ADVERSARIES = {
    "of one word": (torch.full((LENGTH,), 3), torch.tensor(1)),
    "of all words": (torch.arange(LENGTH), torch.tensor(2)),
}


def opacus_loop(
    model: Callable[[], nn.Module] = Words,
    *,
    reduction: str = "sum",
    after: Change = lambda made: None,
    **settings: Any,
) -> OpacusLoop:
    """A loop as Opacus' tutorials have it; ``after`` changes what ``make_private`` returned."""

    def make(dataset: list[Any]) -> tuple[Any, ...]:
        module = model()
        made = PrivacyEngine().make_private(
            module=module,
            optimizer=torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1),
            criterion=nn.CrossEntropyLoss(reduction=reduction),
            data_loader=DataLoader(dataset, batch_size=8, shuffle=True),
            noise_multiplier=SIGMA,
            max_grad_norm=CLIP,
            loss_reduction=reduction,
            **settings,
        )
        after(made)
        return made

    def step(made: tuple[Any, ...], batch: Any) -> None:
        module, optimizer = made[:2]
        criterion = made[2] if len(made) == 4 else nn.CrossEntropyLoss(reduction=reduction)
        optimizer.zero_grad()
        criterion(module(batch[0]), batch[1]).backward()
        optimizer.step()

    return OpacusLoop(make, step, [ordinary(k) for k in range(8)], ADVERSARIES, SIGMA, CLIP)


def test_opacus_divides_by_a_number_that_tells_how_many_examples_there_are() -> None:
    """expected_batch_size = int(n * rate) with rate = 1 / ceil(n / batch): 8 at 8 examples, 4 at 9."""
    found = told(failures(opacus.conformance(opacus_loop(reduction="mean"))))
    assert set(found) == {OUTSIDE}
    assert "at 8 examples" in found.popitem()[1]


@pytest.mark.parametrize("seed", range(2))
def test_opacus_that_sums_passes(seed: int) -> None:
    """loss_reduction = "sum" leaves the divisor to the learning rate, which is public."""
    assert failures(opacus.conformance(opacus_loop(), seed=seed)) == []


def test_opacus_ghost_mode_fails_on_an_empty_batch() -> None:
    found = told(failures(opacus.conformance(opacus_loop(grad_sample_mode="ghost"))))
    assert found == {"an empty batch": "the loop raised RuntimeError"}


def bag_alone() -> nn.Module:
    """Only the bag learns; its gradients are long enough to be clipped whatever the examples are."""
    module = Words(bag=True)
    module.out.requires_grad_(False)
    module.out.weight.data.mul_(100.0)
    return module


def test_opacus_ghost_mode_does_not_clip_bags() -> None:
    """The norm counts a row once however often a bag holds it: a bag of one word of twenty is twenty times too long."""
    found = told(failures(opacus.conformance(opacus_loop(bag_alone, grad_sample_mode="ghost"))))
    assert found["example of one word"] == "moves the release by 20.000 of C"
    assert "example of all words" not in found
    assert failures(opacus.sensitivity(opacus_loop(bag_alone))) == []


def half_noise(made: tuple[Any, ...]) -> None:
    made[1].noise_multiplier *= 2 / 3


def noise_again(made: tuple[Any, ...]) -> None:
    """Every step draws the same noise."""
    original = made[1].add_noise

    def add_noise() -> None:
        with lent(5):
            original()

    made[1].add_noise = add_noise


def bare_layer(made: tuple[Any, ...]) -> None:
    original = made[1].add_noise

    def add_noise() -> None:
        original()
        made[1].params[-1].grad = made[1].params[-1].summed_grad.clone()

    made[1].add_noise = add_noise


def twice_the_clip(made: tuple[Any, ...]) -> None:
    made[1].max_grad_norm *= 2
    made[1].noise_multiplier /= 2


@pytest.mark.parametrize(
    ("loop", "test", "subject"),
    [
        (opacus_loop(after=half_noise), "T2", "noise on table.weight"),
        (opacus_loop(after=bare_layer), "T2", "noise on out.bias"),
        (opacus_loop(after=noise_again), "T3", "lag-1 over steps"),
        (opacus_loop(after=twice_the_clip), "T1", "example of one word"),
        (opacus_loop(Coupled), "T1", "example of one word"),
        (opacus_loop(poisson_sampling=False), "T4", "size of the cohorts of examples"),
    ],
)
def test_mutants_of_a_loop_are_found(loop: OpacusLoop, test: str, subject: str) -> None:
    found = {(f.test, f.subject) for f in failures(opacus.conformance(loop))}
    assert (test, subject) in found


def test_canary_examples_serve_an_audit() -> None:
    def one_row_each() -> nn.Module:
        module = Words(rows=120, columns=4)
        module.table.weight.data.mul_(0.01)
        module.out.requires_grad_(False)
        return module

    canaries = [(torch.full((LENGTH,), k), torch.tensor(k % 3)) for k in range(120)]
    loop = opacus_loop(one_row_each)
    scores = opacus.canary_scores(loop, canaries)
    gap = scores.scores[scores.included].mean() - scores.scores[~scores.included].mean()
    assert gap == pytest.approx(CLIP, abs=5 * loop.noise_stddev * math.sqrt(4 / 120))
    assert np.std(scores.scores[~scores.included]) == pytest.approx(loop.noise_stddev, rel=0.3)

    def bare(made: tuple[Any, ...]) -> None:
        made[1].noise_multiplier /= 20

    assert verdict(opacus.canary_scores(opacus_loop(one_row_each, after=bare), canaries)) is Outcome.VIOLATION_FOUND


def test_a_loop_that_cannot_be_tried_is_refused() -> None:
    def unseeded(made: tuple[Any, ...]) -> None:
        made[1].generator = torch.Generator().manual_seed(int.from_bytes(os.urandom(7), "big"))

    with pytest.raises(EvaluationError, match="under one seed differ"):
        opacus.conformance(opacus_loop(after=unseeded))
    with pytest.raises(EvaluationError, match="at least four"):
        opacus.conformance(dataclasses.replace(opacus_loop(), examples=[ordinary(0)]))
    silent = [(torch.zeros(LENGTH, dtype=torch.int64), torch.tensor(0))] * 3

    def frozen() -> nn.Module:
        module = Words()
        module.out.weight.data.zero_()
        module.out.requires_grad_(False)
        return module

    with pytest.raises(EvaluationError, match="without a gradient"):
        opacus.canary_scores(opacus_loop(frozen), silent)


def test_a_lent_seed_is_given_back() -> None:
    def drawn() -> list[float]:
        return [random.random(), float(np.random.normal()), float(torch.rand(()))]

    with lent(1):
        expected = drawn()
    with lent(2):
        first = drawn()
        with lent(1):
            assert drawn() == expected
        second = drawn()
    with lent(2):
        assert [*drawn(), *drawn()] == [*first, *second]
