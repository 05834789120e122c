from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from wan.link.bit_flips import BitFlips

DATA = bytes(range(256)) * 40


def flipped(noisy: bytes) -> list[int]:
    return [(a ^ b).bit_count() for a, b in zip(DATA, noisy, strict=True)]


@given(st.floats(0.001, 1), st.integers(), st.lists(st.integers(1, len(DATA))))
def test_the_same_bits_however_the_bytes_come_in_pieces(rate: float, seed: int, cuts: list[int]) -> None:
    whole = BitFlips(rate, str(seed)).flipped(DATA, 0)
    pieces = BitFlips(rate, str(seed))
    places = [0, *sorted(cuts), len(DATA)]
    joined = b"".join(pieces.flipped(DATA[a:b], a) for a, b in itertools.pairwise(places))
    assert joined == whole
    assert set(flipped(whole)) <= {0, 1}


def test_places_that_were_not_sent_are_asked_again() -> None:
    noise = BitFlips(0.1, "x")
    first = noise.flipped(DATA, 0)
    assert noise.flipped(DATA, 0) == first
    assert noise.flipped(DATA[100:], 100) == first[100:]


def test_the_rate_is_kept() -> None:
    assert set(flipped(BitFlips(1, "x").flipped(DATA, 0))) == {1}
    assert 0.08 < sum(flipped(BitFlips(0.1, "x").flipped(DATA, 0))) / len(DATA) < 0.12
    assert BitFlips(0.1, "x").flipped(DATA, 0) != BitFlips(0.1, "y").flipped(DATA, 0)
