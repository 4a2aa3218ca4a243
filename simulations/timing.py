"""How long a round takes, measured: the program's own code on made-up records, extrapolated to the public sizes.

Nobody's data are read, so what depends on them is told per 1,000 privacy units. Timed are the functions that a run
calls, at a size that takes a moment: at most ``MOST_ROWS`` rows and ``MOST_STEPS`` local steps. One more timing with
half the rows, and one with half the steps, give the slopes by which larger sizes are extrapolated.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from client.integers import client_integers
from client.selected import row_votes, selected_integers
from client.training import FAILURES, Randomness, client_updates, local_training
from common.errors import FedembedError
from common.families import AdditiveFamily, LocalTraining
from common.privacy.distributed import released_from_sum
from common.privacy.plan_sizing import sized
from common.privacy.private_sum import PrivateSum, Released, release
from common.privacy.rng import NoiseSource
from common.privacy.selected_rows import on_rows, selected_rows
from common.table import RowDomain
from common.units import Units
from common.update import Parameters
from common.work import Work
from server.aggregation import dense_sums, noise_of_sum
from server.optimizers import MeanUpdate, apply_step
from server.rounds import Node
from simulations.trial_records import trial_records

MOST_ROWS, MOST_NUMBERS, MOST_STEPS = 8192, 2**20, 4
FEW_UNITS, MANY_UNITS, REPETITIONS = 4, 48, 3
HOW = "an estimate: timed just now on this machine with made-up records ({units}), extrapolated linearly"
LEFT_OUT = (
    "reading and encoding the data, messages between processes and machines, waiting for other nodes, the ledgers' "
    "writes, evaluation, the release"
)
_UNITS = {"text": "ten words a unit", "interactions": "ten interactions a unit", "images": "one image a unit"}


@dataclass(frozen=True)
class Size:
    """Rows of the tables, local steps, and units: of the client, or in every step where steps are sampled."""

    rows: int
    steps: int
    units: int


def estimated_seconds(work: Work) -> dict[str, Any]:
    """Seconds of the coordinator and of one client in a round, and what the estimate leaves out.

    Nothing is raised where a trial fails, for example for want of a GPU: the answer then says so.
    """
    try:
        return _estimated(work)
    except (FedembedError, *FAILURES) as error:
        why = error.message if isinstance(error, FedembedError) else type(error).__name__
        return {"not_measured": why}


def _estimated(work: Work) -> dict[str, Any]:
    full = _full_size(work)
    trial = _trial_size(work, full)

    def client(size: Size) -> float:
        return _fastest(_client_round(work, size))

    client(trial)  # imports, and whatever is compiled or cached on first use
    base = client(trial)
    per_unit = max(0.0, client(replace(trial, units=MANY_UNITS)) - base) / (MANY_UNITS - FEW_UNITS)
    fixed = _extrapolated(client, base, trial, full) - FEW_UNITS * per_unit * max(1, full.steps) / max(1, trial.steps)
    rounds = _extrapolated(lambda size: _fastest(_coordinator_round(work, size)), None, trial, full)
    kind = work.family.records.split("|")[0]
    return {
        "coordinator_a_round": rounds,
        "client_a_round": max(0.0, fixed),
        **_for_data(work, per_unit / max(1, trial.steps)),
        "how": HOW.format(units=_UNITS[kind]),
        "left_out": LEFT_OUT if work.plan.secure is None else f"keys, masks and shares of the secure sum, {LEFT_OUT}",
    }


def _for_data(work: Work, per_unit: float) -> dict[str, float]:
    """Seconds that a client's units add; ``per_unit`` is one unit in one step, or in one pass."""
    plan, training = work.plan, work.scenario.training
    if plan.mode == "example":
        return {"client_a_round_per_1000_units": 1000 * per_unit * plan.unit_rate * plan.local_steps}
    if isinstance(work.family, AdditiveFamily):
        return {"client_a_round_per_1000_units": 1000 * per_unit}
    if training.local_steps:
        full_batches = per_unit * training.batch_size * training.local_steps
        return {"client_a_round_for_full_batches_at_most": full_batches}
    return {"client_a_round_per_1000_units": 1000 * per_unit * training.local_epochs}


def _full_size(work: Work) -> Size:
    rows = 0 if work.domain is None else len(work.domain)
    additive = isinstance(work.family, AdditiveFamily)
    return Size(rows, 0 if additive else work.scenario.training.local_steps, 0)


