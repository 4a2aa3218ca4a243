from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.secagg import _horner, shamir
from common.secagg.shamir import PRIME, SHARE_BYTES, Recombiner, check_share, combine, split, split_many

from ._tools import refused, stream

SECRET = stream("secret")(32)


def interpolated_at_zero(points: dict[int, int], prime: int = PRIME) -> int:
    """Lagrange's formula, term by term, with an inversion for every factor."""
    total = 0
    for x, y in points.items():
        term = y
        for other in points:
            if other != x:
                term = term * -other * pow(x - other, -1, prime) % prime
        total += term
    return total % prime


def numbers(shares: dict[int, bytes]) -> dict[int, int]:
    return {x: int.from_bytes(share, "big") for x, share in shares.items()}


def is_prime(n: int) -> bool:
    """Miller and Rabin with the first forty primes as witnesses."""
    small = [p for p in range(2, 174) if all(p % q for q in range(2, p))]
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for witness in small:
        value = pow(witness, odd, n)
        if value not in (1, n - 1) and all((value := value * value % n) != n - 1 for _ in range(twos - 1)):
            return False
    return True


def test_the_field_is_one_and_holds_every_secret() -> None:
    assert is_prime(PRIME) and PRIME > 2**256
    assert not any(is_prime(n) for n in range(2**256 + 1, PRIME, 2))  # the first prime above


@pytest.mark.parametrize("threshold", [1, 2, 3, 4, 5])
def test_every_subset_of_the_threshold_gives_the_secret(threshold: int) -> None:
    places = [1, 2, 5, 9, 4_294_967_295]
    shares = dict(zip(places, split(SECRET, places, threshold, stream(threshold)), strict=True))
    assert all(len(share) == SHARE_BYTES for share in shares.values())
    for chosen in itertools.combinations(places, threshold):
        some = {x: shares[x] for x in chosen}
        assert combine(some, threshold) == SECRET
        assert interpolated_at_zero(numbers(some)) == int.from_bytes(SECRET, "big")


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(1, 40), st.data())
def test_any_secret_comes_back(secret: bytes, count: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, count))
    places = data.draw(st.lists(st.integers(1, 2**32 - 1), min_size=count, max_size=count, unique=True))
    shares = dict(zip(places, split(secret, places, threshold, stream(count)), strict=True))
    chosen = data.draw(st.permutations(places))[:threshold]
    assert combine({x: shares[x] for x in chosen}, threshold) == secret
    assert Recombiner(chosen).combine([shares[x] for x in chosen]) == secret


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, bytes(31) + b"\1"])
def test_the_ends_of_the_range_of_secrets(secret: bytes) -> None:
    shares = split(secret, [1, 2, 3], 2, stream("ends"))
    assert combine({1: shares[0], 3: shares[2]}, 2) == secret


@pytest.mark.parametrize("threshold", [2, 3, 5])
@pytest.mark.parametrize("count", [5, 200])
def test_the_polynomial_has_as_many_random_coefficients_as_it_must(threshold: int, count: int) -> None:
    """One fewer, and one share fewer than the threshold would open the secret."""
    places = list(range(1, count + 1))
    shares = dict(zip(places, split(SECRET, places, threshold, stream(threshold)), strict=True))
    random = shamir._uniform(threshold - 1, stream(threshold))
    for x, share in shares.items():
        powers = sum(c * x**power for power, c in enumerate(reversed(random), start=1))
        assert int.from_bytes(share, "big") == (powers + int.from_bytes(SECRET, "big")) % PRIME
    for chosen in itertools.combinations(places[:5], threshold - 1):
        assert interpolated_at_zero(numbers({x: shares[x] for x in chosen})) != int.from_bytes(SECRET, "big")


def test_exactly_the_threshold_is_used() -> None:
    places = [1, 2, 3, 4]
    shares = dict(zip(places, split(SECRET, places, 2, stream(0)), strict=True))
    shares[4] = bytes(SHARE_BYTES)  # wrong, and not needed
    assert combine(shares, 2) == SECRET
    with refused("too_few_shares"):
        combine({1: shares[1]}, 2)
    with refused("too_few_shares"):
        combine({}, 1)
    with refused("too_few_shares"):
        combine(shares, 0)


