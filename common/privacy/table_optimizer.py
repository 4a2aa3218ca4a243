"""Opacus' optimizer for modules with private tables: joint clipping over tables and dense layers, our own noise.

Dense layers keep Opacus' per-example gradients (``grad_sample``). What differs from ``opacus.optimizers.DPOptimizer``:
units may hold several examples; tables cost the rows touched; noise comes from a cryptographic stream; sums are taken
in float64; the divisor is the public constant given, never ``int(n * rate)``; a unit with a gradient that is not
finite counts for zero instead of spoiling the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from opacus.optimizers import DPOptimizer
from torch.optim import Optimizer

from common.errors import PrivacyConfigError
from common.privacy.rng import NoiseSource
from common.privacy.selection import unit_votes
from common.privacy.table_gradients import (
    RowSums,
    TableGradients,
    merged_sums,
    row_sums,
    squared_norms,
    table_gradients,
)
from common.privacy.tables import PrivateTable
from common.privacy.unit_clipping import UnitClip, weighted_sum
from common.privacy.unit_sampling import Piece
from common.table import IntArray


class RowNoise(Protocol):
    """What happens to the rows of a table: ``LazyTable`` noises all of them, ``SelectedTable`` those it selects."""

    def read(self, rows: torch.Tensor) -> torch.Tensor: ...

    def step(self, sums: RowSums | None, *, scale: float, stddev: float) -> None: ...

    def flush(self) -> None: ...

    def changed(self) -> tuple[IntArray, torch.Tensor]: ...


@dataclass(frozen=True)
class TableWork:
    """A table of the module, and what guards its rows."""

    table: PrivateTable
    rows: RowNoise


@dataclass(frozen=True)
class NoiseScale:
    """Noise of one step, in units of the clip's sensitivity.

    Attributes:
        accounted: the multiplier of all that one step releases together: values, votes and counts.
        values: that of the clipped sums alone.
        vote_norm: C_1, where rows are selected.
    """

    accounted: float
    values: float
    vote_norm: float | None = None


def layer_names(tables: Iterable[str], dense: Sequence[torch.Tensor]) -> list[str]:
    """Names of tables and dense parameters, in the order of per-layer bounds."""
    return [*tables, *(f"parameter {k}" for k in range(len(dense)))]


class TableDPOptimizer(DPOptimizer):  # type: ignore[misc]
    """Steps a module with private tables; use it as any optimizer, and ``flush`` before the tables leave.

    Args:
        optimizer: plain SGD where rows are noised lazily; its learning rate serves the tables too.
        tables: name in the module -> table and guard.
        clip: bounds a unit's contribution.
        noise: see ``NoiseScale``.
        expected_batch_size: the public divisor.
        loss_reduction: whether the loss is the ``mean`` or the ``sum`` over the examples of a batch.
        source: secret randomness of dense noise and counts.
        sampled: whether a sampler announces every batch by ``begin``; steps on other batches are then refused.
    """

    def __init__(  # exception: what Opacus' own optimizers take, and what the tables need
        self,
        optimizer: Optimizer,
        *,
        tables: Mapping[str, TableWork],
        clip: UnitClip,
        noise: NoiseScale,
        expected_batch_size: float,
        loss_reduction: str,
        source: NoiseSource,
        sampled: bool = False,
    ) -> None:
        self.clip = clip
        self._noise = noise
        super().__init__(
            optimizer,
            noise_multiplier=noise.accounted,
            max_grad_norm=clip.sensitivity,
            expected_batch_size=expected_batch_size,  # type: ignore[arg-type]
            loss_reduction=loss_reduction,
        )
        self.tables = dict(tables)
        self._source = source
        self._sampled = sampled
        self._piece: Piece | None = None
        self._sums: dict[str, list[RowSums]] = {name: [] for name in self.tables}

    def begin(self, piece: Piece) -> None:
        """Hear which units the next batch holds.

        Raises:
            PrivacyConfigError: the batch before it was not stepped: one read ahead would be taken for other units.
        """
        if self._piece is not None:
            raise PrivacyConfigError(
                "a batch was drawn before the one before it was stepped",
                remedy="Step once for every batch, and read none ahead: no workers, no prefetching wrapper.",
            )
        if piece.first:
            self.abandon()
        self._piece = piece
        self._step_skip_queue = [not piece.last]

    def abandon(self) -> None:
        """Forget a logical batch that gets no step: a unit may be drawn again, and one step's noise covers it once."""
        self._piece = None
        self.clip.abandon()
        for work in self.tables.values():
            work.table.lookups.clear()
        for parts in self._sums.values():
            parts.clear()
        for parameter in self.params:
            parameter.summed_grad = parameter.grad_sample = None

    @property
    def noise_multiplier(self) -> float:
        """What one step is accounted with; fixed, for the tables' noise was made for it."""
        return self._noise.accounted

    @noise_multiplier.setter
    def noise_multiplier(self, value: float) -> None:
        if value != self._noise.accounted:
            raise PrivacyConfigError("the noise is fixed by make_private; noise schedulers are not supported")

    @property
    def max_grad_norm(self) -> float:
        """The bound on a unit's contribution, as the clip has it."""
        return self.clip.sensitivity

    @max_grad_norm.setter
    def max_grad_norm(self, value: float) -> None:
        if value != self.clip.sensitivity:
            raise PrivacyConfigError("the clip is fixed by make_private; use AdaptiveClip for one that moves")

    @property
    def layers(self) -> list[str]:
        """Names of tables and dense parameters, in the order of per-layer bounds."""
        return layer_names(self.tables, self.params)

    @property
    def accumulated_iterations(self) -> int:
        """One: the pieces of a logical batch are one sample, and two backward passes without a step are refused."""
        return 1

    def pre_step(self, closure: Any = None) -> bool:
        """Clip and sum; on the last piece of a logical batch also noise, divide and step the tables."""
        self._accumulate()
        if self._check_skip_next_step():
            self._is_last_step_skipped = True
            return False
        stddev = self._noise.values * self.clip.sensitivity
        self._step_dense(stddev)
        self._step_tables(stddev)
        if self.step_hook:
            self.step_hook(self)
        self.clip.after_step(self._source)
        self._is_last_step_skipped = False
        return True

    def _accumulate(self) -> None:
        piece, self._piece = self._piece, None
        if piece is None and self._sampled:
            raise PrivacyConfigError(
                "a step on a batch that the private loader did not draw: its units are unknown and not accounted",
                remedy="Step once for every batch of the loader that make_private returned.",
            )
        unit_of = None if piece is None else torch.from_numpy(piece.units).to(self._device())
        examples = self._examples() if piece is None else len(piece.examples)
        units = examples if piece is None else piece.count
        scale = float(examples) if self.loss_reduction == "mean" else 1.0
        found = {n: table_gradients(w.table.lookups, unit_of, units, scale=scale) for n, w in self.tables.items()}
        dense = {
            name: self._unit_gradients(p, unit_of, units)
            for name, p in zip(layer_names((), self.params), self.params, strict=True)
        }
        for name, work in self.tables.items():
            work.table.lookups.clear()
            if work.table.weight.grad is not None:
                raise PrivacyConfigError(f"{name} is used outside its layer: read rows through the table alone")
        for parameter in self.params:
            parameter.grad_sample = None  # a second step on the same gradients would count them twice
        if units:
            self._add_clipped({n: g for n, g in found.items() if g is not None}, dense, units)

    def _add_clipped(self, found: Mapping[str, TableGradients], dense: Mapping[str, torch.Tensor], units: int) -> None:
        nothing = torch.zeros(units, dtype=torch.float64, device=self._device())
        squares = dict.fromkeys(self.layers, nothing)
        squares |= {name: squared_norms(gradients, units) for name, gradients in found.items()}
        squares |= {n: torch.linalg.vector_norm(g, dim=1, dtype=torch.float64).square() for n, g in dense.items()}
        factors = self.clip.factors(squares)
        votes = None if self._noise.vote_norm is None else unit_votes(found.values(), units, self._noise.vote_norm)
        for name, gradients in found.items():
            sums = row_sums(gradients, factors[name], votes)
            self._sums[name].append(sums.held() if self._check_skip_next_step(pop_next=False) else sums)
        for (name, gradient), parameter in zip(dense.items(), self.params, strict=True):
            total = weighted_sum(gradient, factors[name]).view_as(parameter)
            parameter.summed_grad = total if parameter.summed_grad is None else parameter.summed_grad + total

    def _unit_gradients(self, parameter: Any, unit_of: torch.Tensor | None, units: int) -> torch.Tensor:
        """Gradients of ``parameter`` by unit, shape (units, numel); zeros where it had no part in the loss."""
        sample = getattr(parameter, "grad_sample", None)
        if sample is None:
            if parameter.grad is not None and bool((parameter.grad != 0).any()):
                raise PrivacyConfigError(
                    "a parameter has a gradient but none for each example: it is used outside its layer"
                )
            return torch.zeros(units, parameter.numel(), device=parameter.device)
        if isinstance(sample, list):
            raise PrivacyConfigError("two backward passes without a step: call optimizer.step() after each")
        flat = sample.reshape(len(sample), parameter.numel())
        if len(flat) != (units if unit_of is None else len(unit_of)):
            raise PrivacyConfigError(f"a layer saw {len(flat)} examples, the batch has another number")
        if unit_of is None:
            return flat
        return torch.zeros(units, flat.shape[1], device=flat.device).index_add_(0, unit_of, flat)

    def _examples(self) -> int:
        counts = {len(p.grad_sample) for p in self.params if isinstance(getattr(p, "grad_sample", None), torch.Tensor)}
        counts |= {lookup.count for work in self.tables.values() for lookup in work.table.lookups}
        if len(counts) > 1:
            raise PrivacyConfigError(f"layers and tables disagree on the number of examples: {sorted(counts)}")
        return counts.pop() if counts else 0

    def _step_dense(self, stddev: float) -> None:
        for parameter in self.params:
            noise = torch.from_numpy(self._source.normal(tuple(parameter.shape), stddev)).to(parameter.device)
            total = noise.double() if parameter.summed_grad is None else parameter.summed_grad + noise
            parameter.grad = (total / self._divisor).to(parameter.dtype)
            parameter.summed_grad = None

    def _step_tables(self, stddev: float) -> None:
        for name, work in self.tables.items():
            stepped = merged_sums(self._sums[name])
            work.rows.step(stepped, scale=self._lr() / self._divisor, stddev=stddev)
            self._sums[name].clear()

    def _lr(self) -> float:
        rates = {float(group["lr"]) for group in self.param_groups}
        if len(rates) > 1:
            raise PrivacyConfigError("all parameter groups need one learning rate: the tables' is read from them")
        return rates.pop()

    @property
    def _divisor(self) -> float:
        return float(self.expected_batch_size or 1.0) if self.loss_reduction == "mean" else 1.0

    def _device(self) -> torch.device:
        if self.tables:
            return next(iter(self.tables.values())).table.weight.device
        return self.params[0].device

    def flush(self) -> None:
        """Pay every row the noise that it is owed: to be called before tables leave, in whatever form."""
        for work in self.tables.values():
            work.rows.flush()
