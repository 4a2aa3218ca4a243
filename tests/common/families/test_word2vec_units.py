"""The module form of word2vec: bounded batches, one loss per unit, no unit that another can move."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.families import load
from common.table import RowDomain
from common.units import Units

FAMILY = load("word2vec")
V = 30
DOMAIN = RowDomain(tuple(f"w{i}" for i in range(V)), np.linspace(50, 5, V))


def options(**changes):
    return FAMILY.Options(**({"dimension": 6, "window": 2, "subsample": 0, "shared_negatives": 4} | changes))


def units(lengths, seed=0):
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    columns = {"rows": rng.integers(V, size=n).astype(np.int32), "sentence": np.zeros(n, np.int32)}
    return Units(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), columns)


def batch(lengths, opts=None, seed=0):
    return FAMILY.batch(units(lengths), DOMAIN, opts or options(), np.random.default_rng(seed))


def module(seed=0):
    torch.manual_seed(seed)
    return FAMILY.module(options(), V)


def slow_loss(model, b, unit):
    """Mean over the predictions of one unit, each term written out."""
    terms = []
    for p in range(b["weights"].shape[1]):
        if b["weights"][unit, p] == 0:
            continue
        hidden = torch.zeros(6)
        for row, share in zip(b["rows.centre.weight"][unit, p], b["mix"][unit, p], strict=True):
            hidden = hidden + share * model.centre.weight[row]
        term = -torch.log(torch.sigmoid(hidden @ model.context.weight[b["rows.context.weight"][unit, p]]))
        for row in b["rows.context.weight.negatives"][unit]:
            term = term - torch.log(torch.sigmoid(-(hidden @ model.context.weight[row]))) * 5 / 4
        terms.append(term)
    return sum(terms) / len(terms) if terms else torch.zeros(())


@pytest.mark.parametrize("model", ["sgns", "cbow"])
def test_the_loss_is_the_slow_one_and_zero_for_a_unit_without_pairs(model):
    b = batch([5, 0, 1, 12], options(model=model))
    losses = FAMILY.loss(module(), b)
    assert losses.shape == (4,)
    expected = torch.stack([slow_loss(module(), b, unit) for unit in range(4)])
    torch.testing.assert_close(losses, expected)
    assert losses[1] == losses[2] == 0
    assert losses[0] > 0


@pytest.mark.parametrize("model", ["sgns", "cbow"])
def test_row_tensors_are_named_after_their_tables(model):
    b = batch([5, 3], options(model=model))
    names = {spec.name for spec in FAMILY.specs(options(), V)}
    for name, tensor in b.items():
        assert tensor.shape[0] == 2
        if tensor.dtype == torch.int64:
            assert any(name == f"rows.{n}" or name.startswith(f"rows.{n}.") for n in names)
            assert int(tensor.min()) >= 0
            assert int(tensor.max()) < V
        else:
            assert tensor.dtype == torch.float32


def test_skip_gram_predicts_exactly_the_words_inside_the_window():
    data = Units(np.array([0, 4]), {"rows": np.arange(4, dtype=np.int32), "sentence": np.array([0, 0, 0, 1], np.int32)})
    opts = options(window=1)
    b = FAMILY.batch(data, DOMAIN, opts, np.random.default_rng(0))
    pairs = zip(b["rows.centre.weight"][0, :, 0].tolist(), b["rows.context.weight"][0].tolist(), strict=True)
    assert set(pairs) == {(0, 1), (1, 0), (1, 2), (2, 1)}  # word 3 is another sentence of the same unit


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=5),
    st.sampled_from(["sgns", "cbow"]),
    st.integers(1, 12),
    st.integers(2, 30),
)
def test_every_unit_is_bounded(lengths, model, max_pairs, max_tokens):
    opts = options(model=model, max_pairs=max_pairs, max_tokens_per_unit=max_tokens)
    b = batch(lengths, opts)
    assert b["weights"].shape[1] <= max_pairs
    data = units(lengths)
    for unit in range(len(lengths)):
        early = set(data.columns["rows"][data.offsets[unit] : data.offsets[unit + 1]][:max_tokens].tolist())
        used = b["weights"][unit] > 0
        assert set(b["rows.context.weight"][unit][used].tolist()) <= early
        assert set(b["rows.centre.weight"][unit][b["mix"][unit] > 0].tolist()) <= early


def test_no_unit_moves_the_loss_of_another():
    model = module()
    b = batch([6, 7, 8])
    alone = torch.cat([FAMILY.loss(model, {name: t[u : u + 1] for name, t in b.items()}) for u in range(3)])
    torch.testing.assert_close(FAMILY.loss(model, b), alone)


def test_negatives_of_units_are_independent_draws_from_public_frequencies():
    opts = options(shared_negatives=50)
    drawn = batch([3] * 400, opts)["rows.context.weight.negatives"].numpy()
    expected = DOMAIN.probabilities**0.75
    expected = drawn.size * expected / expected.sum()
    counts = np.bincount(drawn.reshape(-1), minlength=V)
    assert ((counts - expected) ** 2 / expected).sum() < 58.4  # chi-square, 29 degrees of freedom, 0.999 quantile
    per_unit = (drawn == 0).sum(axis=1)
    share = expected[0] / drawn.size
    assert 2 / 3 < per_unit.var() / (50 * share * (1 - share)) < 3 / 2  # binomial: strata across units would tie them
