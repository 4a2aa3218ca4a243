"""A ``PrivacyEngine`` for modules with embedding tables: used like Opacus', at the cost of the rows touched.

    engine = PrivacyEngine()
    module, optimizer, loader = engine.make_private(
        module=module, optimizer=torch.optim.SGD(module.parameters(), lr=1.0), data_loader=loader,
        noise_multiplier=1.0, max_grad_norm=1.0, unit_rate=0.01, steps=1000)
    for rows, target in loader:
        optimizer.zero_grad()
        loss(module(rows), target).backward()
        optimizer.step()
    engine.epsilon(delta=1e-6)
    module.state_dict()  # settles all noise that is still owed

``nn.Embedding`` and ``nn.EmbeddingBag`` become ``PrivateTable``; all other layers keep Opacus' hooks.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import opacus
import torch
from opacus.data_loader import CollateFnWithEmpty
from opacus.grad_sample import GradSampleModule
from torch import nn
from torch.utils.data import DataLoader

from common.errors import DataError, PrivacyConfigError
from common.privacy import accounting
from common.privacy.lazy import LazyTable, check_plain_sgd
from common.privacy.rng import NoiseSource
from common.privacy.selection import RowSelection, SelectedTable, check_selection
from common.privacy.table_optimizer import NoiseScale, RowNoise, TableDPOptimizer, TableWork, layer_names
from common.privacy.tables import PrivateTable, replace_embeddings
from common.privacy.unit_clipping import AdaptiveClip, UnitClip, unit_clip
from common.privacy.unit_sampling import UnitSampler
from common.table import IntArray


class PrivacyEngine(opacus.PrivacyEngine):  # type: ignore[misc]
    """Opacus' engine with private tables, units of several examples, cryptographic noise and a PLD accountant.

    Args:
        source: where noise and samples come from; by default the operating system. A seeded source serves tests.
    """

    def __init__(self, *, source: NoiseSource | None = None) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Secure RNG turned off")  # its noise is not used here
            super().__init__(accountant="prv")
        self.dataset: Any = None  # whose steps the accountant counts
        self._source = source or NoiseSource.from_os()

    def make_private(  # type: ignore[override]  # exception: the keywords of Opacus' method, and what units and rows need
        self,
        *,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        data_loader: DataLoader[Any],
        noise_multiplier: float,
        max_grad_norm: float | Sequence[float],
        unit_rate: float,
        steps: int,
        expected_batch_size: float | None = None,
        unit_of_example: IntArray | None = None,
        max_examples: int | None = None,
        max_physical_batch_size: int | None = None,
        clipping: str = "flat",
        adaptive: AdaptiveClip | None = None,
        rows: str = "dense",
        selection: RowSelection | None = None,
        loss_reduction: str = "mean",
    ) -> tuple[GradSampleModule, TableDPOptimizer, DataLoader[Any]]:
        """Make training private.

        Args:
            module: its embedding layers are replaced by private tables, in place.
            optimizer: plain SGD; what it holds of embedding weights it no longer steps itself.
            data_loader: gives data set and collation; its batch size is the public divisor unless
                ``expected_batch_size`` is given.
            noise_multiplier: sigma of one step, all that it releases taken together.
            max_grad_norm: C, or one bound for each of ``optimizer.layers`` with ``clipping = "per_layer"``.
            unit_rate: chance of a unit in a step, public: never the batch size over the private number of units.
            steps: logical batches of one pass of the returned loader.
            expected_batch_size: the public divisor.
            unit_of_example: shape (examples,): the privacy unit of each; by default each is its own.
            max_examples: examples of one unit in a step at most, chosen at random.
            max_physical_batch_size: examples computed at once; larger batches are taken in virtual steps.
            adaptive: a clip that follows a quantile, in place of ``max_grad_norm``.
            rows: ``"dense"``: every row is noised, lazily; ``"selected"``: privately selected rows alone.
            selection: its settings.
            loss_reduction: ``"mean"`` or ``"sum"`` over the examples of a batch.

        Raises:
            PrivacyConfigError: a module, optimizer or setting for which no guarantee is known, with the alternative.
        """
        self._refuse_unfit(module, data_loader, noise_multiplier)
        replace_embeddings(module)
        self.validate(module=module, optimizer=None, data_loader=None)
        if rows == "dense":
            check_plain_sgd(optimizer)
        noise = _noise_scale(noise_multiplier, rows, selection, adaptive)
        works = self._works(module, noise, selection)
        private = GradSampleModule(module, loss_reduction=loss_reduction, strict=True)
        private.forbid_grad_accumulation()
        _forget_tables(optimizer, works)
        private_optimizer = self._prepare_optimizer(
            optimizer=optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=_public_divisor(expected_batch_size, data_loader),
            loss_reduction=loss_reduction,
            clipping=clipping,
            works=works,
            noise=noise,
            adaptive=adaptive,
        )
        for work in works.values():
            _guard(work, private_optimizer)
        sampler = self._sampler(
            data_loader,
            unit_of_example,
            unit_rate=unit_rate,
            steps=steps,
            max_examples=max_examples,
            max_piece=max_physical_batch_size,
        )
        sampler.on_piece, sampler.on_start = private_optimizer.begin, private_optimizer.abandon
        private_optimizer.attach_step_hook(self.accountant.get_optimizer_hook_fn(sample_rate=unit_rate))
        return private, private_optimizer, _loader(data_loader, sampler)

    def _refuse_unfit(self, module: nn.Module, data_loader: DataLoader[Any], noise_multiplier: float) -> None:
        if not 0 < noise_multiplier < float("inf"):
            raise PrivacyConfigError(f"the noise multiplier must be positive and finite, not {noise_multiplier}")
        if self.dataset is not None and self.dataset is not data_loader.dataset:
            raise PrivacyConfigError(
                "this engine has accounted another data set: its epsilon would mix the two",
                remedy="Make a new PrivacyEngine for other data.",
            )
        self.dataset = data_loader.dataset
        if any(isinstance(layer, PrivateTable) and layer.reader is not None for layer in module.modules()):
            raise PrivacyConfigError("this module was made private before: its rows are owed noise by another engine")

    def make_private_with_epsilon(  # type: ignore[override]
        self, *, target_epsilon: float, target_delta: float, unit_rate: float, steps: int, **settings: Any
    ) -> tuple[GradSampleModule, TableDPOptimizer, DataLoader[Any]]:
        """As ``make_private``, with the least noise at which ``steps`` steps cost ``target_epsilon`` by PLD."""
        import dp_accounting as dp

        sigma = accounting.calibrate(
            lambda sigma: dp.SelfComposedDpEvent(_step_event(sigma, unit_rate), steps),
            epsilon=target_epsilon,
            delta=target_delta,
        )
        return self.make_private(noise_multiplier=sigma, unit_rate=unit_rate, steps=steps, **settings)

    def _prepare_optimizer(  # type: ignore[override]  # exception: Opacus' keywords, and what tables need
        self,
        *,
        optimizer: torch.optim.Optimizer,
        noise_multiplier: float,
        max_grad_norm: float | Sequence[float],
        expected_batch_size: float,
        loss_reduction: str = "mean",
        clipping: str = "flat",
        works: dict[str, TableWork],
        noise: NoiseScale,
        adaptive: AdaptiveClip | None = None,
    ) -> TableDPOptimizer:
        dense = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        layers = layer_names(works, dense)
        clip: UnitClip = adaptive if adaptive is not None else unit_clip(clipping, max_grad_norm, layers)
        return TableDPOptimizer(
            optimizer,
            tables=works,
            clip=clip,
            noise=noise,
            expected_batch_size=expected_batch_size,
            loss_reduction=loss_reduction,
            source=self._source.derive("dense"),
            sampled=True,
        )

    def _works(self, module: nn.Module, noise: NoiseScale, selection: RowSelection | None) -> dict[str, TableWork]:
        tables = {n: m for n, m in module.named_modules() if isinstance(m, PrivateTable)}
        return {n: TableWork(t, self._row_noise(n, t, noise, selection)) for n, t in tables.items()}

    def _row_noise(self, name: str, table: PrivateTable, noise: NoiseScale, selection: RowSelection | None) -> RowNoise:
        source, weight = self._source.derive("table", name), table.weight.data
        if noise.vote_norm is None or selection is None:
            return LazyTable(weight, source=source, padding_row=table.padding_row)
        return SelectedTable(
            weight,
            source=source,
            threshold=selection.threshold * selection.noise_multiplier * selection.vote_norm,
            vote_stddev=selection.noise_multiplier * selection.vote_norm,
            padding_row=table.padding_row,
        )

    def _sampler(  # exception: the settings of one sampler belong together
        self,
        loader: DataLoader[Any],
        unit_of_example: IntArray | None,
        *,
        unit_rate: float,
        steps: int,
        max_examples: int | None,
        max_piece: int | None,
    ) -> UnitSampler:
        count = len(loader.dataset)  # type: ignore[arg-type]
        if not count:
            raise DataError("the data set is empty")
        units = np.arange(count) if unit_of_example is None else np.asarray(unit_of_example)
        if units.shape != (count,):
            raise PrivacyConfigError(f"unit_of_example must have one entry for each of the {count} examples")
        return UnitSampler(
            units,
            unit_rate=unit_rate,
            steps=steps,
            source=self._source.derive("sample"),
            max_examples=max_examples,
            max_piece=max_piece,
        )

    def epsilon(self, delta: float) -> float:
        """Epsilon of all steps so far by PLD, for adding or removing one unit; ``get_epsilon`` is Opacus' PRV value."""
        import dp_accounting as dp

        events = [
            dp.SelfComposedDpEvent(_step_event(sigma, rate), count) for sigma, rate, count in self.accountant.history
        ]
        return accounting.epsilon(dp.ComposedDpEvent(events), delta)


