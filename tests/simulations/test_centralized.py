import numpy as np
import pytest

from common.errors import ConfigError
from common.families.word2vec import CENTRE, CONTEXT, Word2VecOptions
from simulations import centralized
from simulations.benchmarks.skipgram import encoded, planted_text
from simulations.centralized import Schedule, train_centralized

OPTIONS = Word2VecOptions(dimension=16, subsample=0)


@pytest.fixture(scope="module")
def corpus():
    return encoded(list(planted_text())[:20])


def test_one_worker_is_reproducible_and_learns_the_topics(corpus, monkeypatch):
    monkeypatch.setattr(centralized, "CHUNK_TOKENS", 3_000)
    schedule = Schedule(epochs=6, lr=0.1, workers=1)
    first, again = (train_centralized(corpus.units, corpus.domain, OPTIONS, schedule) for _ in range(2))
    assert np.array_equal(first[CENTRE], again[CENTRE])
    assert np.array_equal(first[CONTEXT], again[CONTEXT])
    vectors = first[CENTRE] / np.linalg.norm(first[CENTRE], axis=1, keepdims=True)
    topic = np.array([(26 * ord(k[0]) + ord(k[1]) - 27 * 97) % 2 for k in corpus.domain.keys])
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    assert (topic[cosines.argmax(axis=1)] == topic).mean() > 0.95


def test_two_workers_share_the_tables(corpus):
    schedule = Schedule(epochs=1, workers=2)
    trained = train_centralized(corpus.units, corpus.domain, OPTIONS, schedule)
    seen = np.flatnonzero(trained[CONTEXT].any(axis=1))
    assert len(seen) == len(corpus.domain)


def test_training_that_does_not_stay_finite_is_refused(corpus, monkeypatch):
    def broken(centre, *_, **__):
        centre[0] = float("nan")

    monkeypatch.setattr(centralized, "train_step", broken)
    with pytest.raises(ConfigError, match="finite"):
        train_centralized(corpus.units, corpus.domain, OPTIONS, Schedule(epochs=1, workers=1))
