"""An embedding table whose gradient exists for the looked-up rows alone: no array of a step has V rows.

A lookup reads each distinct row once (through ``reader``, which first settles whatever noise the row is owed), and
hands the module its output as a leaf of autograd. One backward pass then leaves the gradient of every output, from
which the gradient of every single lookup follows, and exact per-unit norms, repeated rows and all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from common.errors import PrivacyConfigError

BAGS = ("sum", "mean")


@dataclass(frozen=True)
class Lookup:
    """One call of a table.

    Entry j read row ``touched[place[j]]`` and entered row ``source[j]`` of ``output`` with the weight ``weights[j]``:
    its gradient is ``weights[j] * output.grad[source[j]]``. Entries are ordered by row, then source.

    Attributes:
        touched: shape (R,), int64: distinct rows in ascending order.
        place: shape (N,), int64.
        source: shape (N,), int64; ``output`` has S rows, as many for every place of the batch's first axis.
        weights: shape (N,), float32; ``None`` where all are 1. The padding row weighs 0.
        output: shape (S, D), a leaf of autograd: rows, or bags of rows.
        count: length of the batch's first axis.
    """

    touched: torch.Tensor
    place: torch.Tensor
    source: torch.Tensor
    weights: torch.Tensor | None
    output: torch.Tensor
    count: int


class PrivateTable(nn.Module):
    """A (V, D) table for private training: single rows, or bags of rows (summed or averaged).

    ``weight`` takes no part in autograd: only a private optimizer changes it. Without one it is an ordinary frozen
    table.

    Args:
        rows: V.
        dimension: D.
        bag: ``"sum"`` or ``"mean"``: the last axis of the row numbers, or a flat list with offsets, is one bag each;
            ``None`` returns every row looked up.
        padding_row: a row that is read like any other, gets neither gradient nor noise, and counts in no mean.
    """

    def __init__(
        self,
        rows: int,
        dimension: int,
        *,
        bag: str | None = None,
        padding_row: int | None = None,
        weight: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        if rows < 1 or dimension < 1:
            raise PrivacyConfigError(f"a table has at least one row and one column, not {rows} x {dimension}")
        if bag is not None and bag not in BAGS:
            raise PrivacyConfigError(f"a bag is summed or averaged, not {bag!r}", remedy="Choose 'sum' or 'mean'.")
        if padding_row is not None and not 0 <= padding_row < rows:
            raise PrivacyConfigError(f"the padding row must lie in [0, {rows}), not {padding_row}")
        values = torch.empty(rows, dimension).normal_() if weight is None else weight
        if values.shape != (rows, dimension) or values.dtype != torch.float32:
            raise PrivacyConfigError(f"the weight must be float32 of shape ({rows}, {dimension})")
        self.weight = nn.Parameter(values, requires_grad=False)
        self.bag = bag
        self.padding_row = padding_row
        self.reader: Callable[[torch.Tensor], torch.Tensor] | None = None
        self.lookups: list[Lookup] = []

    @classmethod
    def like(cls, layer: nn.Embedding | nn.EmbeddingBag) -> PrivateTable:
        """A private table over the same weight as ``layer``.

        Raises:
            PrivacyConfigError: the layer has ``max_norm`` (rewrites rows outside the noise), ``scale_grad_by_freq``
                (couples the units of a batch), ``mode='max'``, or ``sparse`` gradients.
        """
        if faults := layer_faults(layer):
            raise PrivacyConfigError(
                "; ".join(faults),
                remedy="Set max_norm=None, scale_grad_by_freq=False, sparse=False, and mode 'sum' or 'mean'.",
            )
        rows, dimension = layer.weight.shape
        bag = layer.mode if isinstance(layer, nn.EmbeddingBag) else None
        return cls(rows, dimension, bag=bag, padding_row=layer.padding_idx, weight=layer.weight.detach())

    def forward(
        self,
        rows: torch.Tensor,
        offsets: torch.Tensor | None = None,
        per_sample_weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Look rows up.

        Args:
            rows: int64 row numbers, shape (B, ...); with ``offsets``, shape (N,).
            offsets: shape (B,): bag b holds ``rows[offsets[b]:offsets[b + 1]]``.
            per_sample_weights: as ``rows``; only for summed bags.

        Returns:
            (B, ..., D); for bags one row a bag: (B, ..., D) without the last axis of ``rows``, or (B, D) with offsets.

        Raises:
            PrivacyConfigError: row numbers out of range or of another type; offsets or weights that do not fit.
        """
        self._check(rows, offsets, per_sample_weights)
        flat = rows.reshape(-1)
        ordered, order = torch.sort(flat, stable=True)
        touched, ordered_place = torch.unique_consecutive(ordered, return_inverse=True)
        place = torch.empty_like(order).index_copy_(0, order, ordered_place)
        if len(touched) and not 0 <= int(touched[0]) <= int(touched[-1]) < len(self.weight):
            raise PrivacyConfigError(f"row numbers must lie in [0, {len(self.weight)})")
        compact = self.weight[touched] if self.reader is None else self.reader(touched)
        kept = None if self.padding_row is None else flat != self.padding_row
        if self.bag is None:
            shape = tuple(rows.shape)
            source, weights = torch.arange(len(flat), device=flat.device), None if kept is None else kept.float()
            output = compact.index_select(0, place)
        else:
            shape = (len(offsets),) if offsets is not None else tuple(rows.shape[:-1])
            starts = offsets if offsets is not None else _even(math.prod(shape), rows.shape[-1], rows.device)
            source = torch.searchsorted(starts, torch.arange(len(flat), device=flat.device), right=True) - 1
            weights = self._weights(per_sample_weights, kept, source, len(starts))
            output = functional.embedding_bag(place, compact, starts, mode="sum", per_sample_weights=weights)
        if self.reader is not None and self.training and torch.is_grad_enabled():
            weights = None if weights is None else weights[order]
            output.requires_grad_(True)
            self.lookups.append(Lookup(touched, ordered_place, source[order], weights, output, shape[0]))
        return output.reshape(*shape, self.weight.shape[1])

    def _check(self, rows: torch.Tensor, offsets: torch.Tensor | None, per_sample_weights: torch.Tensor | None) -> None:
        if rows.dtype != torch.int64 or rows.dim() == 0:
            raise PrivacyConfigError("row numbers are an int64 tensor whose first axis counts the units")
        if offsets is not None and (self.bag is None or rows.dim() != 1 or offsets.dim() != 1):
            raise PrivacyConfigError("offsets go with bags and a flat list of row numbers")
        if offsets is None and self.bag is not None and rows.dim() < 2:
            raise PrivacyConfigError("bags need offsets or a last axis of row numbers")
        if per_sample_weights is not None and (self.bag != "sum" or per_sample_weights.shape != rows.shape):
            raise PrivacyConfigError("per_sample_weights go with summed bags, one for every row number")

    def _weights(
        self, given: torch.Tensor | None, kept: torch.Tensor | None, bag: torch.Tensor, bags: int
    ) -> torch.Tensor | None:
        """Weight of every lookup in its bag; ``None`` where all are 1."""
        weights = None if given is None else given.detach().reshape(-1).float()
        if kept is not None:
            weights = kept.float() if weights is None else torch.where(kept, weights, torch.zeros_like(weights))
        if self.bag == "mean":
            ones = torch.ones(len(bag), device=bag.device) if kept is None else kept.float()
            sizes = torch.zeros(bags, device=bag.device).index_add_(0, bag, ones)
            weights = ones / sizes.clamp(min=1.0)[bag]
        return weights


