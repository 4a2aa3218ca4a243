"""Per-unit gradients of a torch module: through Opacus for dense layers, through looked-up rows for tables.

A table's gradient has one non-zero row a lookup, so Opacus' (B, V, D) gradient sample is nearly all zeros. Here each
``nn.Embedding`` becomes a ``PrivateTable``; everything else (and every module that is not a plain ``nn.Embedding``)
goes through Opacus' gradient hooks.

Opacus' own optimizer is not used: it draws noise from torch's global generator, divides by the number of accumulated
micro-batches, and lets one NaN gradient spoil the sum.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from opacus.grad_sample import GradSampleModule
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from opacus.validators import ModuleValidator
from torch import nn

from common.compact import holds_rows
from common.errors import PrivacyConfigError
from common.privacy.selection import unit_votes
from common.privacy.table_gradients import (
    RowSums,
    clip_factors,
    row_sums,
    squared_norms,
    table_gradients,
)
from common.privacy.tables import PrivateTable, layer_faults
from common.privacy.unit_clipping import weighted_sum

Batch = Mapping[str, torch.Tensor]
Loss = Callable[[nn.Module, Batch], torch.Tensor]

MAX_GRADIENT_BYTES = 256 * 2**20


def check_module(module: nn.Module) -> None:
    """Refuse modules whose per-unit gradients are undefined or wrong.

    Raises:
        PrivacyConfigError: a layer couples units (batch norm, ``scale_grad_by_freq``), rewrites its weights in the
            forward pass (``max_norm``), or has no exact per-unit gradient (``EmbeddingBag``, sparse, tied weights).
    """
    reasons = [str(error) for error in ModuleValidator.validate(module, strict=False)]
    reasons += [str(error) for error in GradSampleModule.validate(module, strict=False)]
    for name, layer in module.named_modules():
        reasons += [f"{name or 'the module'}: {reason}" for reason in _embedding_faults(layer)]
    distinct = {id(p) for p in module.parameters()}
    if len(list(module.named_parameters(remove_duplicate=False))) != len(distinct):
        reasons.append("two layers share one weight")
    if reasons:
        raise PrivacyConfigError(
            "this module has no per-unit gradient that could be clipped: " + "; ".join(reasons),
            remedy="Use group norm, plain nn.Embedding layers and untied weights, or another privacy mode.",
        )


def _embedding_faults(layer: nn.Module) -> Iterator[str]:
    if isinstance(layer, nn.EmbeddingBag):
        yield "EmbeddingBag drops repeated rows from the per-unit gradient"
    if isinstance(layer, nn.Embedding):
        yield from layer_faults(layer)
        if layer.padding_idx is not None:
            yield "padding_idx names a row, and rows are renumbered; mask padding in the loss"


@dataclass(frozen=True)
class ClippedSums:
    """Sums over units of clipped gradients: of the rows touched, and of whole dense parameters (float64)."""

    rows: Mapping[str, RowSums]
    dense: Mapping[str, torch.Tensor]


class UnitGradients:
    """Clipped sums of the per-unit gradients of one module, whose embedding layers become private tables.

    With ``votes``, sums of rows carry the units' votes for them, of norm 1 a unit. ``gather=False`` leaves the tables
    to Opacus: slower by the share of rows a unit does not touch, and equal up to rounding.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        gather: bool = True,
        votes: bool = False,
        max_gradient_bytes: int = MAX_GRADIENT_BYTES,
    ) -> None:
        module.train()
        check_module(module)
        self.module = module
        self.max_gradient_bytes = max_gradient_bytes
        self._votes = votes
        self.tables: dict[str, PrivateTable] = {}
        for name, layer in (_gatherable(module) if gather else {}).items():
            parent, _, child = name.rpartition(".")
            table = PrivateTable.like(layer)
            table.reader = _reader(table)
            setattr(module.get_submodule(parent), child, table)
            self.tables[f"{name}.weight"] = table
        self._hooks = GradSampleHooks(module, loss_reduction="sum", strict=True)
        for table in self.tables.values():
            table.weight.requires_grad_(True)  # a use outside the layer must show up as a gradient

    def clipped_sum(self, loss: Loss, batch: Batch, l2_clip_norm: float) -> dict[str, torch.Tensor]:
        """As ``clipped``, every parameter in its full shape."""
        parts = list(self.clipped(loss, batch, l2_clip_norm))
        total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in self.module.named_parameters()}
        for part in parts:
            for name, sums in part.rows.items():
                total[name].index_add_(0, sums.rows, sums.dense())
            for name, value in part.dense.items():
                total[name] += value
        return total

    def clipped(self, loss: Loss, batch: Batch, l2_clip_norm: float) -> Iterator[ClippedSums]:
        """Sums over units of the gradient scaled by ``min(1, l2_clip_norm / norm)``, piece by piece of the batch.

        The norm is joint over all parameters, with repeated rows summed first (Abadi et al. 2016, Algorithm 1). A unit
        with a non-finite gradient contributes zero. Pieces fit in memory; their sum is that of the whole batch.

        Raises:
            PrivacyConfigError: the loss is not one number a unit, or a parameter escapes the per-unit gradient.
        """
        count = _batch_size(batch)
        step = self._piece(batch, count)
        for start in range(0, count, step):
            piece = {key: tensor[start : start + step] for key, tensor in batch.items()}
            size = min(step, count - start)
            self._backward(loss, piece, size)
            found = self._clipped_piece(size, l2_clip_norm)
            # The gradients of a piece are let go before the next one's are computed.
            yield found if size == count else ClippedSums({n: s.held() for n, s in found.rows.items()}, found.dense)

    def _clipped_piece(self, size: int, l2_clip_norm: float) -> ClippedSums:
        found = {name: table_gradients(table.lookups, None, size) for name, table in self.tables.items()}
        dense = dict(self._dense(size))
        squares = torch.zeros(size, dtype=torch.float64, device=next(self.module.parameters()).device)
        for gradients in found.values():
            squares += 0.0 if gradients is None else squared_norms(gradients, size)
        for sample in dense.values():
            squares += torch.linalg.vector_norm(sample, dim=1, dtype=torch.float64).square()
        factors = clip_factors(squares, l2_clip_norm)
        used = {name: g for name, g in found.items() if g is not None}
        votes = unit_votes(used.values(), size, 1.0) if self._votes else None
        rows = {name: row_sums(g, factors, votes) for name, g in used.items()}
        shapes = {name: p.shape for name, p in self.module.named_parameters()}
        return ClippedSums(rows, {n: weighted_sum(g, factors).reshape(shapes[n]) for n, g in dense.items()})

    def _piece(self, batch: Batch, count: int) -> int:
        named = dict(self.module.named_parameters())
        floats = sum(p.numel() for name, p in named.items() if name not in self.tables)
        width = max((named[name].shape[1] for name in self.tables), default=0)
        floats += width * sum(math.prod(tensor.shape[1:]) for key, tensor in batch.items() if holds_rows(key))
        return max(1, min(count, self.max_gradient_bytes // (4 * max(1, floats))))

    def _backward(self, loss: Loss, piece: Batch, size: int) -> None:
        self._clear()
        losses = loss(self.module, piece)
        if losses.shape != (size,):
            raise PrivacyConfigError(f"the loss of {size} units has shape {tuple(losses.shape)}, not ({size},)")
        if not losses.requires_grad:
            return
        with warnings.catch_warnings():
            # Opacus' hook on a first layer, whose input needs no gradient, works as intended and still warns.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            losses.sum().backward()  # type: ignore[no-untyped-call]

    def _clear(self) -> None:
        for table in self.tables.values():
            table.lookups.clear()
        for parameter in self.module.parameters():
            parameter.grad = None
            parameter.grad_sample = None  # type: ignore[attr-defined]
        for layer in self.module.modules():
            if hasattr(layer, "activations"):
                del layer.activations  # a call that did not reach the loss would be paired with the next backward pass

    def _dense(self, size: int) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in self.module.named_parameters():
            if name in self.tables:
                if parameter.grad is not None:
                    raise PrivacyConfigError(f"{name} is used outside its embedding layer")
            elif parameter.grad is not None:
                yield name, _dense_gradients(name, parameter, size)


def _reader(table: PrivateTable) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda rows: table.weight.detach().index_select(0, rows)


def _gatherable(module: nn.Module) -> dict[str, nn.Embedding]:
    """Plain embeddings, except inside a layer that Opacus differentiates as a whole."""
    whole = [
        layer
        for layer in module.modules()
        if any(True for _ in layer.parameters(recurse=False)) and type(layer) not in GradSampleHooks.GRAD_SAMPLERS
    ]
    inside = {id(inner) for layer in whole for inner in layer.modules()}
    found = {name: layer for name, layer in module.named_modules() if type(layer) is nn.Embedding}
    return {name: layer for name, layer in found.items() if id(layer) not in inside}


def _batch_size(batch: Batch) -> int:
    sizes = {len(tensor) for tensor in batch.values()}
    if len(sizes) != 1:
        raise PrivacyConfigError("the tensors of a batch differ in their first axis, which must count the units")
    return sizes.pop()


def _dense_gradients(name: str, parameter: torch.Tensor, size: int) -> torch.Tensor:
    """Gradient of each unit, shape (units, numel)."""
    sample = getattr(parameter, "grad_sample", None)
    if not isinstance(sample, torch.Tensor) or len(sample) != size:
        raise PrivacyConfigError(
            f"{name} has a gradient but not one gradient a unit: it is used outside its layer, or the layer's input "
            "has another first axis than the units"
        )
    return sample.reshape(size, -1)
