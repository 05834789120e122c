"""What models and servers wrote, so that it cannot steer the terminal it is shown on."""

from __future__ import annotations

import re

_SEQUENCE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]")
_BEGUN = re.compile(r"(?:\x1b|(?:\x1b\[|\x9b)[0-?]{0,40}[ -/]{0,8})\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Plain:
    """Takes control characters and escape sequences out of text that comes in pieces. Line feeds and tabs stay."""

    def __init__(self) -> None:
        self._begun = ""

    def push(self, text: str) -> str:
        """What can be shown now: the beginning of a sequence waits for its end."""
        text = _SEQUENCE.sub("", self._begun + text)
        begun = _BEGUN.search(text)
        self._begun = begun.group() if begun else ""
        return _CONTROL.sub("", text[: begun.start()] if begun else text)


def plain(text: str) -> str:
    """The same for a whole text."""
    return _CONTROL.sub("", _SEQUENCE.sub("", text))