def _even(bags: int, size: int, device: torch.device) -> torch.Tensor:
    return torch.arange(bags, device=device) * size


def layer_faults(layer: nn.Embedding | nn.EmbeddingBag) -> list[str]:
    """Why a layer has no exact per-unit gradient; empty where it has."""
    faults = {
        "max_norm rewrites the touched rows outside the noise": layer.max_norm is not None,
        "scale_grad_by_freq couples the units of a batch": layer.scale_grad_by_freq,
        "sparse gradients cannot be clipped per unit": layer.sparse,
        "the maximum of a bag has no per-row gradient here": getattr(layer, "mode", "sum") == "max",
    }
    return [reason for reason, found in faults.items() if found]


def replace_embeddings(module: nn.Module) -> None:
    """Put a ``PrivateTable`` in the place of every ``nn.Embedding`` and ``nn.EmbeddingBag``, over the same weights.

    Raises:
        PrivacyConfigError: the module itself is an embedding, two layers share one weight, or a layer has no exact
            per-unit gradient.
    """
    found = [(parent, name, layer) for parent in module.modules() for name, layer in parent.named_children()]
    found = [e for e in found if isinstance(e[2], (nn.Embedding, nn.EmbeddingBag)) and e[2].weight.requires_grad]
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        raise PrivacyConfigError("put the embedding layer inside a module: it is replaced there")
    counts = [p for _, p in module.named_parameters(remove_duplicate=False)]
    if len(counts) != len({p.data_ptr() for p in counts if p.numel()}) + sum(not p.numel() for p in counts):
        raise PrivacyConfigError("two layers share one weight", remedy="Use one layer twice in a step instead.")
    for parent, name, layer in found:
        setattr(parent, name, PrivateTable.like(layer))  # type: ignore[arg-type]