def _guard(work: TableWork, optimizer: TableDPOptimizer) -> None:
    """Let the table be read through its rows' guard alone, and leave with all noise paid."""
    work.table.reader = work.rows.read
    work.table.weight.requires_grad_(True)  # a use outside the layer must show up as a gradient
    work.table.register_state_dict_pre_hook(lambda *_: optimizer.flush())  # type: ignore[no-untyped-call]
    work.table.register_state_dict_post_hook(_copied)  # type: ignore[no-untyped-call]


def _copied(layer: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    """A state that went on changing would show, later, which rows were touched and which are owed noise."""
    state[f"{prefix}weight"] = state[f"{prefix}weight"].clone()


def _step_event(sigma: float, rate: float) -> Any:
    import dp_accounting as dp

    gaussian = dp.GaussianDpEvent(sigma)
    return gaussian if rate == 1 else dp.PoissonSampledDpEvent(rate, gaussian)


def _public_divisor(expected_batch_size: float | None, loader: DataLoader[Any]) -> float:
    divisor = float(expected_batch_size or loader.batch_size or 0)
    if divisor <= 0:
        raise PrivacyConfigError("expected_batch_size must be given: a public constant, not the size of any batch")
    return divisor


def _forget_tables(optimizer: torch.optim.Optimizer, works: dict[str, TableWork]) -> None:
    """Take the tables' weights out of the optimizer: each is stepped with its noise, by rows."""
    storages = {work.table.weight.data_ptr() for work in works.values()}
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if p.data_ptr() not in storages]


