"""Users and items by implicit alternating least squares: additive over users, so it can be made private well.

The item table Y (V, D) is shared; a user's vector x is personal: solved in closed form from Y and the user's items each
round, used, and thrown away. What a unit sends is what the server's half of the alternation needs, and no more:

* for every item i of the user, the row ``w [(1 + alpha) - alpha x.y_i] x`` and the weight ``w`` itself;
* the Gramian ``w x x^T``, its upper triangle packed so that the Euclidean norm is the Frobenius norm.

With G, c_i and r_i the sums of these, the residual of the normal equations of item i is exactly
``r_i - (G + mu I) y_i``. Exact equations would need a D x D matrix for every touched item; instead the server takes a
Newton-like step with ``P_i = (1 + alpha c_i / W) G + mu I`` in place of item i's matrix (W the total weight). Its fixed
points are those of exact ALS, because the residual is exact.

x has length 1 and ``w = n^(-1/2)`` for a user with n items: every user weighs alike, and all contributions have
nearly one norm whatever a user holds, so noise is spent evenly. A unit that holds many users is scaled down to that
norm as a whole: it counts as one.

Under noise the step is an empirical-Bayes one: item vectors are shrunk towards the popularity model
``y_i = c_i m`` by as much as the noise makes them uncertain. A run with too much noise ends as a noisy popularity
list and not as noise.

Sources: Hu, Koren and Volinsky (2008), equations 4 and 5; Chien, Jain, Krichene, Rendle, Song, Thakurta and Zhang,
"Private alternating least squares" (2021) for noise on the sufficient statistics; Efron and Morris (1973) for the
shrinkage.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.families import FamilyOptions
from common.families._interactions import encode_interactions, required, user_lists
from common.foldin import fold_in
from common.table import EmbeddingTable, FloatArray, IntArray, RowDomain
from common.units import Record, Units
from common.update import Parameters, ParameterSpec, UpdateBatch, coalesce, scaled, segment_sum, squared_norms

TABLE = "items"
GRAMIAN = "gramian"
_INITIAL_STDDEV = 0.01


class UserItemOptions(FamilyOptions):
    """``[task]`` of the implicit ALS family."""

    dimension: int = Field(32, ge=1, le=512, description="columns of the item table")
    alpha: float = Field(1.0, ge=0, description="extra confidence of an interaction over none")
    user_ridge: float = Field(0.1, gt=0, description="regularisation of a user's vector, relative to trace(Y^T Y) / D")
    item_ridge: float = Field(0.1, gt=0, description="regularisation of an item's vector, relative to trace(G) / D")
    count_scale: float = Field(0.5, gt=0, description="public scale of the popularity column in a contribution")
    max_items_per_user: int = Field(512, ge=1, description="items of one user beyond this many are left out (by hash)")


class UserItem:
    """``useritem``: see the module's text."""

    name = "useritem"
    Options = UserItemOptions
    records = "interactions"
    row_domain = "items"

    def specs(self, options: UserItemOptions, rows: int) -> tuple[ParameterSpec, ...]:
        """The item table (V, D)."""
        return (ParameterSpec(TABLE, (rows, options.dimension), self.row_domain),)

    def statistics_specs(self, options: UserItemOptions, rows: int) -> tuple[ParameterSpec, ...]:
        """Item rows with the popularity column last (V, D + 1), and the packed Gramian (D (D + 1) / 2,)."""
        d = options.dimension
        return (
            ParameterSpec(TABLE, (rows, d + 1), self.row_domain),
            ParameterSpec(GRAMIAN, (d * (d + 1) // 2,)),
        )

    def initial(
        self, options: UserItemOptions, specs: Sequence[ParameterSpec], domain: RowDomain | None, seed: int
    ) -> Parameters:
        """Small Gaussian item vectors."""
        values = np.random.default_rng(seed).standard_normal(specs[0].shape) * _INITIAL_STDDEV
        return {TABLE: values.astype(np.float32)}

    def encode(self, records: Iterable[Record], domain: RowDomain | None, options: UserItemOptions) -> Units:
        """Columns ``items`` and ``users`` (int64): distinct known items of a user inside a unit, in increasing order.

        ``users`` numbers the unit's users from 0. Weights and repeats of an interaction are not used.
        """
        return encode_interactions(records, domain, max_items_per_user=options.max_items_per_user)

    def contributions(self, parameters: Parameters, units: Units, options: UserItemOptions) -> UpdateBatch:
        """The scaled statistics of each unit (module text); a unit without known items contributes zeros."""
        table = parameters[TABLE]
        lists = user_lists(units, len(table))
        with np.errstate(all="ignore"):  # a table that overflowed gives NaN here, and clipping turns that into zeros
            x = _unit_length(fold_in(table, lists.offsets, lists.items, alpha=options.alpha, ridge=options.user_ridge))
            weight = (1.0 / np.sqrt(np.diff(lists.offsets))).astype(np.float32)
            dots = np.einsum("rd,rd->r", x[lists.owners], table[lists.items])
            fit = weight[lists.owners] * (1.0 - options.alpha / (1.0 + options.alpha) * dots)
            counts = options.count_scale * weight[lists.owners]
            values = np.hstack([fit[:, None] * x[lists.owners], counts[:, None]]).astype(np.float32)
            rows = coalesce(lists.units[lists.owners], lists.items, values, count=units.count, rows=len(table))
            dense = segment_sum(weight[:, None] * _packed(x), lists.units, units.count)
            batch = UpdateBatch(units.count, {TABLE: rows}, {GRAMIAN: dense})
            norms = np.sqrt(squared_norms(batch))
            return scaled(batch, np.where(norms > self.natural_clip(options), self.natural_clip(options) / norms, 1.0))

    def natural_clip(self, options: UserItemOptions) -> float:
        """The norm of a user's rows and popularity column in the first round; no contribution is larger."""
        return float(np.hypot(1.0, options.count_scale))

    def server_step(
        self,
        parameters: Parameters,
        noised_sum: Parameters,
        options: UserItemOptions,
        *,
        noise_stddev: float,
        final: bool,
    ) -> Parameters:
        """One preconditioned step of every item on its normal equations, shrunk by the noise (module text)."""
        d = options.dimension
        y = parameters[TABLE].astype(np.float64)
        rows = noised_sum[TABLE].astype(np.float64)
        eigenvalues, axes, gram = _positive(_unpacked(noised_sum[GRAMIAN].astype(np.float64), d), noise_stddev)
        total = float(eigenvalues.sum())
        if total <= 0.0:
            return dict(parameters)
        counts = np.clip(rows[:, d] / options.count_scale, 0.0, total)
        matrix = (1.0 + options.alpha / total * counts)[:, None] * eigenvalues + options.item_ridge * total / d
        ridge = options.item_ridge * total / d
        residual = (1.0 + options.alpha) * rows[:, :d] - y @ gram - ridge * y
        estimate = (residual @ axes) / matrix + y @ axes
        stddev = (1.0 + options.alpha) * noise_stddev
        if stddev > 0:
            estimate = _shrunk(estimate, (stddev / matrix) ** 2, counts)
        return {TABLE: (estimate @ axes.T).astype(np.float32)}

    def export(
        self, parameters: Parameters, domain: RowDomain | None, options: UserItemOptions
    ) -> dict[str, EmbeddingTable]:
        """The item table."""
        return {TABLE: EmbeddingTable(required(domain).keys, parameters[TABLE])}


def _unit_length(x: FloatArray) -> FloatArray:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, np.where(norms > 0, norms, 1.0), dtype=np.float32)


def _triangle(dimension: int) -> tuple[IntArray, IntArray, NDArray[np.float64]]:
    """Row and column of each entry of the upper triangle, and its weight in the Frobenius norm."""
    i, j = np.triu_indices(dimension)
    return i, j, np.where(i == j, 1.0, np.sqrt(2.0))


def _packed(x: FloatArray) -> FloatArray:
    """``x x^T`` of each row, packed: shape (S, D (D + 1) / 2), Euclidean norm |x|^2."""
    i, j, weight = _triangle(x.shape[1])
    return (x[:, i] * x[:, j] * weight).astype(np.float32)


def _unpacked(packed: NDArray[np.float64], dimension: int) -> NDArray[np.float64]:
    """Inverse of ``_packed`` for a sum: the symmetric (D, D) matrix."""
    i, j, weight = _triangle(dimension)
    gram = np.zeros((dimension, dimension))
    gram[i, j] = gram[j, i] = packed / weight
    return gram


def _positive(
    gram: NDArray[np.float64], stddev: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues, eigenvectors and matrix of the nearest positive semi-definite Gramian above the noise level.

    Noise of ``stddev`` in the packed entries moves eigenvalues by up to about ``stddev sqrt(D)`` (semicircle law with
    entries of variance stddev^2 / 2): smaller ones are raised to that, so that no direction is divided by noise.
    """
    eigenvalues, axes = np.linalg.eigh(gram)
    eigenvalues = np.maximum(eigenvalues, max(0.0, stddev * np.sqrt(len(gram))))
    return eigenvalues, axes, (axes * eigenvalues) @ axes.T


def _shrunk(
    estimate: NDArray[np.float64], variance: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Empirical-Bayes estimate of item vectors, axis by axis.

    Model: ``estimate[i, k] = y[i, k] + noise of variance[i, k]`` and ``y[i, k] = counts[i] (m[k] + t[k] normal)``: an
    item's vector grows with its popularity. m and t^2 are fitted by weighted least squares and moments.
    """
    size = np.square(counts)[:, None]
    precision = size / np.maximum(variance, np.finfo(np.float64).tiny)
    weight = precision.sum(axis=0)
    if not np.all(weight > 0):
        return np.zeros_like(estimate)
    safe = np.where(counts > 0, counts, 1.0)[:, None]
    ratio = np.where(size > 0, estimate / safe, 0.0)
    mean = (precision * ratio).sum(axis=0) / weight
    excess = np.where(size > 0, np.square(ratio - mean) - variance / np.square(safe), 0.0)
    spread = np.maximum(0.0, (precision * excess).sum(axis=0) / weight)
    gain = spread * size / (spread * size + variance)
    return counts[:, None] * mean + gain * (estimate - counts[:, None] * mean)


FAMILY = UserItem()
