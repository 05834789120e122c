"""How long work says how far it is, without knowing who watches: a terminal, a log, nobody."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger("gkt.progress")


class Progress(Protocol):
    """Told of one piece of work at a time: `start`, any number of `advance`, then `finish`, also when the work failed."""

    def start(self, label: str, total_bytes: int | None) -> None:
        """A piece of work begins; its size in bytes, None where nobody knows."""

    def advance(self, amount_bytes: int) -> None:
        """So many bytes more. Less than nothing where a part has to be done again."""

    def finish(self) -> None:
        """It is over."""


class Silent:
    """Nobody watches."""

    def start(self, label: str, total_bytes: int | None) -> None:
        pass

    def advance(self, amount_bytes: int) -> None:
        pass

    def finish(self) -> None:
        pass


class Logged:
    """A line at the start, one every `every_s` seconds, one at the end: where there is no terminal. `say` is given the lines."""

    def __init__(self, every_s: float = 10, *, say: Callable[[str], None] = logger.info) -> None:
        self._every_s = every_s
        self._say = say
        self._label = ""
        self._total: int | None = None
        self._done = 0
        self._began = self._said = 0.0

    def start(self, label: str, total_bytes: int | None) -> None:
        self._label, self._total, self._done = label, total_bytes, 0
        self._began = self._said = time.monotonic()
        self._say(label)

    def advance(self, amount_bytes: int) -> None:
        self._done += amount_bytes
        now = time.monotonic()
        if now - self._said >= self._every_s:
            self._said = now
            of = f" of {self._total / 1e6:.0f}" if self._total else ""
            self._say(f"{self._label}: {self._done / 1e6:.0f}{of} MB")

    def finish(self) -> None:
        self._say(f"{self._label}: over after {time.monotonic() - self._began:.1f} s")
