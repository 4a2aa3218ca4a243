"""The engine against the obvious way: one backward pass a unit on a plain dense layer, clip, sum, step."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from common.errors import DataError, PrivacyConfigError
from common.privacy.engine import PrivacyEngine
from common.privacy.rng import NoiseSource
from common.privacy.selection import RowSelection
from common.privacy.tables import PrivateTable
from common.privacy.unit_clipping import AdaptiveClip

ROWS, DIMENSION, LENGTH = 40, 5, 6
QUIET = 1e-9  # a noise multiplier that changes nothing visible
LR, BATCH = 0.7, 8.0


class Model(nn.Module):
    """Two tables, one of them read twice, a bag, and dense layers."""

    def __init__(self, bag: str = "mean") -> None:
        super().__init__()
        self.words = nn.Embedding(ROWS, DIMENSION)
        self.bags = nn.EmbeddingBag(ROWS, DIMENSION, mode=bag)
        self.mix = nn.Linear(DIMENSION, DIMENSION)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        left = self.words(rows[:, :2]).sum(dim=1)
        right = self.words(rows[:, 1:]).square().mean(dim=1)
        return torch.tanh(self.mix(left * self.bags(rows) + right))


def losses(module: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    return (module(rows) - 0.3).square().sum(dim=1) * 4


def data(examples: int, seed: int = 0) -> torch.Tensor:
    """Row numbers with many repeats inside an example."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, ROWS // 4, (examples, LENGTH)))


def made(examples: int = 12, seed: int = 0, **settings: object) -> tuple[Model, object, DataLoader, PrivacyEngine]:
    torch.manual_seed(seed)
    module = Model()
    engine = PrivacyEngine(source=NoiseSource.seeded_for_tests(seed))
    defaults = {"noise_multiplier": QUIET, "max_grad_norm": 0.5, "unit_rate": 1.0, "steps": 1}
    defaults |= {"expected_batch_size": BATCH, "loss_reduction": "sum"}
    loader = DataLoader(TensorDataset(data(examples)), batch_size=4)
    optimizer = torch.optim.SGD(module.parameters(), lr=LR)
    _, private, loader = engine.make_private(
        module=module, optimizer=optimizer, data_loader=loader, **{**defaults, **settings}
    )
    return module, private, loader, engine


def train(module: nn.Module, optimizer: object, loader: DataLoader, reduction: str = "sum") -> None:
    for (rows,) in loader:
        optimizer.zero_grad()
        found = losses(module, rows)
        (found.sum() if reduction == "sum" else found.mean()).backward()
        optimizer.step()


def plain_step(
    rows: torch.Tensor,
    units: list[list[int]],
    clip: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    seed: int = 0,
    divisor: float = 1.0,
) -> dict[str, torch.Tensor]:
    """Oracle: parameters after one step of clipped gradient descent, one dense backward pass a unit."""
    torch.manual_seed(seed)
    module = Model()
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in module.named_parameters()}
    for members in units:
        module.zero_grad()
        losses(module, rows[members]).sum().backward()
        gradient = {n: p.grad.double() for n, p in module.named_parameters() if p.grad is not None}
        for name, value in clip(gradient).items():
            total[name] += value
    return {n: (p.detach().double() - LR / divisor * total[n]).float() for n, p in module.named_parameters()}


def flat(bound: float) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    def clip(gradient: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradient.values()))
        return {n: g * min(1.0, bound / norm) for n, g in gradient.items()}

    return clip


def same(module: nn.Module, expected: dict[str, torch.Tensor]) -> bool:
    state = module.state_dict()
    return all(torch.allclose(state[n], v, atol=2e-6, rtol=1e-5) for n, v in expected.items())


@pytest.mark.parametrize("bound", [0.05, 0.5, 100.0])
def test_a_step_is_that_of_clipped_gradients_taken_one_by_one(bound: float) -> None:
    module, optimizer, loader, _ = made(max_grad_norm=bound)
    train(module, optimizer, loader)
    singles = [[k] for k in range(12)]
    assert same(module, plain_step(data(12), singles, flat(bound)))
    assert not same(module, plain_step(data(12), singles[1:], flat(bound))), "one unit less must show"


def test_a_mean_loss_is_divided_by_the_public_constant_alone() -> None:
    module, optimizer, loader, _ = made(loss_reduction="mean")
    train(module, optimizer, loader, "mean")
    singles = [[k] for k in range(12)]
    assert same(module, plain_step(data(12), singles, flat(0.5), divisor=BATCH))
    assert not same(module, plain_step(data(12), singles, flat(0.5), divisor=12.0)), "12 is the realised batch"


