"""Inversion of single updates: everything is read off what our families send unprotected, nothing under the noise."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats

from common.errors import EvaluationError
from common.evaluation.conformance.subject import toy_plan
from common.evaluation.leak import Leak
from common.evaluation.leakage.gradient_inversion import ATTACK, best_match, cosines, named_rows
from common.evaluation.view import RoundView, Truth, View
from common.families import LocalTraining
from common.families import load as family_called
from common.privacy.clipping import clip
from common.privacy.dpsgd import train_example_mode
from common.privacy.rng import NoiseSource
from common.table import RowDomain
from common.units import Image, Interaction, Record
from common.update import ParameterSpec, RowBatch, UpdateBatch, concatenated

ROWS, CLIENTS, LENGTH = 120, 16, 25
KEYS = tuple(f"{chr(97 + k // 26)}{chr(97 + k % 26)}x" for k in range(ROWS))
PRIOR = 1.0 / np.arange(1, ROWS + 1)
DOMAIN = RowDomain(KEYS, PRIOR)
BAGS = [np.random.default_rng(k).choice(ROWS, LENGTH, p=PRIOR / PRIOR.sum()) for k in range(CLIENTS)]
HELD = tuple(np.unique(bag) for bag in BAGS)
EVERYBODY = np.arange(CLIENTS)
TEXTS = [" ".join(KEYS[row] for row in bag) for bag in BAGS]
TABLE_FAMILIES = ("word2vec", "spectral", "useritem")


@cache
def sent(name: str, seed: int = 0) -> tuple[tuple[ParameterSpec, ...], UpdateBatch]:
    """What the clients of a family send without protection, one update each."""
    family = family_called(name)
    options = family.Options(dimension=8, **({"subsample": 0.0} if name == "word2vec" else {}))
    if name == "useritem":
        records = [[Record("c", "u", Interaction("me", KEYS[row])) for row in bag] for bag in BAGS]
    else:
        records = [[Record("c", "u", text)] for text in TEXTS]
    units = [family.encode(own, DOMAIN, options) for own in records]
    parameters = family.initial(options, family.specs(options, ROWS), DOMAIN, 0)
    if name != "word2vec":
        found = concatenated([family.contributions(parameters, own, options) for own in units])
        return family.statistics_specs(options, ROWS), found
    training = LocalTraining(local_steps=0, local_epochs=3, batch_size=4, lr=0.1)
    seeds = [100 * seed + k for k in range(CLIENTS)]
    found = family.local_update(parameters, units, DOMAIN, options, training=training, seeds=seeds)
    return family.specs(options, ROWS), found


def on_every_row(batch: UpdateBatch, specs: tuple[ParameterSpec, ...], sigma: float, seed: int) -> UpdateBatch:
    """Mode local: clipped to 1, noise on every coordinate of every update."""
    rng, clipped = np.random.default_rng(seed), clip(batch, 1.0).batch
    rows, dense = {}, {}
    for spec in specs:
        noise = rng.normal(0, sigma, (batch.count, *spec.shape)).astype(np.float32)
        if not spec.is_table:
            dense[spec.name] = clipped.dense[spec.name] + noise
            continue
        table = clipped.rows[spec.name]
        noise[table.owners, table.ids] += table.values
        size, width = spec.shape
        offsets, ids = np.arange(batch.count + 1) * size, np.tile(np.arange(size), batch.count)
        rows[spec.name] = RowBatch(offsets, ids, noise.reshape(-1, width))
    return UpdateBatch(batch.count, rows, dense)


def view(*updates: UpdateBatch, rehearsed: UpdateBatch | None = None, rows: int = ROWS) -> View:
    rounds = tuple(RoundView(EVERYBODY, updates=batch, rehearsed=rehearsed) for batch in updates)
    return View(CLIENTS, PRIOR[:rows], rounds)


def measured(seen: View, held: tuple[np.ndarray, ...] = HELD) -> dict[str, Leak]:
    return {found.metric: found for found in ATTACK.run(seen, Truth(held_rows=held), seed=0)}


@pytest.mark.parametrize("name", TABLE_FAMILIES)
@pytest.mark.parametrize("rehearsing", [False, True])
def test_unprotected_updates_give_everything_away(name: str, rehearsing: bool) -> None:
    """The adversary rehearses with seeds of its own."""
    found = measured(view(sent(name)[1], rehearsed=sent(name, seed=1)[1] if rehearsing else None))
    assert found["exact rows"].value == found["line-up"].value == 1.0
    assert found["exact rows"].above_chance and found["line-up"].above_chance
    assert found["line-up"].chance_value == 1 / CLIENTS and found["exact rows"].chance_value == 0.0
    assert all(leak.promised and leak.sees == "updates" and leak.n == CLIENTS for leak in found.values())


@pytest.mark.parametrize("name", TABLE_FAMILIES)
def test_noise_on_every_coordinate_brings_both_to_chance(name: str) -> None:
    specs, batch = sent(name)
    right = 0.0
    for seed in range(10):
        found = measured(view(on_every_row(batch, specs, 8.0, seed), rehearsed=batch))
        assert found["exact rows"].value == 0.0 and not found["exact rows"].above_chance
        right += CLIENTS * found["line-up"].value
    assert stats.binom.sf(right - 1, 10 * CLIENTS, 1 / CLIENTS) > 1e-4


@pytest.mark.parametrize("name", TABLE_FAMILIES)
def test_noise_on_touched_rows_alone_hides_no_row(name: str) -> None:
    """A protection that is none: the attack must see it."""
    batch, rng = sent(name)[1], np.random.default_rng(0)
    noised = {
        n: RowBatch(t.offsets, t.ids, t.values + rng.normal(0, 8.0, t.values.shape).astype(np.float32))
        for n, t in batch.rows.items()
    }
    found = measured(view(UpdateBatch(batch.count, noised, batch.dense)))
    assert found["exact rows"].value == found["line-up"].value == 1.0


def test_rehearsed_updates_see_through_more_noise_and_rounds_add_up() -> None:
    specs, batch = sent("spectral")
    rounds = [on_every_row(batch, specs, 0.8, seed) for seed in range(8)]
    blind, one = measured(view(rounds[0]))["line-up"], measured(view(rounds[0], rehearsed=batch))["line-up"]
    all_rounds = measured(view(*rounds, rehearsed=batch))["line-up"]
    assert blind.value < all_rounds.value and one.value < all_rounds.value and all_rounds.value > 0.8


@pytest.mark.parametrize(("sigma", "hidden"), [(8.0, True), (1e-4, False)])
def test_example_mode_hides_the_rows_by_its_noise(sigma: float, hidden: bool) -> None:
    """Real updates of DP-SGD inside the clients; the unit is a client's whole text."""
    family = family_called("word2vec")
    options = family.Options(dimension=4, subsample=0.0, max_pairs=32)
    parameters = family.initial(options, family.specs(options, ROWS), DOMAIN, 0)
    plan = toy_plan("example", "document", sigma=sigma, local_steps=1, unit_rate=1.0)
    training = LocalTraining(local_steps=1, local_epochs=0, batch_size=1, lr=0.1)
    updates = []
    for k, text in enumerate(TEXTS):
        units = family.encode([Record("c", "u", text)], DOMAIN, options)
        source = NoiseSource.seeded_for_tests(k)
        updates.append(
            train_example_mode(family, parameters, units, DOMAIN, options, plan=plan, training=training, source=source)
        )
    found = measured(view(concatenated(updates)))
    assert found["line-up"].above_chance == (not hidden)
    assert not hidden or found["exact rows"].value == 0.0


