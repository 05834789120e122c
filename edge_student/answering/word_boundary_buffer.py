"""The handover from teacher to student: the last word of the guidance is deferred until it can no longer change.

A budget cuts a text at any token ("1" of "18"). Near the end of the budget a word is therefore released only when the next one
has begun, and a deferred word is dropped if the guidance is cut. Far from the end every piece is released at once, except
numbers: the first digits of a number are a wrong number.
"""

from __future__ import annotations

from typing import NamedTuple

from shared.prompting.word_boundaries import breaks, settled_length, wraps_up

TAIL_TOKENS = 16
"""Tokens at the end of the budget in which only whole words are released. A longer word can still be cut."""


class Place(NamedTuple):
    """State of a JSON text at a position: inside a string, and behind a backslash that escapes the next character."""

    in_string: bool = False
    escaped: bool = False


class WordBoundaryBuffer:
    """Splits a growing guidance text into a part that is released and a rest that is deferred.

    `budget` is the teacher's limit in tokens. If it is None, no text follows the guidance, so all of it is released at once. In
    JSON, which has few spaces, a string, a number and a mark outside strings are words too.
    """

    def __init__(self, budget: int | None, *, json: bool = False) -> None:
        self._budget = budget
        self._json = json
        self._place = Place()
        self._tokens = 0
        self._deferred = ""
        self._last = ""
        """The character before the deferred text."""
        self._over = False
        """True if the guidance probably ends here."""

    @property
    def ahead(self) -> str:
        """Deferred text that will probably be released soon. The student may prefill it."""
        return "" if self._over else self._deferred

    def push(self, text: str, tokens: int) -> str:
        """Add guidance. Returns the text that is released now."""
        before = self._deferred[-1:] or self._last
        self._tokens += tokens
        self._deferred += text
        if self._budget is None:
            return self._release(len(self._deferred))
        self._over = wraps_up(before, text, self._budget - self._tokens)
        settled = self._settled()
        if self._budget - self._tokens >= TAIL_TOKENS and not _may_be_number(self._deferred[settled:]):
            return self._release(len(self._deferred))
        return self._release(settled)

    def finish(self, *, complete: bool) -> str:
        """End the guidance. Returns the deferred text: all of it if `complete`, otherwise without an unfinished last word."""
        length = len(self._deferred) if complete else self._settled()
        in_word = self._place.in_string or not self._json
        if length == 0 and in_word and self._deferred.isalpha() and not breaks(self._last or " ", self._deferred[0]):
            length = len(self._deferred)  # its start is released already, and the whole word is better than half of it
        released = self._release(length)
        self._deferred = ""
        return released

    def _settled(self) -> int:
        length = settled_length(self._last, self._deferred)
        return max(length, _settled_json(self._deferred, self._place)[0]) if self._json else length

    def _release(self, length: int) -> str:
        released, self._deferred = self._deferred[:length], self._deferred[length:]
        self._last = released[-1:] or self._last
        if self._json:
            self._place = _settled_json(released, self._place)[1]
        return released


def _settled_json(text: str, place: Place) -> tuple[int, Place]:
    """Return the length of JSON, continued from a place, that no later text can change, and the place behind it."""
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
    """Return whether the word at the end of a text has, or may get, digits: `18`, `$18`, `x=18`, `-`."""
    word = tail.strip()
    if not word:
        return True
    return any(c.isdigit() for c in word) or not word[-1].isalpha()
