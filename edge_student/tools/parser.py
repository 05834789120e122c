"""From the growing text of an answer to calls of tools, as far as they are known.

Calls are written as Hermes' and Qwen's chat templates have it:

    <tool_call>
    {"name": "weather", "arguments": {"city": "Oslo"}}
    </tool_call>

An answer that begins with a call is held to a grammar, so its calls can be given out while they are still written. A call
behind text is held to nothing: it is one only once all of it is there and makes sense, else it stays text. So it is with a
call in a fence of Markdown's, and with a bare one that an answer begins with, which is how Qwen2.5-Coder writes most of them.
Where the whole answer is one call, held to a JSON schema, there is no markup around it either.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
FENCES = {OPEN: CLOSE, "```json": "```"}
"""What may stand around a call, each with its end."""

_FENCE = re.compile("|".join(FENCES))
_NAME = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"\\]*)"')
_ARGUMENTS = re.compile(r'\s*,\s*"arguments"\s*:\s*(?=\S)')


@dataclass(frozen=True)
class PlainText:
    """PlainText that belongs to no call."""

    text: str


@dataclass(frozen=True)
class CallStarted:
    index: int
    id: str
    name: str


@dataclass(frozen=True)
class CallArguments:
    """More of a call's arguments, JSON as the model writes it."""

    index: int
    text: str


ParserEvent = PlainText | CallStarted | CallArguments


def new_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


