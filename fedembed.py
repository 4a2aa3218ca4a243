"""The names that other programs import; each is loaded when it is first used.

>>> import fedembed
>>> table = fedembed.load_release("runs/first/release").table          # doctest: +SKIP
>>> table.neighbors("king", 5)                                         # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.config import Scenario as Scenario
    from common.config import read_scenario as read_scenario
    from common.errors import FedembedError as FedembedError
    from common.evaluation.score import Score as Score
    from common.privacy.engine import PrivacyEngine as PrivacyEngine
    from common.privacy.plan import PrivacyPlan as PrivacyPlan
    from common.privacy.tables import PrivateTable as PrivateTable
    from common.release import Release as Release
    from common.release import load_release as load_release
    from common.release import verify as verify
    from common.table import EmbeddingTable as EmbeddingTable
    from common.table import RowDomain as RowDomain
    from simulations.runs import audit as audit
    from simulations.runs import find_scenario as find_scenario
    from simulations.runs import plan as plan
    from simulations.runs import simulate as simulate

    __version__: str

_HOMES = {
    "EmbeddingTable": "common.table",
    "FedembedError": "common.errors",
    "PrivacyEngine": "common.privacy.engine",
    "PrivacyPlan": "common.privacy.plan",
    "PrivateTable": "common.privacy.tables",
    "Release": "common.release",
    "RowDomain": "common.table",
    "Scenario": "common.config",
    "Score": "common.evaluation.score",
    "audit": "simulations.runs",
    "find_scenario": "simulations.runs",
    "load_release": "common.release",
    "plan": "simulations.runs",
    "read_scenario": "common.config",
    "simulate": "simulations.runs",
    "verify": "common.release",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("simulations.doctor").version()
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fedembed' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
