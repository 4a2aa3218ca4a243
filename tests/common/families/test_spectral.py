"""The spectral family against dense loops, its sensitivity, and the planted corpus with and without noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError
from common.families import AdditiveFamily, _public_start, load
from common.families.spectral import TABLE, Spectral, SpectralOptions
from common.table import EmbeddingTable, RowDomain
from common.units import Interaction, Record, Units
from common.update import RowBatch, UpdateBatch, squared_norms, summed
from simulations import corpora
from simulations.corpora.planted import TOPICS

FAMILY = Spectral()
TINY = RowDomain(("red", "green", "blue", "black"), np.array([8.0, 4.0, 2.0, 1.0]))


def dense_contributions(q: Any, texts: list[str], options: SpectralOptions, domain: RowDomain) -> Any:
    """The definition in the module's text, one unit and one row at a time."""
    out = np.zeros((len(texts), len(domain), q.shape[1]))
    for k, text in enumerate(texts):
        y, x = np.zeros(len(domain)), np.zeros(len(domain))
        for row, key in enumerate(domain.keys):
            times = min(text.split().count(key), options.max_repeats)
            y[row] = times * domain.probabilities[row] ** -options.rarity
            x[row] = times * domain.probabilities[row] ** -options.context_rarity
        z = sum(x[row] * q[row].astype(np.float64) for row in range(len(domain)))
        size = np.linalg.norm(y) * np.linalg.norm(z)
        if size > 0:
            out[k] = np.outer(y, z) / size
    return out


def as_dense(batch: UpdateBatch, rows: int) -> Any:
    table = batch.rows[TABLE]
    out = np.zeros((batch.count, rows, table.values.shape[1]))
    out[table.owners, table.ids] = table.values
    return out


def encoded(texts: list[str], options: SpectralOptions, domain: RowDomain = TINY) -> Units:
    return FAMILY.encode([Record("c", str(i), t) for i, t in enumerate(texts)], domain, options)


def start(options: SpectralOptions, domain: RowDomain = TINY, seed: int = 3) -> Any:
    return FAMILY.initial(options, FAMILY.specs(options, len(domain)), domain, seed)


def trained(units: Units, options: SpectralOptions, domain: RowDomain, *, rounds: int, stddev: float) -> EmbeddingTable:
    """The whole method on summed contributions, with noise of ``stddev`` in every entry."""
    rng = np.random.default_rng(11)
    parameters = start(options, domain)
    for number in range(rounds):
        total = np.zeros((len(domain), options.dimension), np.float32)
        part = summed(FAMILY.contributions(parameters, units, options), FAMILY.statistics_specs(options, len(domain)))
        total[part.rows[TABLE].ids] = part.rows[TABLE].values
        total += stddev * rng.standard_normal(total.shape).astype(np.float32)
        parameters = FAMILY.server_step(
            parameters, {TABLE: total}, options, noise_stddev=stddev, final=number == rounds - 1
        )
    return FAMILY.export(parameters, domain, options)[TABLE]


def share_of_topic_neighbors(table: EmbeddingTable) -> float:
    """Of the five nearest words of every topic word, the share from its own topic."""
    hits = [near in topic for topic in TOPICS for word in topic for near, _ in table.neighbors(word, 5)]
    return float(np.mean(hits))


@pytest.fixture(scope="module")
def planted() -> tuple[RowDomain, list[Record]]:
    counts = corpora.vocabulary("planted")
    domain = RowDomain(tuple(counts), np.array(list(counts.values())))
    return domain, [Record("c", f"{r.client}/{r.unit}", r.value) for r in corpora.load("planted")]


def test_is_an_additive_family_found_by_name() -> None:
    assert isinstance(load("spectral"), AdditiveFamily)
    assert load("spectral").natural_clip(SpectralOptions()) == 1.0


@pytest.mark.parametrize(
    "options", [SpectralOptions(dimension=3), SpectralOptions(dimension=2, rarity=1, max_repeats=1)]
)
def test_contributions_equal_the_dense_definition(options: SpectralOptions) -> None:
    texts = ["red red red green", "", "blue", "unknown words only", "black green blue red", "green green"]
    parameters = start(options)
    batch = FAMILY.contributions(parameters, encoded(texts, options), options)
    np.testing.assert_allclose(
        as_dense(batch, 4), dense_contributions(parameters[TABLE], texts, options, TINY), atol=1e-6
    )


def test_sum_is_one_power_step_of_the_weighted_cooccurrence_matrix() -> None:
    options = SpectralOptions(dimension=3, rarity=0.0, context_rarity=0.0, max_repeats=1)
    texts = ["red green", "green blue black", "red blue"]
    q = start(options)[TABLE].astype(np.float64)
    x = np.array([[1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 1, 0]], dtype=np.float64)
    scale = 1 / (np.linalg.norm(x, axis=1) * np.linalg.norm(x @ q, axis=1))
    batch = FAMILY.contributions(start(options), encoded(texts, options), options)
    np.testing.assert_allclose(as_dense(batch, 4).sum(axis=0), x.T @ (scale[:, None] * (x @ q)), atol=1e-6)


