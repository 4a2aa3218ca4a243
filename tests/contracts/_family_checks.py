"""What every family must keep, as checks that raise AssertionError. ``CHECKS`` maps a name to a check."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from common.families import AdditiveFamily, FamilyOptions, LocalFamily, ModuleFamily
from common.units import Units
from common.update import UpdateBatch, squared_norms

from ._family_arrays import contribution, dense_sum, fits, same, size, well_formed
from ._family_cases import Case, group_of, training
from ._module_checks import MODULE


def check_declaration(case: Case) -> None:
    family = case.family
    assert issubclass(family.Options, FamilyOptions)
    assert set(family.records.split("|")) <= {"text", "interactions", "images"}
    assert isinstance(family, (AdditiveFamily, LocalFamily, ModuleFamily))
    assert (family.row_domain is None) == (not any(spec.is_table for spec in case.specs))


def check_initial(case: Case) -> None:
    np_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    first, again, other = case.initial(3), case.initial(3), case.initial(4)
    assert np.array_equal(np_state, np.random.get_state()[1]) and torch.equal(torch_state, torch.get_rng_state())
    fits(first, case.specs)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)
    for spec in case.specs:
        if spec.is_table:
            assert spec.row_domain == case.family.row_domain
            assert len(spec.shape) == 2 and spec.shape[0] == case.rows


def check_encode(case: Case) -> None:
    for records in case.weird:
        units = case.encode(records)
        assert units.count == len({record.unit for record in records})
        assert all(np.isfinite(column).all() for column in units.columns.values() if column.dtype.kind == "f")
    order = dict.fromkeys(record.unit for record in case.records)
    lengths = np.diff(case.encode(case.records).offsets)
    alone = [case.encode([r for r in case.records if r.unit == unit]).offsets[-1] for unit in order]
    assert lengths.tolist() == alone


def check_export(case: Case) -> None:
    tables = case.family.export(case.initial(), case.domain, case.options)
    assert bool(tables) == (case.domain is not None)
    for table in tables.values():
        assert case.domain is not None and table.keys == case.domain.keys
        assert table.vectors.dtype == np.float32 and bool(np.isfinite(table.vectors).all())


# --- additive families --------------------------------------------------------------------------------------------


def check_contributions(case: Case) -> None:
    units, parameters = case.everyone, case.initial()
    specs = case.family.statistics_specs(case.options, case.rows)
    whole = case.family.contributions(parameters, units, case.options)
    well_formed(whole, specs, units.count)
    for unit in range(0, units.count, 7):
        single = case.family.contributions(parameters, units.slice(unit, unit + 1), case.options)
        same(contribution(whole, unit, specs), contribution(single, 0, specs))
    lengths = np.diff(units.offsets)
    assert all(bool(np.all(np.diff(table.offsets) <= lengths)) for table in whole.rows.values())
    assert size(contribution(whole, units.count - 1, specs)) == 0.0


def check_contribution_norms(case: Case) -> None:
    """Near the bound they are made for, whatever a unit holds: a heavy unit weighs no more than the others."""
    bound = case.family.natural_clip(case.options)
    assert 0 < bound < math.inf
    units = case.encode(case.records)
    for some in (units, case.heavy):
        norms = np.sqrt(squared_norms(case.family.contributions(case.initial(), some, case.options)))
        assert norms.max() <= 2.0 * bound
        assert np.median(norms) >= 0.2 * bound


def check_additive_over_chunks(case: Case) -> None:
    units, parameters = case.encode(case.records), case.initial()
    whole = dense_sum(case, case.family.contributions(parameters, units, case.options))
    parts = [units.slice(a, min(a + 13, units.count)) for a in range(0, units.count, 13)]
    sums = [dense_sum(case, case.family.contributions(parameters, part, case.options)) for part in parts]
    for name, array in whole.items():
        np.testing.assert_allclose(sum(s[name] for s in sums), array, atol=1e-4)


def check_server_step(case: Case) -> None:
    parameters, rng = case.initial(), np.random.default_rng(0)
    honest = dense_sum(case, case.family.contributions(parameters, case.encode(case.records), case.options))
    zero = {name: np.zeros_like(array) for name, array in honest.items()}
    for noise in (0.0, 1.0, 1e4):
        for start in (zero, honest):
            noised = {n: (a + noise * rng.standard_normal(a.shape)).astype(np.float32) for n, a in start.items()}
            before = {n: a.copy() for n, a in noised.items()}
            for final in (False, True):
                step = case.family.server_step(parameters, noised, case.options, noise_stddev=noise, final=final)
                fits(step, case.specs)
            assert all(np.array_equal(noised[n], before[n]) for n in noised)
    assert all(np.array_equal(parameters[n], a) for n, a in case.initial().items())


# --- local families -----------------------------------------------------------------------------------------------


def check_local_update(case: Case) -> None:
    clients = [*case.clients[:3], case.encode(()), case.encode(case.weird[1])]
    whole = _local(case, clients, seeds=[5, 6, 7, 8, 9])
    well_formed(whole, case.specs, len(clients))
    for empty in (3, 4):
        assert size(contribution(whole, empty, case.specs)) == 0.0
    assert all(size(contribution(whole, k, case.specs)) > 0 for k in range(3))
    for other in (_local(case, clients[1:2], seeds=[6]), _local(case, clients[1::-1], seeds=[6, 5])):
        same(contribution(whole, 1, case.specs), contribution(other, 0, case.specs))
    changed = contribution(_local(case, clients[1:2], seeds=[66]), 0, case.specs)
    assert any(not np.array_equal(changed[n], a) for n, a in contribution(whole, 1, case.specs).items())


def check_local_update_is_bounded_work(case: Case) -> None:
    """A small step moves little, and a table of huge values still gives finite updates."""
    client = case.clients[:1]
    little = _local(case, client, seeds=[1], lr=1e-6)
    assert 0 < size(contribution(little, 0, case.specs)) < 1e-2
    huge = {name: np.full_like(array, 1e3) for name, array in case.initial().items()}
    well_formed(_local(case, client, seeds=[1], parameters=huge), case.specs, 1)


def _local(
    case: Case, clients: list[Units], *, seeds: list[int], lr: float = 0.1, parameters: Any = None
) -> UpdateBatch:
    parameters = case.initial() if parameters is None else parameters
    return case.family.local_update(
        parameters, clients, case.domain, case.options, training=training(epochs=1, lr=lr), seeds=seeds
    )


# --- learning -----------------------------------------------------------------------------------------------------


def check_learns(case: Case) -> None:
    """Rows of one planted group come out closer to each other than to the other group's."""
    if case.domain is None:
        return  # an encoder shows it by its loss
    tables = case.family.export(_trained(case), case.domain, case.options)
    vectors = next(iter(tables.values())).unit_vectors
    groups = np.array([group_of(row) for row in range(case.rows)])
    cosine, known = vectors @ vectors.T, groups >= 0
    same = (groups[:, None] == groups) & known & ~np.eye(case.rows, dtype=bool)
    different = (groups[:, None] != groups) & known & known[:, None]
    assert cosine[same].mean() - cosine[different].mean() > 0.5


