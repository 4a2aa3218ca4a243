"""Embedding families: one module each, with the constant ``FAMILY``, found by listing this package.

A family says what its parameters are, how records become index arrays, and how a client computes. It offers one or
more of three ways to compute; each is a separate protocol, and ``isinstance`` tells which a family has:

* ``AdditiveFamily``: the client's update is a sum of one contribution per privacy unit (spectral, ALS), so any unit can
  be protected with central-quality noise. The sum over clients is turned into new parameters by ``server_step``.
* ``LocalFamily``: several local steps on the client's data, for many clients at once (word2vec, BPR).
* ``ModuleFamily``: a torch module with a loss per unit (image, and word2vec in ``example`` mode through Opacus).

Families import nothing from ``privacy``: clipping, noise and accounting happen outside, on ``UpdateBatch``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from common.config import TaskConfig
from common.discovery import load_member, member_names, nearest
from common.errors import ConfigError
from common.table import EmbeddingTable, IntArray, RowDomain
from common.units import Record, Units
from common.update import Parameters, ParameterSpec, UpdateBatch

if TYPE_CHECKING:
    import torch

CONSTANT = "FAMILY"


class FamilyOptions(BaseModel):
    """Base of every family's options: frozen; unknown keys, NaN and infinity refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def needs_labels(self) -> bool:
        """Whether records without labels teach nothing."""
        return False


@dataclass(frozen=True)
class LocalTraining:
    """Public settings of one client's local work in one round.

    Attributes:
        local_steps: optimizer steps a round; 0 means ``local_epochs`` passes instead.
        local_epochs: passes over the client's data a round.
        batch_size: units a step.
        lr: learning rate of local SGD.
        progress: completed fraction of the run, in [0, 1): families may decay ``lr`` with it.
        device: ``"cpu"`` or ``"cuda"``.
    """

    local_steps: int
    local_epochs: int
    batch_size: int
    lr: float
    progress: float = 0.0
    device: str = "cpu"


class Family(Protocol):
    """What every family has. ``name`` equals its module's name."""

    name: str
    Options: type[FamilyOptions]
    records: str  # kind of record it takes: "text", "interactions" or "images"
    row_domain: str | None  # name of its row domain ("words", "items"); None for encoders

    def specs(self, options: Any, rows: int) -> tuple[ParameterSpec, ...]:
        """The shared parameters; ``rows`` is the size of the row domain (0 for encoders)."""

    def initial(self, options: Any, specs: Sequence[ParameterSpec], domain: RowDomain | None, seed: int) -> Parameters:
        """Public, seeded starting values: float32 arrays in the shapes of ``specs``."""

    def encode(self, records: Iterable[Record], domain: RowDomain | None, options: Any) -> Units:
        """Turn ONE client's records into arrays grouped by ``Record.unit``, in order of first appearance.

        Unknown keys are dropped; a unit may become empty; no unit may raise because of its content.
        """

    def export(self, parameters: Parameters, domain: RowDomain | None, options: Any) -> dict[str, EmbeddingTable]:
        """The tables to release, the main one first. Encoders return an empty mapping."""


@runtime_checkable
class AdditiveFamily(Protocol):
    """One contribution per unit; the server turns their noised sum into parameters."""

    def contributions(self, parameters: Parameters, units: Units, options: Any) -> UpdateBatch:
        """One contribution per unit (K = units.count). Entries follow the rows that the unit touches."""

    def natural_clip(self, options: Any) -> float:
        """The L2 bound the contributions are designed for (spectral: exactly 1)."""

    def server_step(
        self, parameters: Parameters, noised_sum: Parameters, options: Any, *, noise_stddev: float, final: bool
    ) -> Parameters:
        """New parameters from the noised sum over all units (dense arrays in the shapes of ``statistics_specs``).

        ``noise_stddev`` is the public standard deviation in every entry (0 without privacy).
        """

    def statistics_specs(self, options: Any, rows: int) -> tuple[ParameterSpec, ...]:
        """Shapes of what ``contributions`` sends (often not those of the parameters)."""


@runtime_checkable
class LocalFamily(Protocol):
    """Several local steps for many clients at once."""

    def local_update(
        self,
        parameters: Parameters,
        clients: Sequence[Units],
        domain: RowDomain | None,
        options: Any,
        *,
        training: LocalTraining,
        seeds: Sequence[int],
    ) -> UpdateBatch:
        """Local minus global parameters of each client (K = len(clients)).

        Work and memory follow the rows touched. ``seeds[k]`` drives client k's sampling; results for a client do
        not depend on which other clients share the call.
        """


@runtime_checkable
class RowFamily(Protocol):
    """Tells which rows a client's data hold, so that clients can vote on the rows of a round."""

    def held_rows(self, units: Units) -> IntArray:
        """Row numbers of the units' own elements, int64, repeats allowed; rows drawn as negatives are none of them."""


@runtime_checkable
class ModuleFamily(Protocol):
    """A torch module over a compact table, and a loss that never couples two units."""

    def module(self, options: Any, rows: int) -> torch.nn.Module:
        """A module whose ``state_dict`` names and shapes are those of ``specs(options, rows)``."""

    def batch(
        self, units: Units, domain: RowDomain | None, options: Any, rng: np.random.Generator
    ) -> Mapping[str, torch.Tensor]:
        """Padded tensors whose first axis is ``units.count``; int64 row-id tensors are named ``rows.<name>``.

        Negative samples are drawn here, from public frequencies, independently for each unit.
        """

    def loss(self, module: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """One loss per unit, shape (B,), never reduced; 0 for an empty unit."""


def names() -> list[str]:
    """Names of all families."""
    return member_names(__name__)


def load(name: str) -> Any:
    """The family called ``name``. Raises ``ConfigError`` with the nearest known name."""
    return load_member(__name__, name, CONSTANT)


def options_of(family: Any, task: TaskConfig) -> Any:
    """The family's own options from ``[task]``.

    Raises:
        ConfigError: an unknown option (with the nearest known one) or a bad value.
    """
    try:
        return family.Options.model_validate(task.options)
    except ValidationError as error:
        known = list(family.Options.model_fields)
        raise ConfigError("; ".join(_explained(e, known) for e in error.errors())) from None


def _explained(error: Any, known: list[str]) -> str:
    dotted = ".".join(str(part) for part in ("task", *error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"unknown option {dotted!r}{nearest(str(error['loc'][-1]), known)}"
    return f"{dotted}: {error['msg']}"
