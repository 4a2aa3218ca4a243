"""Per-unit gradients of a torch module: through Opacus for dense layers, through looked-up rows for tables.

A table's gradient has one non-zero row a lookup, so Opacus' (B, V, D) gradient sample is nearly all zeros. Here each
``nn.Embedding`` returns its looked-up rows as autograd leaves: one backward pass leaves the gradient of every single
lookup, and lookups of one row by one unit are summed before any norm is taken. Everything else (and every module that
is not a plain ``nn.Embedding``) goes through Opacus' gradient hooks.

Opacus' own optimizer is not used: it draws noise from torch's global generator, divides by the number of accumulated
micro-batches, and lets one NaN gradient spoil the sum.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from opacus.grad_sample import GradSampleModule
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from opacus.validators import ModuleValidator
from torch import nn

from common.compact import holds_rows
from common.errors import PrivacyConfigError

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
        if layer.max_norm is not None:
            yield "max_norm rewrites the touched rows outside the noise"
        if layer.scale_grad_by_freq:
            yield "scale_grad_by_freq couples the units of a batch"
        if layer.sparse:
            yield "sparse gradients cannot be clipped per unit"
        if layer.padding_idx is not None:
            yield "padding_idx names a row, and rows are renumbered; mask padding in the loss"


@dataclass(frozen=True)
class _Lookup:
    rows: torch.Tensor  # (B, ...) int64
    values: torch.Tensor  # (B, ..., D), an autograd leaf


@dataclass(frozen=True)
class _Entries:
    """Gradient entries of one parameter: entry j belongs to unit ``owners[j]`` and is added at ``places[j]``."""

    owners: torch.Tensor
    places: torch.Tensor
    values: torch.Tensor


class UnitGradients:
    """Clipped sums of the per-unit gradients of one module.

    ``module`` stays usable as before; its parameters may be changed between calls. ``gather=False`` sends the tables
    through Opacus as well: slower by the share of rows a unit does not touch, and equal up to rounding.
    """

    def __init__(self, module: nn.Module, *, gather: bool = True, max_gradient_bytes: int = MAX_GRADIENT_BYTES) -> None:
        module.train()
        check_module(module)
        self.module = module
        self.max_gradient_bytes = max_gradient_bytes
        self._lookups: dict[str, list[_Lookup]] = {}
        gathered = _gatherable(module) if gather else {}
        for layer in gathered.values():
            layer.weight.requires_grad_(False)  # Opacus leaves frozen layers alone
        self._hooks = GradSampleHooks(module, loss_reduction="sum", strict=True)
        for name, layer in gathered.items():
            layer.weight.requires_grad_(True)  # a use outside the layer must show up as a gradient
            self._lookups[f"{name}.weight".lstrip(".")] = []
            layer.register_forward_hook(self._capture(f"{name}.weight".lstrip(".")))

    def _capture(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], torch.Tensor], torch.Tensor]:
        def hook(_layer: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
            leaf = output.detach().requires_grad_(True)
            self._lookups[name].append(_Lookup(inputs[0], leaf))
            return leaf

        return hook

    def clipped_sum(self, loss: Loss, batch: Batch, l2_clip_norm: float) -> dict[str, torch.Tensor]:
        """Sum over units of the gradient scaled by ``min(1, l2_clip_norm / norm)``; float64, shapes of the parameters.

        The norm is joint over all parameters, with repeated rows summed first (Abadi et al. 2016, Algorithm 1). A unit
        with a non-finite gradient contributes zero. The batch is worked through in pieces that fit in memory; the
        result is that of the whole batch.

        Raises:
            PrivacyConfigError: the loss is not one number a unit, or a parameter escapes the per-unit gradient.
        """
        total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in self.module.named_parameters()}
        count = _batch_size(batch)
        step = self._piece(batch, count)
        for start in range(0, count, step):
            piece = {key: tensor[start : start + step] for key, tensor in batch.items()}
            size = min(step, count - start)
            self._backward(loss, piece, size)
            _add_clipped(total, dict(self._entries(size)), units=size, l2_clip_norm=l2_clip_norm)
        return total

    def _piece(self, batch: Batch, count: int) -> int:
        named = dict(self.module.named_parameters())
        floats = sum(p.numel() for name, p in named.items() if name not in self._lookups)
        width = max((named[name].shape[1] for name in self._lookups), default=0)
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
        for found in self._lookups.values():
            found.clear()
        for parameter in self.module.parameters():
            parameter.grad = None
            parameter.grad_sample = None  # type: ignore[attr-defined]
        for layer in self.module.modules():
            if hasattr(layer, "activations"):
                del layer.activations  # a call that did not reach the loss would be paired with the next backward pass

    def _entries(self, size: int) -> Iterator[tuple[str, _Entries]]:
        for name, parameter in self.module.named_parameters():
            if name in self._lookups:
                if parameter.grad is not None:
                    raise PrivacyConfigError(f"{name} is used outside its embedding layer")
                yield name, _table_entries(self._lookups[name], parameter, size)
            elif parameter.grad is not None:
                yield name, _dense_entries(name, parameter, size)


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


def _table_entries(lookups: list[_Lookup], weight: torch.Tensor, size: int) -> _Entries:
    rows, dimensions = weight.shape
    keys, values = [torch.zeros(0, dtype=torch.int64, device=weight.device)], [weight.new_zeros((0, dimensions))]
    for lookup in lookups:
        if lookup.values.grad is None:
            continue
        if len(lookup.rows) != size:
            raise PrivacyConfigError("the first axis of a lookup does not count the units: keep it apart from the rest")
        each = math.prod(lookup.rows.shape[1:])
        owners = torch.arange(size, device=weight.device).repeat_interleave(each)
        keys.append(owners * rows + lookup.rows.reshape(-1))
        values.append(lookup.values.grad.reshape(-1, dimensions))
    unique, inverse = torch.unique(torch.cat(keys), return_inverse=True)
    summed = weight.new_zeros((len(unique), dimensions)).index_add_(0, inverse, torch.cat(values))
    return _Entries(owners=unique // rows, places=unique % rows, values=summed)


def _dense_entries(name: str, parameter: torch.Tensor, size: int) -> _Entries:
    sample = getattr(parameter, "grad_sample", None)
    if not isinstance(sample, torch.Tensor) or len(sample) != size:
        raise PrivacyConfigError(
            f"{name} has a gradient but not one gradient a unit: it is used outside its layer, or the layer's input "
            "has another first axis than the units"
        )
    owners = torch.arange(size, device=sample.device)
    return _Entries(owners=owners, places=torch.zeros_like(owners), values=sample.reshape(size, -1))


def _add_clipped(
    total: dict[str, torch.Tensor], entries: Mapping[str, _Entries], *, units: int, l2_clip_norm: float
) -> None:
    """Add each unit's entries, scaled to a joint norm of at most ``l2_clip_norm``, to ``total``."""
    if not entries:
        return
    device = next(iter(total.values())).device
    squares = torch.zeros(units, dtype=torch.float64, device=device)
    for found in entries.values():
        squares.index_add_(0, found.owners, found.values.double().square().sum(dim=1))
    finite = torch.isfinite(squares)
    factors = (l2_clip_norm / squares.sqrt().clamp(min=torch.finfo(torch.float64).tiny)).clamp(max=1.0)
    for name, found in entries.items():
        keep = finite[found.owners]
        scaled = found.values[keep].double() * factors[found.owners[keep]][:, None]
        target = total[name].view(-1, scaled.shape[1])
        target.index_add_(0, found.places[keep], scaled)