def test_one_recombiner_serves_many_secrets() -> None:
    places = [7, 3, 11]
    recombiner = Recombiner(places)
    for number in range(20):
        secret = stream(number)(32)
        assert recombiner.combine(split(secret, places, 3, stream(-number))) == secret
    assert recombiner.places == (7, 3, 11)


def test_the_coefficients_are_the_given_randomness_and_uniform_over_the_field() -> None:
    """The draw is a stream of 257-bit numbers; those of the prime or more are left out, all others kept as they are."""
    drawn: list[int] = []

    def recorded(size: int) -> bytes:
        data = stream(len(drawn))(size)
        for start in range(0, size, 33):
            drawn.append(int.from_bytes(data[start : start + 33], "big") >> 7)
        return data

    found = shamir._uniform(500, recorded)
    assert found == [value for value in drawn if value < PRIME][:500]
    assert any(value >= PRIME for value in drawn)
    assert stats.kstest([value / PRIME for value in found], "uniform").pvalue > 1e-4


def test_the_last_element_is_drawn_and_the_prime_is_not() -> None:
    wanted = [PRIME - 1, PRIME, 2**257 - 1, 0, 5]
    data = b"".join((value << 7).to_bytes(33, "big") for value in wanted)
    found = shamir._uniform(3, lambda size: data + bytes(size - len(data)))
    assert found == [PRIME - 1, 0, 5]


def test_fewer_shares_than_the_threshold_are_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a small field, exhaustively: over all coefficients, every value of t - 1 shares comes equally often."""
    prime, threshold, places = 11, 3, (1, 4, 7)
    monkeypatch.setattr(shamir, "PRIME", prime)
    for secret in (0, 6):
        for seen in itertools.combinations(places, threshold - 1):
            views = [
                tuple(shamir._value([*coefficients, secret], x) for x in seen)
                for coefficients in itertools.product(range(prime), repeat=threshold - 1)
            ]
            assert sorted(views) == sorted(itertools.product(range(prime), repeat=threshold - 1))


def test_a_polynomial_whose_top_coefficient_is_never_zero_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A common mistake, "the degree must be exact", makes t - 1 shares exclude one secret; the test above sees it."""
    prime = 11
    monkeypatch.setattr(shamir, "PRIME", prime)
    views = [
        tuple(shamir._value([top, lower, 6], x) for x in (1, 4)) for top in range(1, prime) for lower in range(prime)
    ]
    assert sorted(views) != sorted(itertools.product(range(prime), repeat=2))


@pytest.mark.parametrize("xs", [[], [0, 1], [1, 1], [-1, 2], [1, 2**32]])
def test_bad_places_are_refused(xs: list[int]) -> None:
    with refused("bad_place"):
        split(SECRET, xs, 1, stream(0))
    with refused("bad_place"):
        Recombiner(xs)


def test_bad_thresholds_and_secrets_are_refused() -> None:
    for threshold in (-1, 0, 4):
        with refused("bad_threshold"):
            split(SECRET, [1, 2, 3], threshold, stream(0))
    for secret in (b"", SECRET[:31], SECRET + b"\0"):
        with refused("bad_secret"):
            split(secret, [1, 2], 1, stream(0))


@pytest.mark.parametrize("bad", [b"", bytes(32), bytes(34), PRIME.to_bytes(33, "big"), b"\xff" * 33])
def test_what_is_no_element_of_the_field_is_no_share(bad: bytes) -> None:
    shares = split(SECRET, [1, 2], 2, stream(0))
    with refused("bad_share"):
        combine({1: bad, 2: shares[1]}, 2)
    with refused("bad_share"):
        check_share(bad)
    check_share(shares[0])
    check_share((PRIME - 1).to_bytes(33, "big"))


