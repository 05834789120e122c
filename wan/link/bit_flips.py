"""Flipped bits, the same for the same seed for any split of the bytes into pieces."""

from __future__ import annotations

import math
from collections import deque
from random import Random


class BitFlips:
    """Flips one bit in a fraction `rate` of the bytes of one direction of one connection."""

    def __init__(self, rate: float, seed: str) -> None:
        self._rate = rate
        self._random = Random(seed)  # noqa: S311 - bit flips, not a key
        self._flips: deque[tuple[int, int]] = deque()
        self._next = self._gap() - 1

    def flipped(self, data: bytes | memoryview, at: int) -> bytes:
        """Return the bytes from position `at` on, as they arrive. A position may repeat, but not lie before an earlier call's."""
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
        """Draw the number of bytes to the next flip from a geometric distribution."""
        if self._rate >= 1:
            return 1
        return 1 + int(math.log(1.0 - self._random.random()) / math.log1p(-self._rate))