class WithoutNormalisedDirection(Spectral):
    """Deliberately broken: z keeps its length, so a unit of many words moves the sum by more than others."""

    def contributions(self, parameters: Any, units: Units, options: Any) -> UpdateBatch:
        right = super().contributions(parameters, units, options).rows[TABLE]
        x = units.columns["context"][:, None] * parameters[TABLE][units.columns["rows"]]
        owners = np.repeat(np.arange(units.count), np.diff(units.offsets))
        length = np.zeros(units.count)
        for k in range(units.count):
            length[k] = np.linalg.norm(x[owners == k].sum(axis=0))
        values = (right.values * length[right.owners][:, None]).astype(np.float32)
        return UpdateBatch(units.count, {TABLE: RowBatch(right.offsets, right.ids, values)})


def sensitivities_are_one(family: Spectral, units: Units, parameters: Any, options: SpectralOptions) -> bool:
    """Whether removing any one unit moves the sum by exactly 1 (or 0 for an empty unit)."""
    specs = family.statistics_specs(options, len(parameters[TABLE]))

    def total(kept: np.ndarray) -> Any:
        part = summed(family.contributions(parameters, units.take(kept), options), specs)
        return as_dense(part, len(parameters[TABLE]))[0].astype(np.float64)

    everyone = np.arange(units.count)
    moves = [np.linalg.norm(total(everyone) - total(np.delete(everyone, k))) for k in everyone]
    expected = (np.diff(units.offsets) > 0).astype(float)
    return bool(np.allclose(moves, expected, atol=1e-5))


def test_removing_a_unit_moves_the_sum_by_exactly_one() -> None:
    options = SpectralOptions(dimension=3)
    units = encoded(["red red green", "blue", "", "red green blue black", "black black black"], options)
    assert sensitivities_are_one(FAMILY, units, start(options), options)


def test_sensitivity_check_sees_a_direction_that_is_not_normalised() -> None:
    options = SpectralOptions(dimension=3)
    units = encoded(["red red green", "blue", "", "red green blue black", "black black black"], options)
    assert not sensitivities_are_one(WithoutNormalisedDirection(), units, start(options), options)


@settings(max_examples=40, deadline=None)
@given(
    weights=st.lists(st.floats(width=32), min_size=1, max_size=12),
    rows=st.lists(st.integers(0, 3), min_size=12, max_size=12),
    cut=st.integers(0, 12),
    scale=st.sampled_from([0.0, 1e-30, 1.0, 1e30, float("nan")]),
)
def test_norm_never_exceeds_one_whatever_the_units_hold(
    weights: list[float], rows: list[int], cut: int, scale: float
) -> None:
    column = np.array(weights, dtype=np.float32)
    cut = min(cut, len(column))
    columns = {"rows": np.array(rows[: len(column)], dtype=np.int64), "weight": column, "context": column[::-1].copy()}
    units = Units(np.array([0, cut, len(column)]), columns)
    options = SpectralOptions(dimension=3)
    batch = FAMILY.contributions({TABLE: start(options)[TABLE] * np.float32(scale)}, units, options)
    assert np.all(np.isfinite(batch.rows[TABLE].values))
    assert np.all(squared_norms(batch) <= 1 + 1e-5)


def test_units_joined_into_one_contribute_one() -> None:
    options = SpectralOptions(dimension=3)
    texts = ["red green", "green blue", "red blue black"]
    whole = FAMILY.contributions(start(options), encoded(texts, options).as_one(), options)
    assert whole.count == 1
    assert len(whole.rows[TABLE].ids) == len(np.unique(whole.rows[TABLE].ids)) == 4
    np.testing.assert_allclose(squared_norms(whole), 1.0, atol=1e-6)


def test_chunks_give_the_same_contributions() -> None:
    options = SpectralOptions(dimension=3)
    units = encoded(["red", "green blue", "", "black red", "blue blue"], options)
    whole = as_dense(FAMILY.contributions(start(options), units, options), 4)
    parts = [FAMILY.contributions(start(options), units.slice(k, k + 1), options) for k in range(units.count)]
    np.testing.assert_array_equal(whole, np.concatenate([as_dense(part, 4) for part in parts]))


