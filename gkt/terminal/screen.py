"""Status output of commands that start services."""

from __future__ import annotations

import time
from contextlib import ExitStack

from rich.console import Console
from rich.markup import escape
from rich.status import Status


class Screen:
    """Shows the status on standard error: in one changing line on a terminal, elsewhere in a line for each change."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._shown: Status | None = None
        self._last = ""
        self._began = time.monotonic()
        self._stack = ExitStack()

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._hide()

    def say(self, line: str) -> None:
        self._hide()
        self._console.print(escape(line), soft_wrap=True, highlight=False)

    def status(self, line: str) -> None:
        if self._console.is_terminal:
            shown = f"{escape(line)} [dim]({time.monotonic() - self._began:.0f} s)[/dim]"
            if self._shown is None:
                self._shown = self._stack.enter_context(self._console.status(shown))
            self._shown.update(shown)
        elif line != self._last:
            self.say(line)
        self._last = line

    def _hide(self) -> None:
        self._stack.close()
        self._shown = None
