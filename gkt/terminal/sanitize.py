"""Remove control sequences from text of models and servers, which must not control the terminal."""

from __future__ import annotations

import re

_SEQUENCE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]")
_BEGUN = re.compile(r"(?:\x1b|(?:\x1b\[|\x9b)[0-?]{0,40}[ -/]{0,8})\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Plain:
    """Removes control characters and escape sequences from streamed text. Line feeds and tabs stay."""

    def __init__(self) -> None:
        self._begun = ""

    def push(self, text: str) -> str:
        """Return the text that can be shown now; an incomplete escape sequence is held until its end."""
        text = _SEQUENCE.sub("", self._begun + text)
        begun = _BEGUN.search(text)
        self._begun = begun.group() if begun else ""
        return _CONTROL.sub("", text[: begun.start()] if begun else text)


def plain(text: str) -> str:
    """Remove control characters and escape sequences from a whole text."""
    return _CONTROL.sub("", _SEQUENCE.sub("", text))