def test_interactions_and_texts_are_encoded_alike() -> None:
    options = SpectralOptions(dimension=2)
    bought = [Record("c", "ann", Interaction("ann", item)) for item in ("red", "blue", "nothing", "red")]
    from_items, from_text = FAMILY.encode(bought, TINY, options), encoded(["red blue nothing red"], options)
    for name, column in from_items.columns.items():
        np.testing.assert_array_equal(column, from_text.columns[name])
    broken = Record("c", "bob", Interaction("bob", "red", weight=float("nan")))
    assert np.all(np.isfinite(FAMILY.encode([broken], TINY, options).columns["weight"]))


def test_no_records_and_no_known_rows_give_empty_units() -> None:
    options = SpectralOptions(dimension=2)
    assert FAMILY.encode([], TINY, options).count == 0
    assert FAMILY.contributions(start(options), FAMILY.encode([], TINY, options), options).count == 0
    strange = FAMILY.encode([Record("c", "a", 7), Record("c", "b", "nothing known")], TINY, options)
    assert strange.count == 2
    assert strange.offsets[-1] == 0


def test_more_columns_than_rows_are_zero_columns() -> None:
    options = SpectralOptions(dimension=6)
    table = trained(encoded(["red green", "blue black", "red blue"], options), options, TINY, rounds=2, stddev=0.0)
    assert table.vectors.shape == (4, 6)
    assert not table.vectors[:, 4:].any()


def test_domain_is_required() -> None:
    with pytest.raises(ConfigError, match="vocabulary"):
        FAMILY.encode([], None, SpectralOptions())


def test_planted_topics_are_found_without_noise_and_at_a_real_budget(planted: Any) -> None:
    domain, records = planted
    options = SpectralOptions(dimension=12, singular_power=1.0)
    units = FAMILY.encode(records, domain, options)
    assert share_of_topic_neighbors(trained(units, options, domain, rounds=3, stddev=0.0)) > 0.97
    eps_8_stddev = 3**0.5 / 1.53  # three rounds at epsilon 8, delta 1e-6: Gaussian-DP parameter 1.53
    assert share_of_topic_neighbors(trained(units, options, domain, rounds=3, stddev=eps_8_stddev)) > 0.9
    assert share_of_topic_neighbors(trained(units, options, domain, rounds=3, stddev=500.0)) < 0.3


def test_singular_values_are_shrunk_by_what_noise_adds() -> None:
    options = SpectralOptions(dimension=8, drop_first=False, singular_power=1.0)
    noise = np.random.default_rng(0).standard_normal((5000, 8)).astype(np.float32)
    table = FAMILY.server_step({}, {TABLE: noise}, options, noise_stddev=1.0, final=True)[TABLE]
    kept = FAMILY.server_step({}, {TABLE: noise}, options, noise_stddev=0.0, final=True)[TABLE]
    assert np.linalg.norm(table) < 0.2 * np.linalg.norm(kept)


def test_leading_direction_is_left_out(planted: Any) -> None:
    domain, records = planted
    options = SpectralOptions(dimension=12)
    units = FAMILY.encode(records, domain, options)
    without = trained(units, options, domain, rounds=3, stddev=0.0).unit_vectors
    common = trained(units, options.model_copy(update={"drop_first": False}), domain, rounds=3, stddev=0.0).unit_vectors
    assert abs(float((without @ without.T).mean())) < 0.1  # nothing that all rows share is left
    assert float((common @ common.T).mean()) > 0.2


def test_random_start_is_seeded_and_orthonormal() -> None:
    options = SpectralOptions(dimension=3)
    np.testing.assert_array_equal(start(options)[TABLE], start(options)[TABLE])
    assert not np.array_equal(start(options)[TABLE], start(options, seed=4)[TABLE])
    np.testing.assert_allclose(start(options)[TABLE].T @ start(options)[TABLE], np.eye(3), atol=1e-6)


def test_public_start_knows_what_the_public_text_says(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["red green", "red green stone", "blue black", "blue stone black", "red blue"] * 3
    monkeypatch.setattr(_public_start, "stdlib_documentation", lambda: ((f"f{i}", t) for i, t in enumerate(texts)))
    options = SpectralOptions(dimension=6, start="python-stdlib")
    domain = RowDomain((*TINY.keys, "stone", "never"))
    table = EmbeddingTable(domain.keys, start(options, domain)[TABLE])
    counts = np.array([[sum({a, b} <= set(t.split()) for t in texts) for b in domain.keys] for a in domain.keys], float)
    np.fill_diagonal(counts, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log(counts * counts.sum() / np.outer(counts.sum(axis=0), counts.sum(axis=0)))
    information = np.where(counts > 0, np.maximum(information, 0), 0)
    values, vectors = np.linalg.eigh(information)
    positive = vectors[:, values > 1e-9] * np.sqrt(values[values > 1e-9])
    np.testing.assert_allclose(table.vectors @ table.vectors.T, positive @ positive.T, atol=1e-5)
    assert not table.vectors[domain.row_of["never"]].any()
