"""What audits ask about real clients: exactly a coin decides, and references know nothing of the answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import families
from common.config import Scenario, build_scenario
from common.errors import EvaluationError, UsageError
from common.evaluation.leakage import reference_membership
from common.families import RowFamily
from common.units import ClientStore, Units
from simulations.audit import references as training
from simulations.audit.adversary import Adversary
from simulations.audit.asked import rows_of, with_questions
from simulations.audit.attacks import tried, truth_of
from simulations.audit.families import ordinary
from simulations.audit.planting import Planted, plant, unprotected
from simulations.audit.references import halves, with_references
from simulations.audit.watching import watch
from simulations.progress import Silent
from tests.simulations.test_audit import CASES, planted


def ratings(folder: Path) -> Scenario:
    """A scenario of 150 users with eight items each."""
    rng = np.random.default_rng(0)
    pairs = [(user, item) for user in range(150) for item in rng.choice(80, 8, replace=False)]
    path = folder / "ratings.csv"
    path.write_text("user,item\n" + "".join(f"u{user},i{item}\n" for user, item in pairs))
    raw = {
        "task": {"family": "useritem", "dimension": 4},
        "data": {"reader": "interactions", "path": str(path), "unit": "user"},
        "vocabulary": {"source": "hashed", "buckets": 200},
        "privacy": {"mode": "central", "noise_multiplier": 1.2, "delta": 1e-5},
        "federation": {"rounds": 2},
    }
    return build_scenario(raw)


def users(seed: int = 0) -> ClientStore:
    """Clients of one user each, whose interactions come in units of three items."""
    rng = np.random.default_rng(seed)
    items = np.concatenate([rng.choice(50, 9, replace=False) for _ in range(120)]).astype(np.int64)
    units = Units(np.arange(361, dtype=np.int64) * 3, {"items": items, "users": np.zeros(len(items), np.int64)})
    return ClientStore(tuple(map(str, range(120))), np.arange(121, dtype=np.int64) * 3, units)


def held(store: ClientStore, client: int) -> set[int]:
    return set(store.client(client).columns["items"].tolist())


def test_a_coin_takes_one_item_of_a_user_and_nothing_else() -> None:
    whole = users()
    left, asked = with_questions(whole, np.random.default_rng(1))
    assert asked.interactions is not None and asked.interacted is not None and asked.member is not None
    assert 0.2 < asked.interacted.mean() < 0.8 and 0.3 < asked.member.mean() < 0.7
    gone = [(k, item) for k in range(120) for item in held(whole, k) - held(left, k)]
    of_units = {int(u) // 3 for u in asked.units}
    of_users = [(k, item) for k, item in gone if k not in of_units]
    people = {tuple(sorted(held(whole, k))): k for k in range(120)}
    for m, (row, interacted) in enumerate(zip(asked.interactions.rows, asked.interacted, strict=True)):
        known = asked.interactions.known.slice(m, m + 1).columns["rows"]
        client = people[tuple(sorted({*known.tolist(), int(row)}))]  # the item, and all others of that user
        assert client not in of_units and len(known) == 8
        assert (int(row) in held(left, client)) == bool(interacted)
    assert len(of_users) == int((~asked.interacted).sum())
    assert left.units.count == whole.units.count - int((~asked.member).sum())


def test_items_that_a_user_has_twice_are_not_asked_for() -> None:
    whole = users()
    twice = whole.units.columns["items"].copy().reshape(-1, 9)
    twice[:, 3:6] = twice[:, :3]
    whole = dataclasses.replace(
        whole, units=Units(whole.units.offsets, dict(whole.units.columns) | {"items": twice.ravel()})
    )
    asked = with_questions(whole, np.random.default_rng(1))[1].interactions
    assert asked is not None
    assert all(row not in asked.known.slice(m, m + 1).columns["rows"] for m, row in enumerate(asked.rows))


def test_rows_of_units_are_those_that_families_vote_with(tmp_path: Path) -> None:
    for name, which in (("word2vec", CASES["whole clients, central"]), ("useritem", ratings(tmp_path))):
        made = plant(which, tmp_path / name, Silent(), count=100, seed=3)
        truth = truth_of(made)
        assert len(truth.held_rows) == made.real_clients and sum(map(len, truth.held_rows)) > 0
        family, units = families.load(name), ordinary(made.store.client(0))
        if isinstance(family, RowFamily):
            np.testing.assert_array_equal(rows_of(units), family.held_rows(units))
    assert rows_of(Units(np.array([0, 1]), {"pixels": np.zeros((1, 4))})) is None
    assert with_questions(
        ClientStore(("a",), np.array([0, 1]), Units(np.array([0, 1]), {"pixels": np.zeros((1, 4))})),
        np.random.default_rng(0),
    )[1].candidates is None  # fmt: skip


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> tuple[Planted, Planted, Any]:
    out = tmp_path_factory.mktemp("items")
    which = ratings(out)
    made, control = (plant(s, out / "run", Silent(), count=100, seed=3) for s in (which, unprotected(which)))
    return made, control, watch(control).view


def test_rows_and_interactions_of_users_are_attacked(items: tuple[Planted, Planted, Any]) -> None:
    made, _, view = items
    leaks, not_run = tried(view, None, truth_of(made), names=("row_support", "interactions", "membership"))
    assert {leak.attack for leak in leaks} == {"row_support", "interactions", "membership"} and not not_run
    assert next(leak for leak in leaks if leak.metric == "f1").value == 1.0


def test_references_are_halves_that_do_not_know_who_was_left_out(items: tuple[Planted, Planted, Any]) -> None:
    made, control, view = items
    half = halves(made, count=4, seed=3)
    assert (half.sum(axis=0) == 2).all() and not np.array_equal(half[0], half[1])
    member = made.asked.member
    assert member is not None and abs(np.corrcoef(half[0], member)[0, 1]) < 4 / np.sqrt(len(member))
    assert not np.array_equal(halves(made, count=4, seed=4), half)
    seen = with_references(view, control, chosen=half, reporter=Silent())
    assert [r.member.tolist() for r in seen.references] == half.tolist()
    assert view.table is not None and all(r.table.keys == view.table.keys for r in seen.references)
    leaks, not_run = tried(seen, None, truth_of(made), names=("reference_membership",))
    assert {leak.metric.split(":")[1] for leak in leaks} == {"lira", "lira_offline", "rmia"} and not not_run
    assert with_references(view, control, chosen=half[:0], reporter=Silent()).references == ()


def test_a_reference_of_everybody_is_the_run_itself(tmp_path: Path) -> None:
    """Same start, data and settings: a reference trained on the members is the unprotected table."""
    made = planted(unprotected(CASES["whole clients, central"]), tmp_path)
    view, member = watch(made).view, made.asked.member
    assert member is not None and view.table is not None
    same = with_references(view, made, chosen=np.array([member]), reporter=Silent()).references[0].table.vectors
    other = with_references(view, made, chosen=np.array([~member]), reporter=Silent()).references[0].table.vectors
    near, far = (np.abs(table - view.table.vectors).max() for table in (same, other))
    assert near < 0.1 * far
    without = training._left_out(made, np.ones(len(member), bool))
    assert without.units.count == made.asked.whole.units.count - len(member)


@pytest.mark.parametrize("count", [-2, 1, 2, 3, 5])
def test_numbers_of_references_that_cannot_be_used_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match="references"):
        Adversary(references=count)


def test_answers_need_a_table(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="encoder"):
        Adversary(labels=tmp_path).informed(truth_of_nothing(), None)
    assert Adversary().informed(truth_of_nothing(), None) == truth_of_nothing()


def truth_of_nothing() -> Any:
    from common.evaluation.view import Truth

    return Truth()


def test_the_attack_is_not_fooled_by_probabilities_that_exp_cannot_hold() -> None:
    values = np.array([[-2000.0, -1.0], [-2001.0, -1.5], [-2002.0, -2.0], [-2003.0, -2.5]])
    seen = np.array([[True, False], [True, True], [False, False], [False, True]])
    found = reference_membership.log_average(values, seen)
    assert found[0] == pytest.approx(-2000 + np.log((1 + np.exp(-1) + np.exp(-2) + np.exp(-3)) / 4))
