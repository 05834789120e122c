"""Wall clocks of services that jump, by libfaketime. Monotonic clocks do not jump, as in reality."""

from __future__ import annotations

from pathlib import Path

from shared.atomic_file import write_atomically

LIBRARIES = ("usr/lib/*/faketime/libfaketime.so.1", "usr/lib/faketime/libfaketime.so.1")
"""Paths of libfaketime on Debian and other systems."""


def find_library() -> Path | None:
    """Return the path of libfaketime, or None if it is not installed."""
    return next((path for pattern in LIBRARIES for path in Path("/").glob(pattern)), None)


class Clocks:
    """The wall clocks of services under libfaketime. Each has a file, which the library reads every second."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._library = library
        self._folder = folder

    def variables(self, name: str) -> dict[str, str]:
        """Return environment variables for a service, whose clock is right at first."""
        self.jump(name, 0)
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file(name)),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }

    def jump(self, name: str, seconds: int) -> None:
        """Set the difference between a service's clock and the real time."""
        write_atomically(self._file(name), f"{seconds:+d}\n")

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.clock"
