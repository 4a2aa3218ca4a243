"""Numbers drawn for many clients at once are those that each would draw alone, and they are random."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from common import seeds
from common.seeds import Streams

COUNTS = np.array([3, 0, 5, 1])


def test_splitmix64_gives_the_published_numbers():
    """Vectors of the public-domain reference implementation (Vigna), seed 1234567."""
    state = np.uint64(1234567) + np.arange(1, 6, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert seeds._mixed(state).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@pytest.mark.parametrize("draw", ["uniform", "permutations"])
def test_a_client_draws_what_it_would_draw_alone(draw):
    together = getattr(Streams([1, 2, 3, 2**63 + 5]), draw)(COUNTS, "purpose", 1)
    for k, seed in enumerate([1, 2, 3, 2**63 + 5]):
        alone = getattr(Streams([seed]), draw)(COUNTS[k : k + 1], "purpose", 1)
        begin = COUNTS[:k].sum()
        assert together[begin : begin + COUNTS[k]].tolist() == alone.tolist()


def test_purposes_and_seeds_give_numbers_of_their_own_and_a_purpose_gives_the_same_again():
    many = np.array([50])
    drawn = [Streams([s]).uniform(many, *p) for s, p in itertools.product([1, 2], [("a", 0), ("a", 1), ("b", 0)])]
    assert len({x for numbers in drawn for x in numbers.tolist()}) == 6 * 50
    assert drawn[0].tolist() == Streams([1]).uniform(many, "a", 0).tolist()


def chi_square(observed: np.ndarray) -> float:
    expected = observed.sum() / observed.size
    return float(((observed - expected) ** 2 / expected).sum())


def test_numbers_are_uniform_along_a_stream_and_across_neighbouring_seeds():
    bound = 37.7  # 15 degrees of freedom, 0.999 quantile
    along = Streams([7]).uniform(np.array([32_000]), "x")
    across = Streams(range(32_000)).uniform(np.ones(32_000, np.int64), "x")
    for numbers in (along, across):
        pairs = np.histogram2d(numbers[::2], numbers[1::2], bins=4, range=[[0, 1], [0, 1]])[0]
        assert chi_square(np.histogram(numbers, bins=16, range=(0, 1))[0]) < bound
        assert chi_square(pairs) < bound
    sorted_numbers = np.histogram2d(np.sort(along)[::2], np.sort(along)[1::2], bins=4, range=[[0, 1], [0, 1]])[0]
    assert chi_square(sorted_numbers) > bound


def test_every_permutation_is_one_and_all_come_equally_often():
    clients = 6_000
    orders = Streams(range(clients)).permutations(np.full(clients, 3), "order").reshape(-1, 3)
    assert (np.sort(orders, axis=1) == np.arange(3)).all()
    assert chi_square(np.bincount(orders @ [9, 3, 1])[[5, 7, 11, 15, 19, 21]]) < 20.5  # 5 degrees of freedom, 0.999


def test_strata_hold_one_number_each():
    values, order = Streams([1, 2, 3, 4]).stratified(COUNTS, "s")
    assert np.floor(values * np.repeat(COUNTS, COUNTS)).astype(int).tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 0]
    assert [sorted(part.tolist()) for part in np.split(order, [3, 8])] == [[0, 1, 2], [3, 4, 5, 6, 7], [8]]
