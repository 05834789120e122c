"""Where guidance ends and the student begins: the last word stays out until it can no longer change.

A budget cuts a text wherever its last token falls ("1" of "18"). So, near the budget's end, words are let through only when
the next one has begun; where guidance is cut, what was held back is dropped. Far from the end each piece goes straight
through, but for a number: whoever reads its first digits reads a wrong one.
"""

from __future__ import annotations

from typing import NamedTuple

from shared.prompting.word_boundaries import breaks, settled_length, wraps_up

TAIL_TOKENS = 16
"""So near to the budget's end whole words are let through only. A word of more tokens than this can still be cut."""


class Place(NamedTuple):
    """Where in a JSON text something begins: inside a string, and there behind a backslash that escapes it."""

    in_string: bool = False
    escaped: bool = False


class WordBoundaryBuffer:
    """Sorts a growing guidance text into what may be used now and what is held back.

    `budget` is the teacher's limit in tokens. None: nothing follows the guidance, so nothing needs to be held back. In JSON,
    which has few spaces, a string, a number and a mark outside strings are words too.
    """

    def __init__(self, budget: int | None, *, json: bool = False) -> None:
        self._budget = budget
        self._json = json
        self._place = Place()
        self._tokens = 0
        self._held = ""
        self._last = ""
        """The character before what is held back."""
        self._over = False
        """Whether no guidance is to be expected behind what has come."""

    @property
    def ahead(self) -> str:
        """What is held back and will probably be used soon: the student does well to prepare for it."""
        return "" if self._over else self._held

    def push(self, text: str, tokens: int) -> str:
        """Guidance arrived. Returns what may be used now."""
        before = self._held[-1:] or self._last
        self._tokens += tokens
        self._held += text
        if self._budget is None:
            return self._release(len(self._held))
        self._over = wraps_up(before, text, self._budget - self._tokens)
        settled = self._settled()
        if self._budget - self._tokens >= TAIL_TOKENS and not _may_be_number(self._held[settled:]):
            return self._release(len(self._held))
        return self._release(settled)

    def finish(self, *, complete: bool) -> str:
        """Guidance ended: by its own end (`complete`: all of it counts), or cut, which drops the word begun."""
        length = len(self._held) if complete else self._settled()
        in_word = self._place.in_string or not self._json
        if length == 0 and in_word and self._held.isalpha() and not breaks(self._last or " ", self._held[0]):
            length = len(self._held)  # the word's beginning is out already: the rest of it does less harm than a stump
        released = self._release(length)
        self._held = ""
        return released

    def _settled(self) -> int:
        length = settled_length(self._last, self._held)
        return max(length, _settled_json(self._held, self._place)[0]) if self._json else length

    def _release(self, length: int) -> str:
        released, self._held = self._held[:length], self._held[length:]
        self._last = released[-1:] or self._last
        if self._json:
            self._place = _settled_json(released, self._place)[1]
        return released


def _settled_json(text: str, place: Place) -> tuple[int, Place]:
    """Up to where JSON that goes on from a place stays as it is whatever comes next, and the place behind it."""
    settled = 0
    in_string, escaped = place
    for at, character in enumerate(text):
        if in_string:
            in_string = character != '"' or escaped
            escaped = character == "\\" and not escaped
            settled = settled if in_string else at + 1
        elif character in '{[:,]}"':
            in_string = character == '"'
            settled = at if in_string else at + 1
    return settled, Place(in_string, escaped)


def _may_be_number(tail: str) -> bool:
    """Whether the word at the end of a text holds, or is about to hold, digits: `18`, `$18`, `x=18`, `-`."""
    word = tail.strip()
    if not word:
        return True
    return any(c.isdigit() for c in word) or not word[-1].isalpha()
