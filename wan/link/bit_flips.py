"""Flipped bits, the same for the same seed however the bytes come in pieces."""

from __future__ import annotations

import math
from collections import deque
from random import Random


class Noise:
    """Of the bytes of one direction of one connection, flips one bit in a share of `rate`."""

    def __init__(self, rate: float, seed: str) -> None:
        self._rate = rate
        self._random = Random(seed)  # noqa: S311 - noise, not a key
        self._flips: deque[tuple[int, int]] = deque()
        self._next = self._gap() - 1

    def spoiled(self, data: bytes | memoryview, at: int) -> bytes:
        """The bytes from place `at` of the direction on, as they arrive. Places may be asked again, but not go back behind one
        that was passed.
        """
        end = at + len(data)
        while self._next < end:
            self._flips.append((self._next, 1 << self._random.randrange(8)))
            self._next += self._gap()
        while self._flips and self._flips[0][0] < at:
            self._flips.popleft()
        result = bytearray(data)
        for place, bit in self._flips:
            if place < end:
                result[place - at] ^= bit
        return bytes(result)

    def _gap(self) -> int:
        """Bytes to the next flip: geometric."""
        if self._rate >= 1:
            return 1
        return 1 + int(math.log(1.0 - self._random.random()) / math.log1p(-self._rate))
