"""Text of scripted models, with which services run without a real model. Each word names its request, writer and place.

A question has a mark, `[[kqzvhbtx:40]]`: a nonce and the number of words of the answer. A word of the answer is that nonce, a
letter for its writer, and the offset in the answer where the word begins: `kqzvhbtxt0; kqzvhbtxt12; kqzvhbtxs25;`. A test can
detect words of another request, missing and repeated words, and whether the student continued exactly the text that was shown.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

Writer = Literal["t", "s"]

NONCE_LETTERS = 8
WORDS_A_LINE = 6
UNMARKED = "u" * NONCE_LETTERS

_MARK = re.compile(r"\[\[([a-z]{8}):(\d{1,4})\]\]")
_WORD = re.compile(r"[ \n]?([a-z]{8})([ts])(\d{1,6});")


@dataclass(frozen=True)
class Mark:
    """The answer that a question asks for."""

    nonce: str
    words: int

    def __str__(self) -> str:
        return f"[[{self.nonce}:{self.words}]]"


@dataclass(frozen=True)
class EchoWord:
    nonce: str
    writer: str
    claimed_at: int
    """Offset at which its writer placed the word."""
    at: int
    """Offset at which the word begins."""


class NotEcho(ValueError):
    """A text is not made of whole echo words."""


def read_mark(prompt: str) -> Mark:
    """Return the mark of a prompt; with the nonce of another request if the prompt holds any, so that the answer shows it."""
    marks = [Mark(nonce, int(words)) for nonce, words in _MARK.findall(prompt)]
    if not marks:
        return Mark(UNMARKED, WORDS_A_LINE)
    seen = [mark.nonce for mark in marks] + [nonce for nonce, _, _ in _WORD.findall(prompt)]
    foreign = next((nonce for nonce in seen if nonce != marks[0].nonce), None)
    return Mark(foreign or marks[0].nonce, marks[0].words)


def next_word(mark: Mark, answer: str, writer: Writer) -> str | None:
    """Return the next piece of an answer that has begun: a word or a line end; None if the answer is complete."""
    count = answer.count(";")
    if count >= mark.words:
        return None
    if answer.endswith(";") and count % WORDS_A_LINE == 0:
        return "\n"
    space = "" if not answer or answer[-1].isspace() else " "
    return f"{space}{mark.nonce}{writer}{len(answer) + len(space)};"


def read_words(text: str, start: int = 0) -> Iterator[EchoWord]:
    """Yield the words of a text that begins at offset `start` of an answer. Raises NotEcho."""
    at = 0
    while text[at:].strip(" \n"):
        found = _WORD.match(text, at)
        if found is None:
            raise NotEcho(f"{text[at : at + 24]!r} at {start + at} is not an echo word")
        yield EchoWord(found[1], found[2], int(found[3]), start + found.start(1))
        at = found.end()


def foreign_nonces(text: str, nonce: str, nonces: Collection[str]) -> set[str]:
    """Return the nonces of other requests in a text that should hold only `nonce`."""
    return {found for found in re.findall(r"(?=([a-z]{8}))", text) if found != nonce and found in nonces}
