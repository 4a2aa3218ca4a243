"""The laws of integer noise against sums of a hundred digits, and the sampler's ties against the same."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.privacy._block_sampler import BlockSampler
from common.privacy._integer_laws import RATIO_ERROR, DiscreteGaussianLaw, SkellamLaw

from ._integer_oracles import cumulative, gaussian_weight, scripted, skellam_weight

LAWS = [
    (DiscreteGaussianLaw, gaussian_weight, Fraction(1, 2)),
    (DiscreteGaussianLaw, gaussian_weight, Fraction(31, 10)),
    (DiscreteGaussianLaw, gaussian_weight, Fraction(300)),
    (SkellamLaw, skellam_weight, Fraction(1, 100)),
    (SkellamLaw, skellam_weight, Fraction(10)),
    (SkellamLaw, skellam_weight, Fraction(9000)),
]
IDS = [f"{law.__name__}-{parameter}" for law, _, parameter in LAWS]


def peak(block: int, bits: int) -> int:
    return block << bits if block >= 0 else ((block + 1) << bits) - 1


def exact_boundaries(law, weight, parameter, table) -> dict[int, Decimal]:  # type: ignore[no-untyped-def]
    blocks = range(table.first, table.first + len(table.lows) - 1)
    with localcontext() as context:
        context.prec = 100
        return cumulative(lambda x: weight(x, parameter), {h: peak(h, law.block_bits) for h in blocks}, blocks)


@pytest.mark.parametrize(("make", "weight", "parameter"), LAWS, ids=IDS)
@pytest.mark.parametrize("bits", [64, 128])
def test_boundaries_enclose_the_sums_of_a_hundred_digits(make, weight, parameter, bits) -> None:  # type: ignore[no-untyped-def]
    law = make(parameter)
    table = law.boundaries(bits)
    exact = exact_boundaries(law, weight, parameter, table)
    slack = Decimal(2) ** -(bits + 8)  # what the oracle leaves out beyond the last block
    for k, value in enumerate(exact.values(), start=1):
        with localcontext() as context:
            context.prec = 100
            assert Decimal(table.lows[k]) / 2**bits <= value + slack
            assert value - slack < Decimal(table.highs[k] + 1) / 2**bits
        assert table.highs[k] - table.lows[k] <= 1
    assert table.lows[0] == 0 and table.highs[-1] >= 2**bits - 1


@pytest.mark.parametrize(("make", "weight", "parameter"), [LAWS[2], LAWS[5]], ids=[IDS[2], IDS[5]])
def test_ratios_enclose_those_of_a_hundred_digits(make, weight, parameter) -> None:  # type: ignore[no-untyped-def]
    law = make(parameter)
    for block in (-400, -3, -1, 0, 1, 7, 400):
        for place in {0, 1, 2**law.block_bits - 1} & set(range(2**law.block_bits)):
            low, high = law.ratio(block, place, 100)
            with localcontext() as context:
                context.prec = 100
                top, bottom = ((block << law.block_bits) + place, peak(block, law.block_bits))
                exact = weight(top, parameter) / weight(bottom, parameter)
                assert Decimal(low) <= exact * 2**100 <= Decimal(high)
            assert high - low < 2**30


@settings(max_examples=60, deadline=None)
@given(st.integers(-800, 799), st.integers(0, 2**60), st.integers(7, 40))
def test_gaussian_estimates_are_as_near_as_they_say(block: int, place: int, exponent: int) -> None:
    law = DiscreteGaussianLaw(Fraction(2**exponent) * Fraction(13, 10))
    place %= 2**law.block_bits
    estimate = law.ratio_estimates(np.array([block]), np.array([place]))[0]
    low, high = law.ratio(block, place, 80)
    assert abs(Fraction(float(estimate)) - Fraction(low + high, 2**81)) < Fraction(RATIO_ERROR) / 2


def test_skellam_estimates_are_as_near_as_they_say() -> None:
    law = SkellamLaw(Fraction(20_000))
    for block, place in [(0, 0), (0, 1), (-1, 0), (300, 1), (-512, 0), (700, 1)]:
        estimate = law.ratio_estimates(np.array([block]), np.array([place]))[0]
        low, high = law.ratio(block, place, 80)
        assert abs(Fraction(float(estimate)) - Fraction(low + high, 2**81)) < Fraction(RATIO_ERROR) / 2
    assert np.isnan(law.ratio_estimates(np.array([10**6]), np.array([1]))[0])


@pytest.mark.parametrize("law", [DiscreteGaussianLaw(Fraction(1000)), SkellamLaw(Fraction(20_000))])
def test_quick_acceptance_never_exceeds_the_least_ratio_of_a_block(law) -> None:  # type: ignore[no-untyped-def]
    guide = BlockSampler(law)._guide
    decided = np.unique(guide[guide >> 16 != -(2**15)])
    assert len(decided) > 300
    for entry in decided[::40].tolist():
        block, sure = entry >> 16, entry & 0xFFFF
        end = 0 if block < 0 else 2**law.block_bits - 1
        assert sure << 64 <= law.ratio(block, end, 80)[0]


@pytest.mark.parametrize(("make", "weight", "parameter"), LAWS[:2] + LAWS[4:5], ids=IDS[:2] + IDS[4:5])
@pytest.mark.parametrize("k", [5, 6, 7])
@pytest.mark.parametrize("words", [1, 2])
def test_a_tie_of_blocks_is_settled_by_the_bits_that_follow(make, weight, parameter, k: int, words: int) -> None:  # type: ignore[no-untyped-def]
    law = make(parameter)
    exact = exact_boundaries(law, weight, parameter, law.boundaries(256))
    block = sorted(exact)[len(exact) // 2 + k - 6]
    with localcontext() as context:
        context.prec = 100
        boundary = int(exact[block] * 2 ** (64 + 64 * words))  # between `block` and the next
    for offset, expected in ((-2, block), (2, block + 1)):
        first, *rest = words_of(boundary + offset, words)
        source = scripted((first >> 48, 2), ((first << 16) % 2**64, 8), *rest)
        assert BlockSampler(law).draw(source, 1).tolist() == [expected]
        assert source.left == b""


@pytest.mark.parametrize("words", [1, 2])
def test_a_tie_of_acceptance_is_settled_by_the_bits_that_follow(words: int) -> None:
    sigma = Fraction(1000)
    law = DiscreteGaussianLaw(sigma)
    block, place = 100, 5
    assert block << law.block_bits == 800
    with localcontext() as context:
        context.prec = 100
        ratio = int(gaussian_weight(805, sigma) / gaussian_weight(800, sigma) * 2 ** (53 + 64 * words))
    for offset, expected in ((-2, True), (2, False)):
        fine, *rest = words_of(ratio + offset, words)
        chance, more = divmod(fine, 2**37)
        source = scripted((more << 27, 8), *rest)
        accepted = BlockSampler(law)._accept(
            source, np.array([block]), np.array([place]), np.array([chance], dtype=np.uint64)
        )
        assert accepted.tolist() == [expected]
        assert source.left == b""


def words_of(number: int, words: int) -> list:  # type: ignore[type-arg]
    """The upper part of a number, then its ``words`` lower words of 64 bits as parts of a script."""
    lower = [(number >> 64 * i) % 2**64 for i in reversed(range(words))]
    return [number >> 64 * words, *((word, 8) for word in lower)]