def _noise_scale(
    noise_multiplier: float, rows: str, selection: RowSelection | None, adaptive: AdaptiveClip | None
) -> NoiseScale:
    """Split one multiplier over the values and whatever else a step releases: inverse squares add up."""
    if rows not in ("dense", "selected"):
        raise PrivacyConfigError(f"rows are 'dense' or 'selected', not {rows!r}")
    if (rows == "selected") != (selection is not None):
        raise PrivacyConfigError("rows = 'selected' goes with a RowSelection, and 'dense' with none")
    values = noise_multiplier if adaptive is None else adaptive.value_multiplier(noise_multiplier)
    if selection is None:
        return NoiseScale(noise_multiplier, values)
    check_selection(
        vote_norm=selection.vote_norm, noise_multiplier=selection.noise_multiplier, threshold=selection.threshold
    )
    values = accounting.remaining_noise_multiplier(values, selection.noise_multiplier)
    return NoiseScale(noise_multiplier, values, selection.vote_norm)


def _loader(loader: DataLoader[Any], sampler: UnitSampler) -> DataLoader[Any]:
    collate = CollateFnWithEmpty(loader.collate_fn)
    collate([loader.dataset[0]])  # an empty batch takes its structure from the first one collated
    return DataLoader(loader.dataset, batch_sampler=sampler, collate_fn=collate, pin_memory=loader.pin_memory)
