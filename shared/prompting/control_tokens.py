"""Defence against control tokens in contents: stand-ins that no chat template can turn into a control token.

The first character of every control token in a content is replaced by a private character that occurs nowhere else. So is the
first character of text that could become a control token together with its neighbours: an end that begins one, a start that
finishes one. `shared.prompting.chat_format` has the whole method.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import chain

from shared.errors import InvalidRequest

PRIVATE_USE = (range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE), range(0xE000, 0xF900))


class ContentDisarmer:
    """Puts stand-ins into contents, so that none contains a control token or forms one at its borders."""

    def __init__(self, tokens: Collection[str], pattern: re.Pattern[str] | None, elsewhere: str) -> None:
        self._pattern = pattern
        self._tokens = tuple(tokens)
        self._longest = max(map(len, tokens), default=0)
        self._beginnings = tuple({token[:cut] for token in tokens for cut in range(1, len(token))})
        self._endings = tuple({token[cut:] for token in tokens for cut in range(1, len(token))})
        self._elsewhere = frozenset(elsewhere).union(*tokens)

    def __call__(self, turns: list[dict[str, str]]) -> tuple[list[dict[str, str]], dict[int, str]]:
        """Return the turns with stand-ins, and the original character of each stand-in's code point."""
        marks = [sorted(self._marks(turn["content"])) for turn in turns]
        if not any(marks):
            return turns, {}
        unused = self._unused(turns)
        stand_ins: dict[str, str] = {}
        disarmed = []
        for turn, places in zip(turns, marks, strict=True):
            content = list(turn["content"])
            for place in places:
                original = content[place]
                if original not in stand_ins:
                    stand_ins[original] = next(unused)
                content[place] = stand_ins[original]
            disarmed.append({**turn, "content": "".join(content)})
        return disarmed, {ord(stand_in): original for original, stand_in in stand_ins.items()}

    def _marks(self, content: str) -> set[int]:
        """Return the places of stand-ins in the content."""
        marks: set[int] = set()
        if self._pattern is None:
            return marks
        found = self._pattern.search(content)
        while found:
            marks.add(found.start())
            found = self._pattern.search(content, found.start() + 1)  # tokens may overlap
        # A template may strip the content, so the stripped text has borders too.
        left, right = len(content) - len(content.lstrip()), len(content.rstrip())
        for start, end in {(0, len(content)), (left, right)}:
            if start >= end:
                continue
            if content.startswith(self._endings, start, end) or (
                end - start < self._longest and any(content[start:end] in token for token in self._tokens)
            ):
                marks.add(start)
            if content.endswith(self._beginnings, start, end):
                marks.update(end - len(part) for part in self._beginnings if content.endswith(part, start, end))
        return marks

    def _unused(self, turns: list[dict[str, str]]) -> Iterator[str]:
        used = self._elsewhere.union(*(turn["content"] for turn in turns))
        for candidate in map(chr, chain(*PRIVATE_USE)):
            if candidate not in used:
                yield candidate
        raise InvalidRequest("the conversation uses all of Unicode's private characters", param="messages")


def token_pattern(tokens: Collection[str]) -> re.Pattern[str] | None:
    """Return a pattern that finds the leftmost token, and the longest of those that begin at one place."""
    if not tokens:
        return None
    return re.compile("(" + "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)) + ")")
