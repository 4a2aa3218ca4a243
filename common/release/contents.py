"""What goes into a release and what comes out of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.evaluation.score import Score
from common.table import EmbeddingTable


@dataclass(frozen=True)
class ReleaseContents:
    """Everything that a finished run hands to ``write_release``; all of it is public from then on.

    Attributes:
        tables: released tables by name (letters, digits, ``_`` and ``-``).
        certificate: what ``PrivacyPlan.claim`` returned.
        scenario: ``Scenario.model_dump(mode="json")``.
        evaluation: figures with intervals and baselines.
        rounds: public history, one dictionary a round (fields: ``common.release.history``). Mode ``none`` alone may
            add what carries no noise: ``loss``, ``replies`` (reason -> count), ``update_norm_mean``, ...
        model: parameters of an encoder by name; empty for families whose tables are the whole result.
        model_config: what is needed to rebuild the encoder.
        notes: free statements for the reader: ``clients`` (the data statement), ``main_table``, ``license``, ...
    """

    tables: Mapping[str, EmbeddingTable]
    certificate: Mapping[str, Any]
    scenario: Mapping[str, Any]
    evaluation: Sequence[Score] = ()
    rounds: Sequence[Mapping[str, Any]] = ()
    model: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    model_config: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


class LazyTables(Mapping[str, EmbeddingTable]):
    """Tables that are read, and checked against their digest, when first asked for."""

    def __init__(self, names: list[str], read: Callable[[str], EmbeddingTable]) -> None:
        self._names = names
        self._read = read
        self._loaded: dict[str, EmbeddingTable] = {}

    def __getitem__(self, name: str) -> EmbeddingTable:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._loaded:
            self._loaded[name] = self._read(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class Release:
    """A release read back from its folder.

    Attributes:
        path: the folder.
        manifest: versions, scenario, notes and the digest of every other file.
        tables: released tables by name, read when first used.
        certificate: the claim, as ``PrivacyPlan.claim`` made it (infinity is the string ``"inf"``).
        evaluation: figures with intervals and baselines.
        neighbors: table -> key -> list of [neighbour, cosine], as shown in the report.
        rounds: public history, one dictionary a round (fields: ``common.release.history``).
        model_config: what is needed to rebuild the encoder; empty for families without one.
        read_model: reads the encoder's parameters; use ``model``.
    """

    path: Path
    manifest: Mapping[str, Any]
    tables: Mapping[str, EmbeddingTable]
    certificate: Mapping[str, Any]
    evaluation: list[Score]
    neighbors: Mapping[str, Any]
    rounds: list[Mapping[str, Any]]
    model_config: Mapping[str, Any]
    read_model: Callable[[], dict[str, NDArray[np.generic]]]

    @property
    def scenario(self) -> Mapping[str, Any]:
        """The scenario's JSON."""
        return self.manifest["scenario"]

    @property
    def notes(self) -> Mapping[str, Any]:
        """Free statements of whoever made the release."""
        return self.manifest["notes"]

    @cached_property
    def model(self) -> dict[str, NDArray[np.generic]]:
        """Parameters of the encoder by name; empty for families without one."""
        return self.read_model()
