"""Progress of downloads and other long work, for a terminal, a log or nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger("gkt.progress")


class Progress(Protocol):
    """Receives one job at a time: `start`, any number of `advance`, then `finish`, also if the job failed."""

    def start(self, label: str, total_bytes: int | None) -> None:
        """Begin a job. `total_bytes` is None if its size is unknown."""

    def advance(self, amount_bytes: int) -> None:
        """Add bytes. The amount is negative if a part is repeated."""

    def finish(self) -> None:
        """End the job."""


class Silent:
    """Discards progress."""

    def start(self, label: str, total_bytes: int | None) -> None:
        pass

    def advance(self, amount_bytes: int) -> None:
        pass

    def finish(self) -> None:
        pass


class Logged:
    """Writes a line at the start, every `every_s` seconds and at the end, for output without a terminal."""

    def __init__(self, every_s: float = 10, *, write: Callable[[str], None] = logger.info) -> None:
        self._every_s = every_s
        self._write = write
        self._label = ""
        self._total: int | None = None
        self._done = 0
        self._began = self._written_s = 0.0

    def start(self, label: str, total_bytes: int | None) -> None:
        self._label, self._total, self._done = label, total_bytes, 0
        self._began = self._written_s = time.monotonic()
        self._write(label)

    def advance(self, amount_bytes: int) -> None:
        self._done += amount_bytes
        now = time.monotonic()
        if now - self._written_s >= self._every_s:
            self._written_s = now
            of = f" of {self._total / 1e6:.0f}" if self._total else ""
            self._write(f"{self._label}: {self._done / 1e6:.0f}{of} MB")

    def finish(self) -> None:
        self._write(f"{self._label}: finished after {time.monotonic() - self._began:.1f} s")