def _trial_size(work: Work, full: Size) -> Size:
    columns = sum(spec.shape[1] for spec in (*work.specs, *work.update_specs) if spec.is_table)
    rows = min(full.rows, MOST_ROWS, max(64, MOST_NUMBERS // max(1, columns)))
    return Size(rows, min(full.steps, MOST_STEPS), FEW_UNITS)


def _extrapolated(seconds: Callable[[Size], float], base: float | None, trial: Size, full: Size) -> float:
    """``seconds`` at the full size: the trial's, and for what is larger the slope from half of it."""
    base = seconds(trial) if base is None else base
    found = base
    for name in ("rows", "steps"):
        small, large = getattr(trial, name), getattr(full, name)
        if large > small:
            half = small // 2
            slope = max(0.0, base - seconds(replace(trial, **{name: half}))) / (small - half)
            found += slope * (large - small)
    return found


def _fastest(act: Callable[[], object]) -> float:
    found = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        act()
        found.append(time.perf_counter() - start)
    return min(found)


def _trial_work(work: Work, size: Size) -> Work:
    """The same work with fewer rows and steps, and every unit in every step."""
    domain = work.domain
    if domain is not None:
        counts = None if domain.frequencies is None else domain.frequencies[: size.rows]
        domain = RowDomain(domain.keys[: size.rows], counts)
    training = work.scenario.training.model_copy(update={"local_steps": size.steps, "local_epochs": 1})
    scenario = work.scenario.model_copy(update={"training": training})
    example = work.plan.mode == "example"
    plan = dataclasses.replace(work.plan, local_steps=size.steps, unit_rate=1.0) if example else work.plan
    if plan.secure is not None:
        plan = dataclasses.replace(plan, target_epsilon=None, secure=dataclasses.replace(plan.secure, dimension=0))
        if plan.votes is not None:
            fewer = {n: min(getattr(plan.votes, n), size.rows) for n in ("max_selected_rows", "rows_per_client")}
            plan = dataclasses.replace(plan, votes=dataclasses.replace(plan.votes, **fewer, rows=0))
        plan = sized(plan, dataclasses.replace(work, plan=plan).dimension_of(size.rows), size.rows)
    return dataclasses.replace(work, scenario=scenario, domain=domain, plan=plan)


def _client_round(work: Work, size: Size) -> Callable[[], Any]:
    """What a client computes for one round, as ``client.session`` has it computed."""
    trial = _trial_work(work, size)
    parameters, units = _parameters(trial), _made_up_client(trial, size.units)
    training, randomness = local_training(trial, 1), [Randomness(0, NoiseSource.from_os())]
    if trial.plan.votes is not None:
        return _votes_and_values(trial, parameters, [units], training, randomness)
    if trial.plan.secure is not None:
        return lambda: next(
            client_integers(trial, parameters, [units], training=training, randomness=randomness, round_number=1)
        )
    return lambda: client_updates(trial, parameters, [units], training=training, randomness=randomness)


def _votes_and_values(
    trial: Work, parameters: Parameters, clients: list[Units], training: LocalTraining, randomness: list[Randomness]
) -> Callable[[], Any]:
    """Both vectors of a round that begins with votes, for as many rows as may be selected."""
    call: dict[str, Any] = {"training": training, "randomness": randomness, "round_number": 1}
    rows = np.arange(trial.sum_specs[0].shape[0])

    def act() -> tuple[Any, Any]:
        votes = next(row_votes(trial, clients, randomness))
        return votes, next(selected_integers(trial, parameters, clients, rows=rows, **call))

    return act


def _coordinator_round(work: Work, size: Size) -> Callable[[], object]:
    """What the coordinator does with one client's answer: sum, noise, step."""
    trial = _trial_work(work, size)
    parameters, answer = dict(_parameters(trial)), _client_round(work, size)()
    optimizer: dict[str, Any] = {}

    def act() -> None:
        released = _released(trial, answer)
        if isinstance(trial.family, AdditiveFamily):
            stddev = noise_of_sum(trial, [Node(0, 1)])
            sums = dense_sums(trial, released)
            trial.family.server_step(parameters, sums, trial.options, noise_stddev=stddev, final=False)
            return
        means = {name: MeanUpdate(ids, values) for name, (ids, values) in released.rows.items()}
        means |= {name: MeanUpdate(None, value) for name, value in released.dense.items()}
        apply_step(parameters, means, optimizer, trial.scenario.server)

    return act


def _released(work: Work, answer: Any) -> Released:
    if work.plan.votes is not None:
        votes, values = answer
        rows = selected_rows(work.plan.vote_grid, votes)
        return on_rows(released_from_sum(work.plan, work.sum_specs, values, rotation_seed=0), rows)
    if work.plan.secure is not None:
        return released_from_sum(work.plan, work.update_specs, answer, rotation_seed=0)
    total = PrivateSum(work.update_specs)
    total.add(answer)
    return release(total, work.plan, NoiseSource.from_os())


def _parameters(work: Work) -> Parameters:
    rng = np.random.default_rng(0)
    return {spec.name: rng.normal(0, 0.1, spec.shape).astype(np.float32) for spec in work.specs}


def _made_up_client(work: Work, units: int) -> Units:
    keys = () if work.domain is None else work.domain.keys
    records = trial_records(work.family.records.split("|")[0], keys)
    names = {name: number for number, name in enumerate(dict.fromkeys((r.client, r.unit) for r in records))}
    chosen = [
        replace(r, client="one", unit="all" if work.plan.unit_is_client else str(number))
        for r in records
        if (number := names[r.client, r.unit]) < units
    ]
    return work.family.encode(chosen, work.domain, work.options)  # type: ignore[no-any-return]
