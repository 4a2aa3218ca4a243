"""Example mode: DP-SGD inside one client, on a compact table, released as an update of every row.

One local step of DP-SGD (Abadi et al. 2016, Algorithm 1) with public constants lr, B, C and noise stddev s is::

    theta_t = theta_{t-1} - lr / B * ( sum_{u in S_t} clip_C(grad_u(theta_{t-1})) + z_t ),   z_t ~ N(0, s^2 I)

where S_t is a Poisson sample of the client's units. Let R be the rows that the batches of all T steps touch. A row
i outside R has a zero gradient in every step and is never read, so its update is a sum of noise alone::

    theta_T[i] - theta_0[i] = -lr / B * sum_t z_t[i]  ~  N(0, T (lr / B)^2 s^2),

which is one draw. So all samples and batches are drawn first, rows in R are noised lazily (``common.privacy.lazy``),
and all other rows get that one draw: the update has exactly the distribution of DP-SGD on the full table. This needs
plain SGD: momentum, Adam and weight decay are not offered here; they belong on the server.

B is the configured batch size, never a realised one and never ``int(n * rate)``: with those the noise floor of
untouched rows would tell n from n - 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from common.compact import renumbered, touched_rows
from common.errors import ConfigError, PrivacyConfigError
from common.privacy.example_update import Deltas, full_update, selected_update
from common.table import IntArray, RowDomain
from common.units import Units
from common.update import Parameters, ParameterSpec, UpdateBatch

if TYPE_CHECKING:
    import torch

    from common.privacy._opacus import ClippedSums, UnitGradients
    from common.privacy.plan import PrivacyPlan
    from common.privacy.rng import NoiseSource
    from common.privacy.table_optimizer import RowNoise
    from common.privacy.tables import PrivateTable

Batch = Mapping[str, "torch.Tensor"]


class ModuleFamily(Protocol):
    """What is needed of a family (``common.families.ModuleFamily`` has it)."""

    def specs(self, options: Any, rows: int) -> tuple[ParameterSpec, ...]: ...

    def module(self, options: Any, rows: int) -> torch.nn.Module: ...

    def batch(self, units: Units, domain: RowDomain | None, options: Any, rng: np.random.Generator) -> Batch: ...

    def loss(self, module: torch.nn.Module, batch: Batch) -> torch.Tensor: ...


class LocalTraining(Protocol):
    """What is needed of ``common.families.LocalTraining``."""

    @property
    def local_steps(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def lr(self) -> float: ...

    @property
    def device(self) -> str: ...


# exception: the client's loop hands over the round's public objects one by one, as for every family.
def train_example_mode(
    family: ModuleFamily,
    parameters: Parameters,
    units: Units,
    domain: RowDomain | None,
    options: Any,
    *,
    plan: PrivacyPlan,
    training: LocalTraining,
    source: NoiseSource,
) -> UpdateBatch:
    """One client's differentially private update: local minus global parameters, noise on every coordinate.

    Args:
        family: offers ``module``, ``batch`` and a ``loss`` that never couples two units.
        parameters: the global ones, in the shapes of ``family.specs(options, V)``.
        units: the client's privacy units; none at all is legal and gives an update of noise.
        plan: mode ``example``; fixes the unit's sampling rate, the clip and the noise.
        training: its ``local_steps`` must be those of the plan; ``batch_size`` is the public divisor.
        source: secret randomness of this client and round; used for sampling, noise and negative samples alike.

    Returns:
        One contribution (K = 1), float32, rounded to a public grid: every row of every table, or with
        ``rows = "selected"`` those that some step selected.

    Raises:
        PrivacyConfigError: settings that differ from what is accounted, or a module without per-unit gradients.
        ConfigError: parameters, batches or modules that do not fit the family's specs.
    """
    _check_settings(plan, training)
    rows = 0 if domain is None else len(domain)
    specs = family.specs(options, rows)
    batches: Sequence[Batch | None] | Iterator[Batch | None]
    batches = _draw_batches(family, units, domain, options, plan=plan, source=source)
    kept = np.zeros(0, dtype=np.int64)
    if any(spec.is_table for spec in specs):
        batches = list(batches)  # R must be known before the first step
        kept = touched_rows((batch for batch in batches if batch is not None), rows=rows)
    with _own_torch_randomness(source):
        compact = _compacted(parameters, specs, kept)
        engine = _engine(family, options, compact, len(kept), device=training.device, votes=plan.rows == "selected")
        guards = {
            name: _guard(name, table, kept, rows, plan=plan, source=source) for name, table in engine.tables.items()
        }
        deltas = _steps(family, engine, guards, batches, kept, plan=plan, training=training, source=source)
    if plan.rows == "selected":
        return selected_update(specs, deltas, guards, plan=plan, training=training)
    return full_update(specs, deltas, kept, plan=plan, training=training, source=source)


def _check_settings(plan: PrivacyPlan, training: LocalTraining) -> None:
    if plan.mode != "example" or plan.unit_is_client:
        raise PrivacyConfigError("training in example mode needs a plan of mode 'example' for units inside a client")
    if training.local_steps < 1 or training.local_steps != plan.local_steps:
        raise PrivacyConfigError(
            f"the plan accounts {plan.local_steps} local steps, but {training.local_steps} would be taken",
            remedy="Set training.local_steps to a positive number; example mode has no epochs.",
        )
    if plan.mechanism != "gaussian":  # the one draw of all steps for untouched rows needs a sum of Gaussians
        raise PrivacyConfigError(f"example mode adds Gaussian noise, not {plan.mechanism}")
    if not (0 < plan.unit_rate <= 1 and plan.noise_stddev > 0 and training.batch_size >= 1):
        raise PrivacyConfigError("example mode needs 0 < unit_rate <= 1, noise and a batch size of at least 1")


def _draw_batches(
    family: ModuleFamily,
    units: Units,
    domain: RowDomain | None,
    options: Any,
    *,
    plan: PrivacyPlan,
    source: NoiseSource,
) -> Iterator[Batch | None]:
    """One Poisson sample a step, as the family's padded tensors; ``None`` for an empty sample."""
    for step in range(plan.local_steps):
        chosen = np.flatnonzero(source.derive("sample", step).bernoulli(units.count, plan.unit_rate))
        if not len(chosen):
            yield None
            continue
        seed = source.derive("batch", step).integers(4, 2**32)
        yield family.batch(units.take(chosen), domain, options, np.random.default_rng([int(part) for part in seed]))