def test_units_of_several_examples_are_clipped_as_one() -> None:
    units = np.array([0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 4, 5])
    module, optimizer, loader, _ = made(unit_of_example=units)
    train(module, optimizer, loader)
    members = [np.flatnonzero(units == u).tolist() for u in range(6)]
    assert same(module, plain_step(data(12), members, flat(0.5)))
    assert not same(module, plain_step(data(12), [[k] for k in range(12)], flat(0.5)))


@pytest.mark.parametrize("units", [None, np.array([0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 4, 5])])
def test_virtual_steps_change_nothing(units: np.ndarray | None) -> None:
    whole, parts = (made(unit_of_example=units, max_physical_batch_size=n) for n in (None, 4))
    for module, optimizer, loader, _ in (whole, parts):
        train(module, optimizer, loader)
    assert same(parts[0], whole[0].state_dict())
    assert len(parts[3].accountant.history) == 1 and parts[3].accountant.history[0][2] == 1, "one step is accounted"


def test_per_layer_bounds() -> None:
    bounds = {"words.weight": 0.2, "bags.weight": 0.05, "mix.weight": 0.3, "mix.bias": 0.1}
    module, optimizer, loader, _ = made(clipping="per_layer", max_grad_norm=list(bounds.values()))
    train(module, optimizer, loader)

    def clip(gradient: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {n: g * min(1.0, bounds[n] / max(float(g.norm()), 1e-300)) for n, g in gradient.items()}

    assert same(module, plain_step(data(12), [[k] for k in range(12)], clip))
    assert optimizer.clip.sensitivity == pytest.approx(math.sqrt(sum(b**2 for b in bounds.values())))


def test_the_adaptive_bound_finds_the_quantile() -> None:
    clip = AdaptiveClip(50.0, quantile=0.5, lr=0.3, denominator=12.0, count_stddev=0.3)
    module, optimizer, loader, _ = made(adaptive=clip, steps=60, expected_batch_size=1e9, loss_reduction="mean")
    train(module, optimizer, loader, "mean")
    norms = []
    for k in range(12):
        module.zero_grad()
        twin = Model()
        twin.load_state_dict(module.state_dict())
        losses(twin, data(12)[[k]]).sum().backward()
        norms.append(math.sqrt(sum(float(p.grad.square().sum()) for p in twin.parameters())))
    assert np.quantile(norms, 0.2) < clip.sensitivity < np.quantile(norms, 0.8)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_unit_that_is_not_finite_counts_for_nothing(bad: float) -> None:
    module, optimizer, loader, _ = made()
    for (rows,) in loader:
        optimizer.zero_grad()
        weights = torch.ones(12)
        weights[3] = bad
        (losses(module, rows) * weights).sum().backward()
        optimizer.step()
    assert same(module, plain_step(data(12), [[k] for k in range(12) if k != 3], flat(0.5)))


def test_an_empty_batch_is_a_step_of_noise() -> None:
    module, optimizer, loader, engine = made(unit_rate=1e-9, noise_multiplier=1.0, steps=3)
    before = {n: v.clone() for n, v in module.state_dict().items()}
    train(module, optimizer, loader)
    after = module.state_dict()
    assert all((after[n] != before[n]).float().mean() > 0.99 for n in before)
    assert engine.accountant.history[0][2] == 3


def test_a_step_on_a_batch_that_was_not_drawn_is_refused() -> None:
    module, optimizer, loader, _ = made()
    for (rows,) in loader:
        losses(module, rows).sum().backward()
        optimizer.step()
    optimizer.zero_grad()
    losses(module, data(3)).sum().backward()
    with pytest.raises(PrivacyConfigError, match="did not draw"):
        optimizer.step()


def test_a_batch_left_without_a_step_adds_nothing_to_the_next() -> None:
    """A unit in both batches would count twice under the noise of one step."""
    module, optimizer, loader, _ = made(steps=2, max_physical_batch_size=4)
    pieces = iter(loader)
    for _ in range(2):  # of three pieces
        (rows,) = next(pieces)
        losses(module, rows).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    next(pieces)
    with pytest.raises(PrivacyConfigError, match="before it was stepped"):
        next(pieces)
    for number, (rows,) in enumerate(loader):
        if number == 3:
            break
        optimizer.zero_grad()
        losses(module, rows).sum().backward()
        optimizer.step()
    assert same(module, plain_step(data(12), [[k] for k in range(12)], flat(0.5)))


def released(sigma: float, rows: str, seed: int, steps: int = 4) -> dict[str, np.ndarray]:
    """Change of every parameter over some steps, in units of the noise that the textbook adds in as many."""
    selection = RowSelection() if rows == "selected" else None
    module, optimizer, loader, _ = made(
        seed=seed,
        noise_multiplier=sigma,
        max_grad_norm=1e-3,
        steps=steps,
        unit_rate=0.3,
        rows=rows,
        selection=selection,
    )
    before = {n: v.clone() for n, v in module.state_dict().items()}
    train(module, optimizer, loader)
    scale = LR * sigma * 1e-3 * math.sqrt(steps)
    return {n: ((v - before[n]) / scale).numpy() for n, v in module.state_dict().items()}


def test_every_row_carries_the_noise_of_the_textbook_whenever_it_was_read() -> None:
    found = [released(30.0, "dense", seed) for seed in range(40)]
    for name in ("words.weight", "bags.weight", "mix.weight", "mix.bias"):
        sample = np.stack([f[name] for f in found])
        rows = sample.reshape(40, len(sample[0]), -1)
        spread, slack = rows.std(axis=(0, 2)), 5 / math.sqrt(2 * rows[:, 0].size)
        assert np.all(abs(spread - 1) < slack), f"{name}: {spread.min():.2f} to {spread.max():.2f}"
        assert abs(sample.std() - 1) < 5 / math.sqrt(2 * sample.size)


def test_nothing_leaves_before_the_noise_that_is_owed() -> None:
    module, optimizer, loader, _ = made(noise_multiplier=5.0, steps=2, unit_rate=0.5)
    before = module.words.weight.detach().clone()
    train(module, optimizer, loader)
    raw = module.words.weight.detach().clone()
    assert (raw[ROWS // 4 :] == before[ROWS // 4 :]).all(), "nobody read these rows: their noise is still owed"
    assert (module.state_dict()["words.weight"][ROWS // 4 :] != before[ROWS // 4 :]).all()


def test_selected_rows_alone_change_and_carry_full_noise() -> None:
    module, optimizer, loader, engine = made(
        noise_multiplier=1.0, max_grad_norm=1e-3, rows="selected", selection=RowSelection(5.0, 0.5)
    )
    before = module.words.weight.detach().clone()
    train(module, optimizer, loader)
    changed = (module.words.weight.detach() != before).any(dim=1).nonzero().reshape(-1)
    chosen = optimizer.tables["words"].rows.selected[0]
    assert np.array_equal(changed, chosen) and 0 < len(chosen) < ROWS
    assert engine.accountant.history[0][0] == 1.0, "votes and values are one event of the multiplier that was asked for"


def test_a_padding_row_neither_moves_nor_counts() -> None:
    torch.manual_seed(0)
    table = PrivateTable(ROWS, DIMENSION, bag="mean", padding_row=0)
    holder = nn.ModuleDict({"table": table, "mix": nn.Linear(DIMENSION, 1)})
    before = table.weight.detach().clone()
    rows = torch.tensor([[3, 0, 0], [0, 0, 0], [4, 4, 0]])
    torch.testing.assert_close(table(rows), torch.stack([before[3], torch.zeros(DIMENSION), before[4]]))
    engine = PrivacyEngine(source=NoiseSource.seeded_for_tests(1))
    loader = DataLoader(TensorDataset(rows), batch_size=3)
    _, optimizer, loader = engine.make_private(
        module=holder,
        optimizer=torch.optim.SGD(holder.parameters(), lr=1.0),
        data_loader=loader,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        unit_rate=1.0,
        steps=3,
    )
    for (batch,) in loader:
        optimizer.zero_grad()
        holder["mix"](table(batch)).mean().backward()
        optimizer.step()
    after = holder.state_dict()["table.weight"]
    assert torch.equal(after[0], before[0]) and (after[1:] != before[1:]).all()


def test_offsets_and_weights_are_those_of_embedding_bag() -> None:
    torch.manual_seed(0)
    layer = nn.EmbeddingBag(ROWS, DIMENSION, mode="sum")
    table = PrivateTable.like(layer)
    rows, offsets = torch.tensor([1, 1, 5, 7, 2]), torch.tensor([0, 2, 2, 4])
    weights = torch.tensor([0.5, -1.0, 2.0, 3.0, 1.5])
    torch.testing.assert_close(table(rows, offsets, weights), layer(rows, offsets, per_sample_weights=weights))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Embedding(5, 2, max_norm=1.0),
        nn.Embedding(5, 2, scale_grad_by_freq=True),
        nn.Embedding(5, 2, sparse=True),
        nn.EmbeddingBag(5, 2, mode="max"),
        nn.EmbeddingBag(5, 2, mode="sum", sparse=True),
    ],
)
def test_layers_without_a_per_unit_gradient_are_refused(layer: nn.Module) -> None:
    with pytest.raises(PrivacyConfigError):
        PrivateTable.like(layer)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, lr=0.1),
    ],
)
def test_momentum_and_the_like_are_refused_where_noise_is_lazy(optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    module = Model()
    with pytest.raises(PrivacyConfigError, match="lazy noise"):
        PrivacyEngine().make_private(
            module=module,
            optimizer=optimizer(module.parameters()),
            data_loader=DataLoader(TensorDataset(data(4)), batch_size=2),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            unit_rate=0.5,
            steps=1,
        )


@pytest.mark.parametrize(
    "settings",
    [
        {"noise_multiplier": 0.0},
        {"noise_multiplier": math.nan},
        {"max_grad_norm": 0.0},
        {"max_grad_norm": math.inf},
        {"max_grad_norm": [1.0, 1.0]},
        {"clipping": "per_layer", "max_grad_norm": [1.0]},
        {"unit_rate": 0.0},
        {"unit_rate": 1.5},
        {"steps": 0},
        {"rows": "some"},
        {"rows": "selected"},
        {"selection": RowSelection()},
        {"rows": "selected", "selection": RowSelection(noise_multiplier=1e-10)},
        {"rows": "selected", "selection": RowSelection(threshold=math.nan)},
        {"unit_of_example": np.zeros(3, np.int64)},
        {"expected_batch_size": -1.0},
        {"adaptive": AdaptiveClip(1.0, quantile=0.5, lr=0.2, denominator=8, count_stddev=0.1), "noise_multiplier": 1.0},
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(PrivacyConfigError):
        made(**settings)


def test_the_layers_of_per_layer_bounds_are_those_of_the_optimizer() -> None:
    layers = made()[1].layers
    with pytest.raises(PrivacyConfigError) as refused:
        made(clipping="per_layer", max_grad_norm=[1.0])
    assert layers[0] == "words" and refused.value.hint.endswith(": " + ", ".join(layers))
    bounds = [0.1 * (k + 1) for k in range(len(layers))]
    assert dict(zip(layers, bounds, strict=True)) == made(clipping="per_layer", max_grad_norm=bounds)[1].clip.bounds


def test_an_engine_accounts_one_data_set() -> None:
    *_, engine = made()
    module = Model()
    with pytest.raises(PrivacyConfigError, match="another data set"):
        engine.make_private(
            module=module,
            optimizer=torch.optim.SGD(module.parameters(), lr=LR),
            data_loader=DataLoader(TensorDataset(data(5)), batch_size=2),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            unit_rate=0.5,
            steps=1,
        )


def test_a_unit_larger_than_a_piece_is_refused() -> None:
    with pytest.raises(DataError, match="computed at once"):
        made(unit_of_example=np.zeros(12, np.int64), max_physical_batch_size=4)


def test_batch_norm_and_tied_weights_are_refused() -> None:
    tied = nn.ModuleDict({"a": nn.Embedding(4, 4), "b": nn.Linear(4, 4, bias=False)})
    tied["b"].weight = tied["a"].weight
    for module in (nn.Sequential(nn.Embedding(4, 4), nn.BatchNorm1d(4)), tied):
        with pytest.raises(Exception, match=r"BatchNorm|share one weight"):
            PrivacyEngine().make_private(
                module=module,
                optimizer=torch.optim.SGD(module.parameters(), lr=1.0),
                data_loader=DataLoader(TensorDataset(data(4)), batch_size=2),
                noise_multiplier=1.0,
                max_grad_norm=1.0,
                unit_rate=0.5,
                steps=1,
            )


def test_a_table_read_for_other_units_than_the_batch_is_refused() -> None:
    module, optimizer, loader, _ = made()
    for (rows,) in loader:
        optimizer.zero_grad()
        pooled = module.words(rows.reshape(-1)[:5]).sum()  # its first axis does not count units
        (losses(module, rows).sum() + pooled).backward()
        with pytest.raises(PrivacyConfigError, match=r"first axis|disagree"):
            optimizer.step()


def test_epsilon_is_that_of_the_steps_taken() -> None:
    module, optimizer, loader, engine = made(noise_multiplier=1.0, unit_rate=0.01, steps=1000, examples=2)
    for _ in range(1000):
        optimizer.step_hook(optimizer)
    assert engine.epsilon(1e-5) == pytest.approx(1.8282, abs=1e-3)
    assert 1.82 < engine.get_epsilon(1e-5) < 1.85
    del module, loader


def moved(
    module: nn.Module, examples: torch.Tensor, loss: Callable[..., torch.Tensor], *, clip: float = 1.0
) -> torch.Tensor:
    """Minus the sum that one step of learning rate 1 takes from the first table, almost without noise."""
    engine = PrivacyEngine(source=NoiseSource.seeded_for_tests(0))
    _, optimizer, loader = engine.make_private(
        module=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=1.0),
        data_loader=DataLoader(TensorDataset(examples), batch_size=4),
        noise_multiplier=QUIET,
        max_grad_norm=clip,
        unit_rate=1.0,
        steps=1,
        expected_batch_size=1.0,
        loss_reduction="sum",
    )
    before = next(iter(module.state_dict().values())).clone()
    for (batch,) in loader:
        optimizer.zero_grad()
        loss(module, batch).backward()
        optimizer.step()
    return before - next(iter(module.state_dict().values()))


def test_huge_parts_that_cancel_leave_other_units_alone() -> None:
    """x - x of one unit, added part by part, would wipe out the sum of all others."""
    scales = torch.tensor([1.0] * 10 + [1e30])
    rows = torch.tensor([[0, 1]] * 10 + [[0, 0]])

    def loss(module: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        found = module[0](batch)
        return (scales[: len(batch), None] * (found[:, 0] - found[:, 1])).sum()

    with_unit, without = (moved(nn.Sequential(nn.Embedding(3, 2)), rows[:n], loss) for n in (11, 10))
    assert float((with_unit - without).norm()) <= 1.0 + 1e-5


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan, 1e30, 1e-45])
def test_whatever_the_weights_of_a_bag_a_unit_moves_the_sum_by_no_more_than_the_clip(bad: float) -> None:
    weights = torch.tensor([[1.0, 1.0], [1.0, 1.0], [bad, 1.0]])
    rows = torch.tensor([[0, 1], [1, 2], [0, 2]])

    def loss(module: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        found = module.bag(batch, per_sample_weights=weights[: len(batch)])
        return torch.log1p(found.abs()).sum()

    def holder() -> nn.Module:
        torch.manual_seed(0)
        return nn.ModuleDict({"bag": nn.EmbeddingBag(4, 3, mode="sum")})

    with_unit, without = (moved(holder(), rows[:n], loss, clip=0.1) for n in (3, 2))
    assert bool(torch.isfinite(with_unit).all())
    assert float((with_unit - without).norm()) <= 0.1 + 1e-5


def test_what_is_accounted_cannot_be_changed_behind_the_noise() -> None:
    _, optimizer, _, _ = made(noise_multiplier=1.0)
    for name in ("noise_multiplier", "max_grad_norm"):
        with pytest.raises(PrivacyConfigError, match="fixed by make_private"):
            setattr(optimizer, name, 3.0)


def test_a_table_used_outside_its_layer_is_refused() -> None:
    module, optimizer, loader, _ = made()
    for (rows,) in loader:
        optimizer.zero_grad()
        (losses(module, rows).sum() + module.words.weight.sum()).backward()
        with pytest.raises(PrivacyConfigError, match="outside its layer"):
            optimizer.step()


def test_a_state_that_was_taken_does_not_go_on_changing() -> None:
    module, optimizer, loader, _ = made(noise_multiplier=1.0, steps=2)
    taken = module.state_dict()
    kept = {name: value.clone() for name, value in taken.items() if "words" in name or "bags" in name}
    train(module, optimizer, loader)
    assert all(torch.equal(taken[name], value) for name, value in kept.items())


def test_a_module_is_made_private_once() -> None:
    module, *_ = made()
    with pytest.raises(PrivacyConfigError, match="made private before"):
        PrivacyEngine().make_private(
            module=module,
            optimizer=torch.optim.SGD(module.mix.parameters(), lr=LR),
            data_loader=DataLoader(TensorDataset(data(5)), batch_size=2),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            unit_rate=0.5,
            steps=1,
        )


def test_the_noise_for_an_epsilon_costs_that_epsilon() -> None:
    module = Model()
    engine = PrivacyEngine(source=NoiseSource.seeded_for_tests(0))
    _, optimizer, loader = engine.make_private_with_epsilon(
        module=module,
        optimizer=torch.optim.SGD(module.parameters(), lr=LR),
        data_loader=DataLoader(TensorDataset(data(6)), batch_size=4),
        target_epsilon=2.0,
        target_delta=1e-5,
        unit_rate=0.5,
        steps=4,
        max_grad_norm=1.0,
        loss_reduction="sum",
    )
    train(module, optimizer, loader)
    assert 1.99 <= engine.epsilon(1e-5) <= 2.0