def test_dense_layers_are_told_apart_by_rehearsed_updates() -> None:
    """One gradient step of the image encoder on one picture a client; only its dense layers are sent."""
    family = family_called("image")
    options = family.Options(size=8, dimension=6, channels=8, blocks=1, classes=4, shift=0)
    parameters = family.initial(options, family.specs(options, 0), None, 0)
    module = family.module(options, 0)
    module.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in parameters.items()})
    rng = np.random.default_rng(0)
    gradients: dict[str, list[np.ndarray]] = {}
    for k in range(CLIENTS):
        record = Record("c", "u", Image(rng.integers(0, 256, (8, 8)).astype(np.uint8), k % 4))
        batch = family.batch(family.encode([record], None, options), None, options, rng)
        module.zero_grad()
        family.loss(module, batch).sum().backward()
        for name, parameter in module.named_parameters():
            gradients.setdefault(name, []).append(-parameter.grad.numpy().copy())
    update = UpdateBatch(CLIENTS, {}, {name: np.stack(each) for name, each in gradients.items()})
    nothing = (np.empty(0, np.int64),) * CLIENTS
    found = measured(view(update, rehearsed=update, rows=0), nothing)
    assert set(found) == {"line-up"} and found["line-up"].value == 1.0
    specs = tuple(ParameterSpec(name, array.shape[1:]) for name, array in update.dense.items())
    noised = on_every_row(update, specs, 8.0, seed=0)
    assert not measured(view(noised, rehearsed=update, rows=0), nothing)["line-up"].above_chance


