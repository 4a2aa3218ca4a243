"""T1 to T4 for example mode: a family's private local training on one client, with its own module and loss."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special

from common.compact import holds_rows, touched_rows
from common.evaluation.conformance.findings import ENOUGH, Finding, binomial_finding, bound_finding, scale_finding
from common.evaluation.conformance.noise import white
from common.evaluation.conformance.sampler import draws_findings
from common.privacy import dpsgd
from common.privacy.mechanisms.gaussian import GRID_BITS
from common.privacy.plan import PrivacyPlan
from common.privacy.rng import NoiseSource
from common.table import RowDomain
from common.units import Units
from common.update import ParameterSpec, UpdateBatch

_MOST_RUNS = 12
_SAMPLED_UNITS, _SAMPLED_STEPS = 80, 60
_EASY_THRESHOLD = 0.5  # in standard deviations: an untouched row is selected with probability .31
_LARGE = 4096  # numbers of an array that are looked at


@dataclass(frozen=True)
class ExampleSetup:
    """What example mode is configured with.

    Attributes:
        family, options, domain, parameters: as ``train_example_mode`` takes them.
        plan: mode example, in test mode.
        training: local steps as in the plan, batch size, learning rate.
        units: some of a client.
        adversaries: name -> one unit that stresses the clip.
    """

    family: Any
    options: Any
    domain: RowDomain | None
    parameters: Mapping[str, NDArray[np.float32]]
    plan: PrivacyPlan
    training: Any
    units: Units
    adversaries: Mapping[str, Units]

    @property
    def selected(self) -> bool:
        """Whether privately selected rows alone are updated."""
        return self.plan.rows == "selected"

    @property
    def lr_over_batch(self) -> float:
        """What one unit of gradient moves."""
        return float(self.training.lr / self.training.batch_size)


class Silent:
    """A source whose normals are zero: what is left is the clipped sum. All else comes from the given source."""

    def __init__(self, source: NoiseSource) -> None:
        self._source = source

    def derive(self, *context: str | int) -> Silent:
        """The same, of the derived stream."""
        return Silent(self._source.derive(*context))

    def normal(self, shape: Any, stddev: float) -> NDArray[np.float32]:
        """Zeros."""
        return np.zeros(shape, dtype=np.float32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


class Scaled:
    """A family whose losses are multiplied by a factor; notes which rows its batches read."""

    def __init__(self, family: Any, factor: float) -> None:
        self._family, self._factor = family, factor
        self.read: set[int] = set()

    def batch(self, units: Units, domain: RowDomain | None, options: Any, rng: np.random.Generator) -> Any:
        """The family's batch."""
        made = self._family.batch(units, domain, options, rng)
        if domain is not None and any(map(holds_rows, made)):
            self.read.update(touched_rows([made], rows=len(domain)).tolist())
        return made

    def loss(self, module: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The family's losses times the factor."""
        return self._family.loss(module, batch) * self._factor  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)