def test_shares_of_no_32_byte_secret_are_refused() -> None:
    top = (PRIME - 1).to_bytes(33, "big")  # a constant polynomial just above what 32 bytes hold
    with refused("bad_share"):
        combine({1: top, 2: top}, 2)
    last = (2**256 - 1).to_bytes(33, "big")
    assert combine({1: last, 2: last}, 2) == b"\xff" * 32
    with refused("bad_share"):
        combine({1: (2**256).to_bytes(33, "big")}, 1)


def test_another_number_of_shares_is_refused() -> None:
    shares = split(SECRET, [1, 2, 3], 3, stream(0))
    for some in ([], shares[:2], [*shares, shares[0]]):
        with refused("wrong_length"):
            Recombiner([1, 2, 3]).combine(some)


def test_a_changed_share_or_a_wrong_place_gives_another_secret() -> None:
    """Shamir's shares are not authenticated: callers compare what comes out with a commitment or public key."""
    shares = split(SECRET, [1, 2, 3], 3, stream(0))
    changed = (int.from_bytes(shares[0], "big") ^ 1).to_bytes(33, "big")
    assert _opened([1, 2, 3], [changed, *shares[1:]]) != SECRET
    assert _opened([2, 1, 3], shares) != SECRET


def _opened(places: list[int], shares: list[bytes]) -> bytes | None:
    value = interpolated_at_zero(numbers(dict(zip(places, shares, strict=True))))
    try:
        found = Recombiner(places).combine(shares)
    except shamir.SecAggError:
        assert value >= 2**256
        return None
    assert int.from_bytes(found, "big") == value
    return found


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_many_polynomials_at_once_are_each_by_itself(data: st.DataObject) -> None:
    element = st.one_of(st.integers(0, PRIME - 1), st.sampled_from([0, 1, PRIME - 1, 2**256 - 1, 2**256]))
    count = data.draw(st.integers(1, 12))
    polynomials = data.draw(st.lists(st.lists(element, min_size=count, max_size=count), min_size=1, max_size=3))
    top = data.draw(st.sampled_from([1, 5, 1000, 2**17, 2**32 - 1]))
    xs = data.draw(st.lists(st.integers(1, top), min_size=1, max_size=5))
    assert _horner.values(polynomials, xs) == shamir._values(polynomials, xs)


@pytest.mark.parametrize("top", [2**bits - 1 for bits in (1, 4, 8, 10, 11, 12, 17, 18, 31, 32)])
def test_no_word_overflows_however_long_the_polynomial(top: int) -> None:
    """The largest coefficients at the largest places, over many periods between two carries."""
    polynomials = [[PRIME - 1] * 150, [2**256 - 1] * 150, [2**256] * 150]
    assert _horner.values(polynomials, [top, 1]) == shamir._values(polynomials, [top, 1])


@pytest.mark.parametrize("room", [60])
def test_carries_that_come_too_late_would_be_seen(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_horner, "_ROOM_BITS", room)
    polynomials = [[PRIME - 1] * 150]
    assert _horner.values(polynomials, [1023]) != shamir._values(polynomials, [1023])


@pytest.mark.parametrize("count", [20, 100])
def test_secrets_split_together_are_secrets_split_alone(count: int) -> None:
    secrets = [stream(number)(32) for number in range(4)]
    places = [3 * i + 1 for i in range(count)]
    together = split_many(secrets, places, 9, stream("shares"))
    entropy = stream("shares")
    assert together == [split(secret, places, 9, entropy) for secret in secrets]
    assert [combine(dict(zip(places, row, strict=True)), 9) for row in together] == secrets
    assert split_many([], places, 9, stream(0)) == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=30, unique=True))
def test_the_weights_are_those_of_lagrange(xs: list[int]) -> None:
    for i, weight in enumerate(shamir._weights(xs)):
        one_at_i = {x: int(j == i) for j, x in enumerate(xs)}
        assert weight == interpolated_at_zero(one_at_i)