def _trained(case: Case) -> Mapping[str, np.ndarray]:
    parameters = case.initial()
    rounds = 2 if isinstance(case.family, AdditiveFamily) else 8
    for number in range(1, rounds + 1):
        if isinstance(case.family, AdditiveFamily):
            batch = case.family.contributions(parameters, case.encode(case.records), case.options)
            parameters = case.family.server_step(
                parameters, dense_sum(case, batch), case.options, noise_stddev=0.0, final=number == rounds
            )
            continue
        update = case.family.local_update(
            parameters,
            case.clients,
            case.domain,
            case.options,
            training=training(),
            seeds=[100 * number + k for k in range(len(case.clients))],
        )
        means = [contribution(update, k, case.specs) for k in range(update.count)]
        parameters = {n: (v + sum(m[n] for m in means) / len(means)).astype(np.float32) for n, v in parameters.items()}
    return parameters


EVERY: dict[str, Callable[[Case], None]] = {
    "declaration": check_declaration,
    "initial": check_initial,
    "encode": check_encode,
    "export": check_export,
    "learns": check_learns,
}
ADDITIVE: dict[str, Callable[[Case], None]] = {
    "contributions": check_contributions,
    "contribution norms": check_contribution_norms,
    "additive over chunks": check_additive_over_chunks,
    "server step": check_server_step,
}
LOCAL: dict[str, Callable[[Case], None]] = {
    "local update": check_local_update,
    "bounded work": check_local_update_is_bounded_work,
}


def checks_for(family: Any) -> dict[str, Callable[[Case], None]]:
    """The checks that apply to ``family``."""
    found = dict(EVERY)
    for protocol, checks in ((AdditiveFamily, ADDITIVE), (LocalFamily, LOCAL), (ModuleFamily, MODULE)):
        if isinstance(family, protocol):
            found |= checks
    return found
