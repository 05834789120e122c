"""What models without a model say, so that services can be tried without one: every word tells whose it is.

A question has a mark, `[[kqzvhbtx:40]]`: a nonce and how many words the answer has. A word of the answer is that nonce, a letter
for who wrote it, and where in the answer it begins: `kqzvhbtxt0; kqzvhbtxt12; kqzvhbtxs25;`. So whoever reads an answer sees
a word of somebody else's, one that is missing or comes twice, and whether the student went on from exactly what was shown.
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
    """What a question asks for."""

    nonce: str
    words: int

    def __str__(self) -> str:
        return f"[[{self.nonce}:{self.words}]]"


@dataclass(frozen=True)
class EchoWord:
    nonce: str
    writer: str
    claimed_at: int
    """Where its writer thought that it begins."""
    at: int
    """Where it begins."""


class NotEcho(ValueError):
    """A text holds something else than whole words of these."""


def read_mark(prompt: str) -> Mark:
    """The mark of a prompt. Where another request's words or mark are in it, that one's nonce, so that a reader sees it."""
    marks = [Mark(nonce, int(words)) for nonce, words in _MARK.findall(prompt)]
    if not marks:
        return Mark(UNMARKED, WORDS_A_LINE)
    seen = [mark.nonce for mark in marks] + [nonce for nonce, _, _ in _WORD.findall(prompt)]
    foreign = next((nonce for nonce in seen if nonce != marks[0].nonce), None)
    return Mark(foreign or marks[0].nonce, marks[0].words)


def next_word(mark: Mark, answer: str, writer: Writer) -> str | None:
    """What stands behind the beginning of an answer: a word, a line's end, or None where it is complete."""
    count = answer.count(";")
    if count >= mark.words:
        return None
    if answer.endswith(";") and count % WORDS_A_LINE == 0:
        return "\n"
    space = "" if not answer or answer[-1].isspace() else " "
    return f"{space}{mark.nonce}{writer}{len(answer) + len(space)};"


def read_words(text: str, start: int = 0) -> Iterator[EchoWord]:
    """The words of a text that begins at a place of an answer. Raises NotEcho where it is not made of whole ones."""
    at = 0
    while text[at:].strip(" \n"):
        found = _WORD.match(text, at)
        if found is None:
            raise NotEcho(f"{text[at : at + 24]!r} at {start + at} is no word")
        yield EchoWord(found[1], found[2], int(found[3]), start + found.start(1))
        at = found.end()


def foreign_nonces(text: str, nonce: str, nonces: Collection[str]) -> set[str]:
    """Nonces of others in a text that should have none but its own."""
    return {found for found in re.findall(r"(?=([a-z]{8}))", text) if found != nonce and found in nonces}