class Tally:
    """A family with nothing to learn that notes which units enter a step, by their column ``number``."""

    def __init__(self) -> None:
        self.steps: list[NDArray[np.int64]] = []

    def specs(self, options: Any, rows: int) -> tuple[ParameterSpec, ...]:
        """One number."""
        return (ParameterSpec("weight", (1, 1)),)

    def module(self, options: Any, rows: int) -> torch.nn.Module:
        """One number."""
        return torch.nn.Linear(1, 1, bias=False)

    def batch(self, units: Units, domain: RowDomain | None, options: Any, rng: np.random.Generator) -> Any:
        """Ones; notes the units."""
        self.steps.append(units.columns["number"])
        return {"x": torch.ones(units.count, 1)}

    def loss(self, module: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Zero."""
        return module(batch["x"])[:, 0] * 0.0  # type: ignore[no-any-return]


def example_sensitivity(setup: ExampleSetup, seed: int = 0) -> list[Finding]:
    """What one unit moves in one step, without noise, whatever it holds and whatever its loss is."""
    one = _with_steps(setup, 1, unit_rate=1.0)
    bound, found = one.plan.l2_clip_norm, []
    source = Silent(NoiseSource.seeded_for_tests(seed))
    without = _arrays(one, _trained(one, setup.family, setup.units.take(np.empty(0, np.int64)), source))
    for name, unit in setup.adversaries.items():
        for factor in (1.0, 1e6, 1e30, math.nan, math.inf):
            made = _arrays(one, _trained(one, Scaled(setup.family, factor), unit, source))
            moved = math.sqrt(sum(float(np.sum((made[n] - without[n]) ** 2)) for n in made)) / one.lr_over_batch
            told = f"unit {name}, loss times {factor:g}"
            found.append(bound_finding("T1", told, moved, bound, slack=_rounding(one, made)))
    return found


def example_cardinality(setup: ExampleSetup, seed: int = 0) -> list[Finding]:
    """The noise does not tell how many units there are: rows that no unit reads, and dense layers, stay as they are."""
    if setup.selected:  # a row that is selected draws its noise when it is: neighbours cannot be coupled
        return []
    few, found = _with_steps(setup, 2, unit_rate=0.25), []
    muted, floor = Scaled(setup.family, 0.0), {}
    for count in (0, 1, 3, 4, 5, 8):
        units = setup.units.take(np.arange(count) % setup.units.count)
        made = _arrays(few, _trained(few, muted, units, NoiseSource.seeded_for_tests(seed)))
        floor[count] = made
    for spec in _specs(setup):
        read = sorted({0, *muted.read})  # row 0 stands in where no batch reads any
        others = np.setdiff1d(np.arange(spec.shape[0]), read) if spec.is_table else slice(None)
        same = all(np.array_equal(floor[0][spec.name][others], made[spec.name][others]) for made in floor.values())
        told = "same" if same else "others"
        found.append(Finding("T1", f"noise of {spec.name} beside 0 to 8 units", f"the {told} numbers", same))
    return found


def example_noise(setup: ExampleSetup, seed: int = 0) -> list[Finding]:
    """All steps' noise on rows that are read, rows that are not, and dense layers, where gradients are zero."""
    setup = _one_easy_step(setup) if setup.selected else setup
    parts: dict[str, list[NDArray[np.float64]]] = {}
    for k in range(_MOST_RUNS):
        muted = Scaled(setup.family, 0.0)
        made = _residuals(setup, muted, NoiseSource.seeded_for_tests(seed * 100 + k))
        for spec in _specs(setup):
            for name, values in _groups(spec, made[spec.name], muted.read).items():
                present = values[values.any(axis=1)] if setup.selected and spec.is_table else values
                parts.setdefault(name, []).append(present.ravel()[:_LARGE])
        if all(sum(map(len, values)) >= ENOUGH for values in parts.values()):
            break
    return [scale_finding("T2", f"noise on {name}", np.concatenate(values)) for name, values in parts.items()]


def example_whiteness(setup: ExampleSetup, seed: int = 0) -> list[Finding]:
    """Independent noise in every direction, on every row, on one public grid."""
    setup = _one_easy_step(setup) if setup.selected else setup
    made = _residuals(setup, Scaled(setup.family, 0.0), NoiseSource.seeded_for_tests(seed))
    found = white("T3", {name: array for name, array in made.items() if array.size > 64})
    stddev = setup.plan.noise_stddev * math.sqrt(setup.plan.local_steps)
    grid = 2.0 ** (math.floor(math.log2(setup.lr_over_batch * stddev)) - GRID_BITS)
    for spec in _specs(setup):
        values = made[spec.name] * setup.lr_over_batch * stddev
        off = int(np.count_nonzero(np.abs(values / grid - np.rint(values / grid)) > 1e-3))
        found.append(Finding("T3", f"grid of {spec.name}", f"{off} of {values.size} numbers off it", not off))
        if spec.is_table:
            found.append(_bare_rows(setup, spec.name, int(np.count_nonzero(~values.any(axis=1))), len(values)))
    return found


def _bare_rows(setup: ExampleSetup, name: str, bare: int, rows: int) -> Finding:
    """Every row has noise; where rows are selected, untouched ones with the chance that the threshold gives."""
    if not setup.selected:
        return Finding("T3", f"rows of {name}", f"{bare} of {rows} are exactly zero", not bare)
    chance = float(special.ndtr(-setup.plan.selection_threshold))
    return binomial_finding("T2", f"rows of {name} selected", rows - bare, rows, rate=chance)


def example_sampler(setup: ExampleSetup, seed: int = 0) -> list[Finding]:
    """Which units enter a step: each by itself, with the plan's rate."""
    numbers = np.arange(_SAMPLED_UNITS)
    units, tally = Units(np.arange(_SAMPLED_UNITS + 1), {"number": numbers}), Tally()
    rate = setup.plan.unit_rate
    many = _with_steps(setup, _SAMPLED_STEPS, unit_rate=rate)
    dpsgd.train_example_mode(
        tally,
        {"weight": np.zeros((1, 1), np.float32)},
        units,
        None,
        None,
        plan=many.plan,
        training=many.training,
        source=NoiseSource.seeded_for_tests(seed),
    )
    drawn = np.zeros((_SAMPLED_STEPS, _SAMPLED_UNITS), dtype=bool)
    for step, chosen in enumerate(tally.steps):  # empty steps are not seen; they stay at the end
        drawn[step, chosen] = True
    if rate * _SAMPLED_UNITS * _SAMPLED_STEPS < 100:
        return [binomial_finding("T4", "rate of units", int(drawn.sum()), drawn.size, rate=rate)]
    return draws_findings("units", drawn, rate)


def _with_steps(setup: ExampleSetup, steps: int, *, unit_rate: float) -> ExampleSetup:
    plan = dataclasses.replace(setup.plan, local_steps=steps, unit_rate=unit_rate)
    return dataclasses.replace(setup, plan=plan, training=dataclasses.replace(setup.training, local_steps=steps))


def _one_easy_step(setup: ExampleSetup) -> ExampleSetup:
    """One step with a low threshold: with the usual one a small table has hardly a row whose noise could be seen."""
    plan = dataclasses.replace(setup.plan, selection_threshold=min(setup.plan.selection_threshold, _EASY_THRESHOLD))
    return _with_steps(dataclasses.replace(setup, plan=plan), 1, unit_rate=plan.unit_rate)


def _trained(setup: ExampleSetup, family: Any, units: Units, source: Any) -> UpdateBatch:
    return dpsgd.train_example_mode(
        family,
        setup.parameters,
        units,
        setup.domain,
        setup.options,
        plan=setup.plan,
        training=setup.training,
        source=source,
    )


def _arrays(setup: ExampleSetup, update: UpdateBatch) -> dict[str, NDArray[np.float64]]:
    """Every array of an update, tables with all their rows."""
    found = {name: array[0].astype(np.float64) for name, array in update.dense.items()}
    for spec in _specs(setup):
        if spec.is_table:
            found[spec.name] = np.zeros(spec.shape)
            found[spec.name][update.rows[spec.name].ids] = update.rows[spec.name].values
    return found


def _residuals(setup: ExampleSetup, muted: Scaled, source: Any) -> dict[str, NDArray[np.float64]]:
    """The update of a client whose gradients are zero, in units of the stddev of all steps' noise."""
    stddev = setup.lr_over_batch * setup.plan.noise_stddev * math.sqrt(setup.plan.local_steps)
    return {n: array / stddev for n, array in _arrays(setup, _trained(setup, muted, setup.units, source)).items()}


def _groups(spec: ParameterSpec, values: NDArray[np.float64], read: set[int]) -> dict[str, NDArray[np.float64]]:
    if not spec.is_table:
        return {spec.name: values}
    inside = np.isin(np.arange(len(values)), sorted(read))
    parts = {f"{spec.name}, rows that are read": values[inside], f"{spec.name}, other rows": values[~inside]}
    return {name: part for name, part in parts.items() if part.size}


def _specs(setup: ExampleSetup) -> tuple[ParameterSpec, ...]:
    rows = 0 if setup.domain is None else len(setup.domain)
    return setup.family.specs(setup.options, rows)  # type: ignore[no-any-return]


def _rounding(setup: ExampleSetup, made: Mapping[str, NDArray[np.float64]]) -> float:
    """Updates are rounded to a public grid."""
    return 2.0**-GRID_BITS * setup.plan.noise_stddev * math.sqrt(sum(a.size for a in made.values()))
