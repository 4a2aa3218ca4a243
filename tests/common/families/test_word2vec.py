import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from common.errors import ConfigError
from common.families import LocalFamily, LocalTraining, ModuleFamily, _skipgram_clients, load
from common.table import RowDomain
from common.units import Record, Units
from common.update import RowBatch, UpdateBatch

FAMILY = load("word2vec")
CENTRE, CONTEXT = "centre.weight", "context.weight"
V = 60
PASSES = LocalTraining(local_steps=0, local_epochs=2, batch_size=4, lr=0.05)
STEPS = replace(PASSES, local_steps=3)


def word(number):
    return chr(97 + number // 26) + chr(97 + number % 26)


DOMAIN = RowDomain(tuple(word(i) for i in range(V)), np.linspace(100, 10, V))


def options(**changes):
    return FAMILY.Options(**({"dimension": 8, "subsample": 0.05, "shared_negatives": 6, "window": 3} | changes))


def parameters(opts, seed=0):
    """Initial values with context rows away from zero, so that one step moves both tables."""
    start = FAMILY.initial(opts, FAMILY.specs(opts, V), DOMAIN, seed)
    noise = np.random.default_rng(seed).standard_normal(start[CONTEXT].shape, dtype=np.float32)
    return {CENTRE: start[CENTRE], CONTEXT: 0.1 * noise}


def client(seed, units=6, length=9, words=V):
    rng = np.random.default_rng(seed)
    lines = [" ".join(word(i) for i in rng.integers(words, size=length)) for _ in range(units)]
    return FAMILY.encode([Record("c", str(u), line) for u, line in enumerate(lines)], DOMAIN, options())


def entries(batch, name, k):
    table = batch.rows.get(name, RowBatch(np.zeros(batch.count + 1, int), np.zeros(0, int), np.zeros((0, 8))))
    part = slice(table.offsets[k], table.offsets[k + 1])
    return table.ids[part], table.values[part]


def update(clients, opts=None, training=PASSES, seeds=None, start=None) -> UpdateBatch:
    opts = opts or options()
    seeds = list(range(len(clients))) if seeds is None else seeds
    return FAMILY.local_update(start or parameters(opts), clients, DOMAIN, opts, training=training, seeds=seeds)


def test_it_offers_both_ways_to_compute():
    assert isinstance(FAMILY, LocalFamily)
    assert isinstance(FAMILY, ModuleFamily)
    specs = FAMILY.specs(options(), V)
    assert [(s.name, s.shape, s.row_domain) for s in specs] == [(CENTRE, (V, 8), "words"), (CONTEXT, (V, 8), "words")]
    state = FAMILY.module(options(), V).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {s.name: s.shape for s in specs}


def test_initial_values_are_those_of_word2vec_and_follow_the_seed():
    opts = options(dimension=50)
    start = FAMILY.initial(opts, FAMILY.specs(opts, V), DOMAIN, 3)
    assert start[CENTRE].dtype == np.float32
    assert 0.009 < np.abs(start[CENTRE]).max() <= 0.01
    assert not start[CONTEXT].any()
    assert np.array_equal(start[CENTRE], FAMILY.initial(opts, FAMILY.specs(opts, V), DOMAIN, 3)[CENTRE])
    assert not np.array_equal(start[CENTRE], FAMILY.initial(opts, FAMILY.specs(opts, V), DOMAIN, 4)[CENTRE])


def test_either_table_may_begin_random_and_a_step_then_moves_only_the_other():
    """At zero, the logistic loss passes each side the other's rows: a side of zeros moves, the random one cannot."""
    opts = options(random_table="context")
    start = FAMILY.initial(opts, FAMILY.specs(opts, V), DOMAIN, 3)
    usual = FAMILY.initial(options(), FAMILY.specs(options(), V), DOMAIN, 3)
    assert not start[CENTRE].any()
    assert np.array_equal(start[CONTEXT], usual[CENTRE])
    one_step = replace(STEPS, local_steps=1)
    assert list(update([client(0)], opts, one_step, start=start).rows[CENTRE].ids)
    assert not len(update([client(0)], opts, one_step, start=start).rows[CONTEXT].ids)
    assert not len(update([client(0)], options(), one_step, start=usual).rows[CENTRE].ids)


def test_encoding_groups_by_unit_and_never_raises():
    records = [
        Record("c", "b", "AA ab, unknown ac!"),
        Record("c", "a", "ad"),
        Record("c", "b", "ae"),
        Record("c", "z", ""),
        Record("c", "y", None),
    ]
    units = FAMILY.encode(records, DOMAIN, options())
    assert units.offsets.tolist() == [0, 4, 5, 5, 5]
    assert units.columns["rows"].tolist() == [0, 1, 2, 4, 3]
    assert units.columns["sentence"].tolist() == [0, 0, 0, 2, 1]
    assert FAMILY.encode([], DOMAIN, options()).count == 0
    with pytest.raises(ConfigError, match="row domain"):
        FAMILY.encode(records, None, options())


def test_export_puts_the_centre_rows_first():
    opts = options()
    values = parameters(opts)
    tables = FAMILY.export(values, DOMAIN, opts)
    assert list(tables) == ["words", "contexts"]
    assert tables["words"].keys == DOMAIN.keys
    assert np.array_equal(tables["words"].vectors, values[CENTRE])


@pytest.mark.parametrize("model", ["sgns", "cbow"])
@pytest.mark.parametrize("training", [PASSES, STEPS, replace(PASSES, batch_size=1000)])
def test_a_client_gets_the_same_result_alone_and_in_company(model, training):
    sizes = [(3, 9), (0, 0), (3, 9), (1, 2), (4, 8), (40, 30), (45, 28), (2, 0), (3, 11), (30, 9), (2, 700)]
    clients = [client(k, *size) for k, size in enumerate(sizes)]
    opts = options(model=model)
    together = update(clients, opts, training)
    assert together.count == len(clients)
    for k, alone in enumerate(clients):
        single = update([alone], opts, training, seeds=[k])
        for name in (CENTRE, CONTEXT):
            ids, values = entries(together, name, k)
            own_ids, own_values = entries(single, name, 0)
            assert ids.tolist() == own_ids.tolist()
            np.testing.assert_allclose(values, own_values, atol=2e-6)


def test_clients_of_like_size_train_together():
    clients = [client(k, 4, 9) for k in range(30)]
    groups = _skipgram_clients._grouped(clients, PASSES.batch_size)
    assert [len(chosen) for chosen, _ in groups] == [30]


def test_the_update_has_the_canonical_form_and_moves_only_touched_rows():
    low = [client(k, 6, 9, words=10) for k in range(3)]
    opts = options()
    batch = update(low, opts)
    for name, table in batch.rows.items():
        assert table.ids.dtype == np.int64
        assert table.values.dtype == np.float32
        for k in range(3):
            ids, values = entries(batch, name, k)
            assert (np.diff(ids) > 0).all()
            assert values.any(axis=1).all()
    assert batch.rows[CENTRE].ids.max() < 10  # negatives move context rows alone
    assert batch.rows[CONTEXT].ids.max() >= 10


def test_results_follow_the_seed_alone():
    clients = [client(0)]
    first, again, other = (update(clients, seeds=[seed]) for seed in (1, 1, 2))
    assert np.array_equal(first.rows[CENTRE].values, again.rows[CENTRE].values)
    assert not np.array_equal(first.rows[CENTRE].values, other.rows[CENTRE].values)


def test_local_steps_visit_as_many_units_as_they_say():
    seen = []
    original = _skipgram_clients.lay_out
    many = client(0, units=50, length=5)

    def spy(tokens, **shape):
        seen.append(tokens)
        return original(tokens, **shape)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_skipgram_clients, "lay_out", spy)
        update([many], options(subsample=0), STEPS)
        update([many], options(subsample=0), PASSES)
    assert [len(tokens.words) for tokens in seen] == [3 * 4 * 5, 50 * 5, 50 * 5]
    assert len(np.unique(seen[0].batch)) == 3
    assert len(np.unique(seen[1].batch)) == -(-50 // 4)


def test_the_learning_rate_falls_with_progress():
    clients = [client(0)]

    def size(progress):
        return np.abs(update(clients, training=replace(PASSES, progress=progress)).rows[CENTRE].values).sum()

    assert size(0.99) < 0.1 * size(0.0)


def test_public_frequencies_rule_never_local_counts():
    """A word that the public list calls very frequent is subsampled away, however rare it is here."""
    public = RowDomain(DOMAIN.keys, np.array([1e6] + [1.0] * (V - 1)))
    opts = options(subsample=1e-3)
    rare = FAMILY.encode([Record("c", "u", "aa " + " ".join(word(i) for i in range(1, 9)))], public, opts)
    moved = [
        FAMILY.local_update(parameters(opts), [rare], public, opts, training=PASSES, seeds=[seed]) for seed in range(30)
    ]
    assert sum(0 in batch.rows[CENTRE].ids for batch in moved) < 10  # kept with chance 0.03 a pass


def test_a_broken_row_stays_with_the_client_that_reads_it():
    opts = options()
    start = parameters(opts)
    start[CENTRE][50] = np.inf
    broken = FAMILY.encode([Record("c", str(u), f"{word(50)} aa ab ac " * 2) for u in range(4)], DOMAIN, opts)
    clients = [client(k, 4, 8, words=20) for k in range(3)] + [broken] + [client(4, 4, 8, words=20)]
    assert len(_skipgram_clients._grouped(clients, PASSES.batch_size)) == 1
    batch = update(clients, opts, start=start)
    finite = [all(np.isfinite(entries(batch, name, k)[1]).all() for name in batch.rows) for k in range(5)]
    assert finite == [True, True, True, False, True]


def test_training_stays_finite_far_above_the_usual_learning_rate():
    opts = options(subsample=0, negatives=20)
    batch = update([client(0, 60, 60, words=5)], opts, replace(PASSES, lr=2.0, batch_size=60, local_epochs=10))
    assert all(np.isfinite(table.values).all() for table in batch.rows.values())


def test_memory_follows_the_rows_touched():
    rows, dimensions = 100_000, 64
    big = RowDomain(tuple(f"k{i}" for i in range(rows)))
    opts = options(dimension=dimensions)
    start = {name: np.zeros((rows, dimensions), np.float32) for name in (CENTRE, CONTEXT)}
    units = Units(np.array([0, 9]), {"rows": np.arange(9, dtype=np.int32), "sentence": np.zeros(9, np.int32)})
    FAMILY.local_update(start, [units], big, opts, training=STEPS, seeds=[0])  # makes the tables of public frequencies
    tracemalloc.start()
    FAMILY.local_update(start, [units], big, opts, training=STEPS, seeds=[1])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < rows  # bytes: not even one byte a row


@pytest.mark.parametrize("model", ["sgns", "cbow"])
def test_words_of_one_topic_come_closer(model):
    opts = options(model=model, dimension=16, shared_negatives=32, subsample=0)
    rng = np.random.default_rng(0)
    values = {name: v.copy() for name, v in FAMILY.initial(opts, FAMILY.specs(opts, V), DOMAIN, 0).items()}
    topics = rng.integers(2, size=200)
    texts = [" ".join(word(2 * i + t) for i in rng.integers(V // 2, size=20)) for t in topics]
    corpus = FAMILY.encode([Record("c", str(u), text) for u, text in enumerate(texts)], DOMAIN, opts)
    for seed in range(5):
        batch = update([corpus], opts, replace(PASSES, lr=0.1, batch_size=16), [seed], values)
        for name, table in batch.rows.items():
            values[name][table.ids] += table.values
    unit = FAMILY.export(values, DOMAIN, opts)["words"].unit_vectors
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1)
    nearest = np.argsort(-cosines, axis=1)[:, :5]
    assert (nearest % 2 == np.arange(V)[:, None] % 2).mean() > 0.95
