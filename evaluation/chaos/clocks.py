"""Wall clocks of services that jump, by libfaketime. Monotonic clocks stay as they are, as they do in the real world."""

from __future__ import annotations

from pathlib import Path

from shared.atomic_file import write_atomically

LIBRARIES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1")
"""Where Debian's package `libfaketime` has it, and others."""


def library() -> Path | None:
    """libfaketime, where it is installed."""
    root = Path("/")
    return next((path for where in LIBRARIES for path in root.glob(where.removeprefix("/"))), None)


class Clocks:
    """The wall clocks of services under libfaketime, each in a file that it reads again and again."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._library = library
        self._folder = folder

    def environment(self, name: str) -> dict[str, str]:
        """What a service is started with."""
        self.jump(name, 0)
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file(name)),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }

    def jump(self, name: str, seconds: int) -> None:
        """So far from the real time it is, from now on."""
        write_atomically(self._file(name), f"{seconds:+d}\n")

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.clock"