def test_cosines_equal_dense_arrays() -> None:
    specs, batch = sent("useritem")
    other = on_every_row(batch, specs, 0.1, seed=3)

    def flat(updates: UpdateBatch, k: int) -> np.ndarray:
        parts = []
        for spec in specs:
            whole = np.zeros(spec.shape)
            if spec.is_table:
                table = updates.rows[spec.name]
                part = slice(table.offsets[k], table.offsets[k + 1])
                whole[table.ids[part]] = table.values[part]
            else:
                whole += updates.dense[spec.name][k]
            parts.append(whole.ravel())
        return np.concatenate(parts)

    for updates, rehearsed in ((batch, other), (other, batch), (batch, batch)):
        for k in (0, 7):
            slow = [flat(updates, k) @ flat(rehearsed, c) / np.linalg.norm(flat(rehearsed, c)) for c in EVERYBODY]
            assert np.allclose(cosines(updates, k, rehearsed), slow, atol=1e-5)


def test_rows_that_stick_out_of_noise_are_named_and_noise_names_none() -> None:
    rng, wanted = np.random.default_rng(0), [3, 50, 51]
    falsely = 0
    for _ in range(100):
        noise = rng.normal(0, 0.3, (2, ROWS, 8)).astype(np.float32)
        for planted in (False, True):
            noise[0, wanted] += 1.5 * planted
            tables = {n: RowBatch(np.array([0, ROWS]), np.arange(ROWS), noise[n]) for n in range(2)}
            seen = RoundView(np.array([0]), updates=UpdateBatch(1, {f"table {n}": t for n, t in tables.items()}))
            named = set(named_rows([seen], ROWS)[0].tolist())
            falsely += len(named - set(wanted))
            assert not planted or set(wanted) <= named
    assert falsely <= 3


def test_the_table_that_the_view_names_is_looked_at() -> None:
    batch = sent("word2vec")[1]
    seen = view(batch)
    decoys = named_rows(seen.rounds, ROWS, table="context.weight")
    assert all(set(own) < set(decoys[c].tolist()) for c, own in enumerate(HELD))
    assert measured(dataclasses.replace(seen, row_table="context.weight"))["exact rows"].value == 0.0


def test_equal_candidates_are_drawn_by_lot() -> None:
    """An attack that names the first of equals would find every client 0 in updates of nothing."""
    guess = best_match(np.zeros((4000, 4)), seed=0)
    assert np.all(np.abs(np.bincount(guess) - 1000) < 150)
    nothing = UpdateBatch(
        CLIENTS,
        {"rows": RowBatch(np.zeros(CLIENTS + 1, np.int64), np.empty(0, np.int64), np.empty((0, 8), np.float32))},
    )
    found = measured(view(nothing))
    assert found["exact rows"].value == 0.0 and not found["line-up"].above_chance


def test_clients_without_data_are_left_out() -> None:
    held = (np.empty(0, np.int64), *HELD[1:])
    found = measured(view(sent("spectral")[1]), held)
    assert found["line-up"].n == CLIENTS - 1 and found["line-up"].chance_value == 1 / (CLIENTS - 1)


SOME = RoundView(EVERYBODY, updates=sent("spectral")[1])
FEW = UpdateBatch(2, {}, {"weight": np.ones((2, 3), np.float32)})


@pytest.mark.parametrize(
    ("rounds", "held", "told"),
    [
        ((), HELD, "single clients' updates"),
        ((RoundView(EVERYBODY),), HELD, "single clients' updates"),
        ((SOME,), (), "rows that clients hold"),
        ((SOME,), HELD[1:], "are enrolled"),
        ((SOME,), (HELD[0], *[np.empty(0, np.int64)] * (CLIENTS - 1)), "two clients"),
        ((dataclasses.replace(SOME, participants=EVERYBODY[1:]),), HELD, "participants"),
        ((dataclasses.replace(SOME, participants=EVERYBODY + 1),), HELD, "participants"),
        ((dataclasses.replace(SOME, rehearsed=FEW),), HELD, "2 rehearsed"),
        ((RoundView(np.arange(2), updates=FEW),), HELD, "rehearsed updates alone"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    rounds: tuple[RoundView, ...], held: tuple[np.ndarray, ...], told: str
) -> None:
    with pytest.raises(EvaluationError, match=told):
        ATTACK.run(View(CLIENTS, PRIOR, rounds), Truth(held_rows=held), seed=0)
