"""Row domains and tables."""

import numpy as np
import pytest

from common.errors import ConfigError
from common.table import HASHED, EmbeddingTable, RowDomain


def test_hashed_rows_hold_every_string():
    domain = RowDomain(tuple(f"bucket:{i}" for i in range(50)), source=HASHED)
    rows = [domain.row_of.get(f"word{i}") for i in range(2000)]
    assert min(rows) >= 0
    assert max(rows) < 50
    assert np.bincount(rows, minlength=50).min() > 10
    assert rows == [RowDomain(domain.keys, source=HASHED).row_of[f"word{i}"] for i in range(2000)]


@pytest.mark.parametrize("keys", [(), ("a", "a")])
def test_keys_are_present_and_distinct(keys):
    with pytest.raises(ConfigError):
        RowDomain(keys)


@pytest.mark.parametrize("frequencies", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, np.nan], [1.0, np.inf]])
def test_frequencies_are_positive_and_finite(frequencies):
    with pytest.raises(ConfigError):
        RowDomain(("a", "b"), np.array(frequencies))


def test_digest_tells_keys_and_frequencies_apart():
    digests = {
        RowDomain(("a", "b")).digest,
        RowDomain(("b", "a")).digest,
        RowDomain(("a\nb",)).digest,
        RowDomain(("a", "b"), np.array([1.0, 2.0])).digest,
        RowDomain(("a", "b"), np.array([2.0, 1.0])).digest,
    }
    assert len(digests) == 5


def test_neighbors_equal_a_full_sort():
    vectors = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    table = EmbeddingTable(tuple(f"k{i}" for i in range(40)), vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = unit @ unit[7]
    expected = [f"k{i}" for i in np.argsort(-scores, kind="stable") if i != 7][:5]
    assert [key for key, _ in table.neighbors("k7", 5)] == expected
    assert len(table.neighbors("k7", 100)) == 39
    with pytest.raises(KeyError):
        table.neighbors("absent")


def test_zero_rows_stay_zero():
    table = EmbeddingTable(("a", "b"), np.array([[0, 0], [3, 4]], np.float32))
    assert table.unit_vectors.tolist() == [[0, 0], [np.float32(0.6), np.float32(0.8)]]
