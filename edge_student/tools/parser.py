"""Finds tool calls in the growing text of an answer, as early as they can be recognized.

The format of a call is that of Hermes' and Qwen's chat templates:

    <tool_call>
    {"name": "weather", "arguments": {"city": "Oslo"}}
    </tool_call>

A grammar constrains an answer that begins with a call, so its calls are returned while they are still written. No grammar
constrains a call behind text: it counts as a call only when it is complete and valid, and is text otherwise. The same holds for a
call in a Markdown fence and for a bare call at the beginning of an answer, which is how Qwen2.5-Coder writes most of them. If the
whole answer must be one call, a JSON schema constrains it, and there is no markup around it.
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
"""Opening marks of a call, each with its closing mark."""

_FENCE = re.compile("|".join(FENCES))
_NAME = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"\\]*)"')
_ARGUMENTS = re.compile(r'\s*,\s*"arguments"\s*:\s*(?=\S)')


@dataclass(frozen=True)
class PlainText:
    """Text that belongs to no call."""

    text: str


@dataclass(frozen=True)
class CallStarted:
    """The start of a call: its name is known."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class CallArguments:
    """The next piece of a call's arguments: JSON as the model writes it."""

    index: int
    text: str


ParserEvent = PlainText | CallStarted | CallArguments


def new_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


class ToolCallParser:
    """Splits an answer that arrives in pieces into text and calls. The result does not depend on where the pieces were cut."""

    def __init__(self, names: Collection[str], *, whole: bool = False, call_id: Callable[[], str] = new_id) -> None:
        """`names` are the functions that may be called. With `whole` the answer is exactly one call."""
        self._names = frozenset(names)
        self._whole = whole
        self._call_id = call_id
        self._state: Callable[[], bool] = self._name if whole else self._beginning
        self._held = ""
        self._events: list[ParserEvent] = []
        self._object = _ObjectEnd()
        self._started = 0
        self._complete = 0

    @property
    def called(self) -> bool:
        """True if the answer has calls and all of them are complete."""
        return 0 < self._started == self._complete

    def push(self, text: str) -> list[ParserEvent]:
        """Add a piece of the answer. Returns what can be recognized now."""
        self._held += text
        while self._state():
            pass
        return self._take()

    def finish(self) -> list[ParserEvent]:
        """End the answer. Returns held text that is no call; markup of an incomplete call is dropped."""
        behind_call = self._state == self._gap and self._started and not self._held.strip()
        if self._held and not behind_call and self._state in {self._beginning, self._gap, self._text, self._candidate}:
            self._events.append(PlainText(self._held))
        self._held = ""
        return self._take()

    def _take(self) -> list[ParserEvent]:
        taken, self._events = self._events, []
        return taken

    # Each state consumes what it can of the held text, and returns whether another state continues with the rest.

    def _beginning(self) -> bool:
        if self._held.startswith(OPEN):
            self._drop(len(OPEN))
            return self._go(self._name)
        return not OPEN.startswith(self._held) and self._go(self._gap)

    def _gap(self) -> bool:
        """At the start or behind a call: white space is dropped unless text follows."""
        rest = self._held.lstrip()
        if rest.startswith((*FENCES, "{")):
            return self._go(self._candidate)
        return not any(fence.startswith(rest) for fence in FENCES) and self._go(self._text)

    def _text(self) -> bool:
        fence = _FENCE.search(self._held)
        if not fence:
            self._emit_text(len(self._held) - max(_partial_fence(self._held, fence) for fence in FENCES))
            return False
        self._emit_text(fence.start())
        return self._go(self._candidate)

    def _candidate(self) -> bool:
        """The held text may be a call, with white space in front, that no grammar constrains."""
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
                if call := _complete_call(self._held[body : end + 1], self._names):
                    name, arguments = call
                    self._events += [self._start_call(name), CallArguments(self._started - 1, arguments)]
                    self._complete += 1
                    self._held = rest[len(close) :]
                    self._object = _ObjectEnd()
                    return self._go(self._gap)
            elif close.startswith(rest):
                return False
        self._object = _ObjectEnd()
        self._emit_text(start)
        return self._go(self._text)

    def _name(self) -> bool:
        found = _NAME.match(self._held)
        if not found:
            return False
        self._events.append(self._start_call(found[1]))
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
        found = self._held if end is None else self._held[:end]
        # White space between the arguments and the end of the call is dropped; inside a string it belongs to the string.
        shown = found if self._object.in_string else found.rstrip()
        if shown:
            self._events.append(CallArguments(self._started - 1, shown))
        if end is None:
            self._drop(len(shown))
            self._object.shift(len(shown))
            return False
        self._drop(end + 1)
        self._complete += self._whole
        return self._go(self._over if self._whole else self._closing)

    def _closing(self) -> bool:
        rest = self._held.lstrip()
        if not rest.startswith(CLOSE):
            return False
        self._held = rest[len(CLOSE) :]
        self._complete += 1
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

    def _start_call(self, name: str) -> CallStarted:
        self._started += 1
        return CallStarted(self._started - 1, self._call_id(), name)

    def _emit_text(self, length: int) -> None:
        if length:
            self._events.append(PlainText(self._held[:length]))
            self._drop(length)

    def _drop(self, length: int) -> None:
        self._held = self._held[length:]


def _complete_call(text: str, names: Collection[str]) -> tuple[str, str] | None:
    """Return the name and the arguments of a complete call, or None if it is not valid."""
    name = _NAME.match(text)
    arguments = _ARGUMENTS.match(text, name.end()) if name else None
    if not name or not arguments or name[1] not in names:
        return None
    value = text[arguments.end() : -1].strip()
    try:
        valid = isinstance(json.loads(value), dict)
    except (ValueError, RecursionError):
        return None
    return (name[1], value) if valid else None


class _ObjectEnd:
    """Finds the brace that ends a JSON object in a growing text, starting inside the object."""

    def __init__(self) -> None:
        self.in_string = False
        self._escaped = False
        self._depth = 0
        self._seen = 0
        self._end: int | None = None

    def find(self, text: str, start: int) -> int | None:
        """Return the end of the object, or None if it has not ended. `text` is the text of the last call, or extends it."""
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

    def shift(self, by: int) -> None:
        """Adjust for `by` characters that were removed at the start of the text."""
        self._seen -= by


def _partial_fence(text: str, fence: str) -> int:
    """Return how many characters at the end of a text may be the beginning of a fence."""
    return next((size for size in range(min(len(text), len(fence) - 1), 0, -1) if text.endswith(fence[:size])), 0)
