"""Word boundaries in a text that still grows."""

from __future__ import annotations

import unicodedata

WRAP_UP_TOKENS = 4
"""Number of tokens before a budget's end in which guidance in whole words ends with the current word. The next word would hardly
fit, and the student could not begin before it was dropped.
"""


def settled_length(before: str, text: str) -> int:
    """Return the length of the part of `text` that no later text can change.

    It ends before the white space in front of the last word, or between two characters of a script without spaces. `before` is
    the character in front of the text, if there is one.
    """
    for at in range(len(text) - 1, -1, -1):
        left = text[at - 1] if at else before
        if left and breaks(left, text[at]):
            return at
    return 0


def breaks(left: str, right: str) -> bool:
    """Return True if a word ends between two characters, for any text after them."""
    if right.isspace():
        return not left.isspace()
    if unicodedata.category(right) in {"Mn", "Mc", "Me", "Cf"}:
        return False
    return _spaceless(left) and (_spaceless(right) or not right.isalnum())


def begins_word(before: str, text: str) -> bool:
    """Return True if a word ends at the start of `text` or in it. `before` is the character in front of it, if there is one."""
    return any(left and breaks(left, right) for left, right in zip([before, *text], text, strict=False))


def wraps_up(before: str, text: str, left: int) -> bool:
    """Return True if guidance in whole words ends with `text`, after which the teacher may write `left` more tokens.

    `before` is the character in front of the text, if there is one.
    """
    return left <= 0 or (left < WRAP_UP_TOKENS and begins_word(before, text))


def _spaceless(character: str) -> bool:
    """Return True for scripts without spaces between words: CJK ideographs, kana, Thai, Lao, Khmer, Burmese."""
    point = ord(character)
    return (
        0x0E00 <= point <= 0x0EFF
        or 0x1000 <= point <= 0x109F
        or 0x1780 <= point <= 0x17FF
        or 0x3001 <= point <= 0x30FF
        or 0x3400 <= point <= 0x4DBF
        or 0x4E00 <= point <= 0x9FFF
        or 0xF900 <= point <= 0xFAFF
        or 0x20000 <= point <= 0x3FFFF
    )
