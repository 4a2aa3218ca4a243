"""Tables that an adversary trains itself, as the audited run was trained: what reference membership compares with.

The adversary knows all data but for who among the candidates took part, which is what differential privacy lets it
know, and the settings of the run. A reference is trained on all clients and on a random half of the candidates; each
candidate is in half of the references (Carlini et al. 2022, arXiv 2112.03570, section 4), drawn without regard to
whether it was in the audited run. References on half of the clients, which need fewer assumptions, find nothing even
where there is no protection: the table then differs by much more than by a candidate.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from common.evaluation.view import Reference, View
from common.families import Family
from common.table import EmbeddingTable
from common.units import ClientStore
from common.update import Parameters
from common.work import Work, work_for
from server.progress import Reporter
from simulations.audit.planting import Planted, with_room
from simulations.audit.watching import trained
from simulations.progress import Silent

_STREAM = 11  # of the seed: no other coin of an audit uses it


def halves(planted: Planted, *, count: int, seed: int) -> NDArray[np.bool_]:
    """Which candidates each reference is trained on, each in half of the references; shape (count, N), none for N = 0.

    Args:
        seed: of the audit.
    """
    candidates = len(planted.asked.units)
    lots = np.random.default_rng([seed, _STREAM]).random((count if candidates else 0, candidates))
    return np.argsort(np.argsort(lots, axis=0), axis=0) < count // 2


def with_references(view: View, planted: Planted, *, chosen: NDArray[np.bool_], reporter: Reporter) -> View:
    """What an adversary knows that trains a table on each choice of candidates, with the settings of the planted run.

    Args:
        view: of the planted run.
        chosen: shape (references, N), which candidates each is trained on.

    Raises:
        FedembedError: a run failed.
    """
    work, found = _without_canaries(planted), []
    for number, member in enumerate(chosen, start=1):
        reporter.preparing(f"training reference {number} of {len(chosen)}, for attacks on membership")
        final = trained(work, _left_out(planted, ~member), Silent())
        table = next(iter(work.family.export(final, work.domain, work.options).values()))
        found.append(Reference(EmbeddingTable(table.keys, table.vectors), member))
    return replace(view, references=tuple(found))


def _left_out(planted: Planted, candidates: NDArray[np.bool_]) -> ClientStore:
    """All data of the real clients but for these candidates."""
    whole = planted.asked.whole
    kept = np.ones(whole.units.count, bool)
    kept[planted.asked.units[candidates]] = False
    offsets = np.concatenate([[0], np.cumsum(kept)])[whole.offsets].astype(np.int64)
    return replace(whole, offsets=offsets, units=whole.units.take(np.flatnonzero(kept)))


def _without_canaries(planted: Planted) -> Work:
    """The planted work for real clients and rows alone, from the audited run's own start and with its step size.

    Both are public; of fewer clients, the mean would be of fewer, and every step longer than the audited run's.
    """
    audited, rows = planted.work, planted.real_rows
    scenario = with_room(planted.given, planted.real_clients, 0, masked=False)
    if scenario.server.denominator is None:
        expected = max(1.0, audited.plan.rate * len(planted.store))
        server = scenario.server.model_copy(update={"denominator": expected})
        scenario = scenario.model_copy(update={"server": server})
    work = work_for(scenario, planted.real_domain)
    values = audited.family.initial(audited.options, audited.specs, audited.domain, audited.scenario.seed)
    tables = {spec.name for spec in audited.specs if spec.is_table}
    start = {name: np.array(v[:rows] if name in tables else v, np.float32) for name, v in values.items()}
    return replace(work, family=_starting_at(work.family, start))


def _starting_at(family: Family, start: Parameters) -> Family:
    """The family with given first parameters."""
    other = copy.copy(family)
    other.initial = lambda options, specs, domain, seed: start  # type: ignore[method-assign]
    return other