@contextmanager
def _own_torch_randomness(source: NoiseSource) -> Iterator[None]:
    """Layers draw initial values and dropout masks from torch's global generator: lend it a seed, then restore it."""
    import torch

    before = torch.get_rng_state()
    torch.default_generator.manual_seed(int(source.derive("torch").integers(1, 2**32)[0]))
    try:
        yield
    finally:
        torch.set_rng_state(before)


def _compacted(parameters: Parameters, specs: Sequence[ParameterSpec], kept: IntArray) -> Parameters:
    compact = {}
    for spec in specs:
        array = parameters[spec.name]
        if array.shape != spec.shape:
            raise ConfigError(f"parameter {spec.name!r} has shape {array.shape}, the family says {spec.shape}")
        compact[spec.name] = array[kept] if spec.is_table else array
    return compact


def _engine(
    family: ModuleFamily, options: Any, compact: Parameters, rows: int, *, device: str, votes: bool
) -> UnitGradients:
    """The family's module over a table of ``rows`` rows, holding ``compact``, ready for per-unit gradients."""
    import torch

    from common.privacy._opacus import UnitGradients

    module = family.module(options, rows)
    held = {name: tuple(tensor.shape) for name, tensor in module.named_parameters()}
    if held != {name: array.shape for name, array in compact.items()}:
        raise ConfigError("the module's parameters differ in name or shape from the family's specs")
    module.to(torch.device(device))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(compact[name])))
    return UnitGradients(module, votes=votes)


def _guard(
    name: str, table: PrivateTable, kept: IntArray, rows: int, *, plan: PrivacyPlan, source: NoiseSource
) -> RowNoise:
    """What noises the rows of one compact table: its weight here is what was added to the table since the start."""
    import torch

    from common.privacy.lazy import LazyTable
    from common.privacy.selection import SelectedTable

    start = table.weight.detach().clone()
    moved = torch.zeros_like(start, dtype=torch.float64)
    guard: RowNoise
    if plan.rows == "dense":
        guard = LazyTable(moved, source=source.derive("noise", name))
    else:
        guard = SelectedTable(
            moved,
            source=source.derive("noise", name),
            threshold=plan.selection_threshold * plan.vote_multiplier,
            vote_stddev=plan.vote_multiplier,
            row_numbers=kept,
            total_rows=rows,
        )
    table.reader = lambda wanted: (start.index_select(0, wanted) + guard.read(wanted)).float()
    return guard


# exception: two more than the rule, because plan, training and source travel together everywhere in this file.
def _steps(
    family: ModuleFamily,
    engine: UnitGradients,
    guards: Mapping[str, RowNoise],
    batches: Sequence[Batch | None] | Iterator[Batch | None],
    kept: IntArray,
    *,
    plan: PrivacyPlan,
    training: LocalTraining,
    source: NoiseSource,
) -> Deltas:
    """Take the local steps; return local minus initial values of the compact parameters in float64."""
    import torch

    from common.privacy.table_gradients import merged_sums

    scale, stddev = training.lr / training.batch_size, plan.noise_stddev
    dense = {name: p for name, p in engine.module.named_parameters() if name not in guards}
    start = {name: p.detach().clone() for name, p in dense.items()}
    delta = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in start.items()}
    for step, batch in enumerate(batches):
        sums = [] if batch is None else _clipped(family, engine, batch, kept, plan=plan, training=training)
        for name, guard in guards.items():
            guard.step(merged_sums([p.rows[name] for p in sums if name in p.rows]), scale=scale, stddev=stddev)
        for name, parameter in dense.items():
            noise = _noise(source.derive("noise", step, name), parameter, stddev)
            delta[name] -= scale * (noise + sum(part.dense[name] for part in sums if name in part.dense))
            parameter.data.copy_(start[name] + delta[name])
    every = torch.arange(len(kept), device=training.device)
    found = {name: guard.read(every) for name, guard in guards.items()}
    return {name: tensor.cpu().numpy() for name, tensor in (delta | found).items()}


def _clipped(
    family: ModuleFamily,
    engine: UnitGradients,
    batch: Batch,
    kept: IntArray,
    *,
    plan: PrivacyPlan,
    training: LocalTraining,
) -> list[ClippedSums]:
    moved = {key: tensor.to(training.device) for key, tensor in renumbered(batch, kept).items()}
    return list(engine.clipped(family.loss, moved, plan.l2_clip_norm))


def _noise(source: NoiseSource, like: torch.Tensor, stddev: float) -> torch.Tensor:
    import torch

    drawn = source.normal(tuple(like.shape), stddev)
    return torch.from_numpy(drawn).to(device=like.device, dtype=torch.float64)