class ToolCallParser:
    """Takes an answer in pieces and gives out text and calls: joined, the same however the pieces were cut."""

    def __init__(self, names: Collection[str], *, whole: bool = False, call_id: Callable[[], str] = new_id) -> None:
        """`names` are those of the functions that there are. `whole`: the answer is one call and no more."""
        self._names = frozenset(names)
        self._whole = whole
        self._call_id = call_id
        self._state: Callable[[], bool] = self._name if whole else self._beginning
        self._held = ""
        self._events: list[ParserEvent] = []
        self._object = _ObjectEnd()
        self._began = 0
        self._ended = 0

    @property
    def called(self) -> bool:
        """Whether there are calls, and all of them are complete."""
        return 0 < self._began == self._ended

    def push(self, text: str) -> list[ParserEvent]:
        """The answer goes on: what is known by that."""
        self._held += text
        while self._state():
            pass
        return self._take()

    def finish(self) -> list[ParserEvent]:
        """The answer has ended, or is cut: what was held back and is no call, but none of a call's markup."""
        behind_call = self._state == self._gap and self._began and not self._held.strip()
        if self._held and not behind_call and self._state in {self._beginning, self._gap, self._text, self._candidate}:
            self._events.append(PlainText(self._held))
        self._held = ""
        return self._take()

    def _take(self) -> list[ParserEvent]:
        taken, self._events = self._events, []
        return taken

    # Each state reads what it can of what is held, and says whether another one is to go on with the rest.

    def _beginning(self) -> bool:
        if self._held.startswith(OPEN):
            self._drop(len(OPEN))
            return self._go(self._name)
        return not OPEN.startswith(self._held) and self._go(self._gap)

    def _gap(self) -> bool:
        """At the start, or behind a call: white space there is nothing to show, unless text follows."""
        rest = self._held.lstrip()
        if rest.startswith((*FENCES, "{")):
            return self._go(self._candidate)
        return not any(fence.startswith(rest) for fence in FENCES) and self._go(self._text)

    def _text(self) -> bool:
        fence = _FENCE.search(self._held)
        if not fence:
            self._say(len(self._held) - max(_begun(self._held, fence) for fence in FENCES))
            return False
        self._say(fence.start())
        return self._go(self._candidate)

    def _candidate(self) -> bool:
        """What is held may be a call, with white space in front. Nothing holds it to its form."""
        fence = next((one for one in FENCES if self._held.lstrip().startswith(one)), "")
        start, close = len(self._held) - len(self._held.lstrip()) + len(fence), FENCES.get(fence, "")
        body = start + len(self._held[start:]) - len(self._held[start:].lstrip())
        if body == len(self._held):
            return False
        if self._held[body] == "{":
            end = self._object.find(self._held, body + 1)
            if end is None:
                return False
            rest = self._held[end + 1 :].lstrip()
            if rest.startswith(close):
                if call := self._call(self._held[body : end + 1]):
                    self._events += call
                    self._ended += 1
                    self._held = rest[len(close) :]
                    self._object = _ObjectEnd()
                    return self._go(self._gap)
            elif close.startswith(rest):
                return False
        self._object = _ObjectEnd()
        self._say(start)
        return self._go(self._text)

    def _call(self, text: str) -> list[ParserEvent] | None:
        """The events of a whole call, or None where it makes no sense."""
        name = _NAME.match(text)
        arguments = _ARGUMENTS.match(text, name.end()) if name else None
        if not name or not arguments or name[1] not in self._names:
            return None
        said = text[arguments.end() : -1].strip()
        try:
            if not isinstance(json.loads(said), dict):
                return None
        except (ValueError, RecursionError):
            return None
        return [self._begin(name[1]), CallArguments(self._began - 1, said)]

    def _name(self) -> bool:
        found = _NAME.match(self._held)
        if not found:
            return False
        self._events.append(self._begin(found[1]))
        self._drop(found.end())
        return self._go(self._before_arguments)

    def _before_arguments(self) -> bool:
        found = _ARGUMENTS.match(self._held)
        if not found:
            return False
        self._drop(found.end())
        self._object = _ObjectEnd()
        return self._go(self._arguments)

    def _arguments(self) -> bool:
        end = self._object.find(self._held, 0)
        said = self._held if end is None else self._held[:end]
        # White space between the arguments and the end of the call is of neither; inside a string it is the string's.
        shown = said if self._object.in_string else said.rstrip()
        if shown:
            self._events.append(CallArguments(self._began - 1, shown))
        if end is None:
            self._drop(len(shown))
            self._object.moved(len(shown))
            return False
        self._drop(end + 1)
        self._ended += self._whole
        return self._go(self._over if self._whole else self._closing)

    def _closing(self) -> bool:
        rest = self._held.lstrip()
        if not rest.startswith(CLOSE):
            return False
        self._held = rest[len(CLOSE) :]
        self._ended += 1
        return self._go(self._next)

    def _next(self) -> bool:
        rest = self._held.lstrip()
        if not rest.startswith(OPEN):
            return False
        self._held = rest[len(OPEN) :]
        return self._go(self._name)

    def _over(self) -> bool:
        return False

    def _go(self, state: Callable[[], bool]) -> bool:
        self._state = state
        return True

    def _begin(self, name: str) -> CallStarted:
        self._began += 1
        return CallStarted(self._began - 1, self._call_id(), name)

    def _say(self, length: int) -> None:
        if length:
            self._events.append(PlainText(self._held[:length]))
            self._drop(length)

    def _drop(self, length: int) -> None:
        self._held = self._held[length:]


class _ObjectEnd:
    """Looks for the brace that ends a JSON object in a text that grows, from somewhere inside of it on."""

    def __init__(self) -> None:
        self.in_string = False
        self._escaped = False
        self._depth = 0
        self._seen = 0
        self._end: int | None = None

    def find(self, text: str, start: int) -> int | None:
        """Where the object ends, or None as long as it does not. `text` is what it was before, or goes on from there."""
        if self._end is not None:
            return self._end
        for at in range(max(start, self._seen), len(text)):
            character = text[at]
            self._seen = at + 1
            if self.in_string:
                self.in_string = character != '"' or self._escaped
                self._escaped = character == "\\" and not self._escaped
            elif character == '"':
                self.in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                if self._depth == 0:
                    self._end = at
                    return at
                self._depth -= 1
        return None

    def moved(self, by: int) -> None:
        """The text has lost so many characters at its start."""
        self._seen -= by


def _begun(text: str, fence: str) -> int:
    """How many characters at the end of a text may be the beginning of a fence."""
    return next((size for size in range(min(len(text), len(fence) - 1), 0, -1) if text.endswith(fence[:size])), 0)
