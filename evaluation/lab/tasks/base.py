"""The parts of a task: a line of a file becomes a question, a question a prompt, an output an answer, an answer a verdict."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from shared.protocol.guidance import Message

Record = Mapping[str, Any]
"""A line of a data file, parsed as JSON."""


@dataclass(frozen=True)
class Item:
    """One question.

    question: the text that the model reads.
    target: the right answer, as the report shows it.
    data: anything else that the task's scorer needs.
    follow_ups: the user's next messages, one after each answer.
    """

    question: str
    target: str
    data: Mapping[str, Any] = field(default_factory=dict)
    follow_ups: Sequence[str] = ()


class Shot(NamedTuple):
    """A worked example: a user's message and the assistant's."""

    question: str
    answer: str


class Verdict(NamedTuple):
    """A verdict finer than right and wrong. `score` is from 0 to 1."""

    correct: bool | None
    score: float | None = None


def is_target(extracted: str, item: Item) -> bool:
    return extracted == item.target


@dataclass(frozen=True)
class Task:
    """A kind of question, and its scoring. All functions are pure; `score` may be slow, since it runs in a thread.

    name: the task's name in rows and reports.
    item: makes the question of a line. Raises ValueError (pydantic's ValidationError is one) for a bad line.
    extract: returns the answer in the model's output, in one canonical form, or None. It never guesses.
    score: returns True or False for an extracted answer, or a Verdict. By default it compares with the target.
    shots: worked examples; a run uses the first `--shots` of them.
    answer_format: text added to a question if no worked example shows the form of an answer.
    instructions: a system message, if any.
    judged: True if a judge model decides which answers are right, and not `score`.
    file_sha256: digest of the file of a user's own task; `load` sets it.
    """

    name: str
    item: Callable[[Record], Item]
    extract: Callable[[str], str | None]
    score: Callable[[str, Item], bool | Verdict] = is_target
    shots: Sequence[Shot] = ()
    answer_format: str | None = None
    instructions: str | None = None
    judged: bool = False
    file_sha256: str | None = None

    def messages(self, item: Item, shots: int) -> list[Message]:
        """Return the conversation to send: instructions, at most `shots` worked examples, the question."""
        messages = [Message(role="system", content=self.instructions)] if self.instructions else []
        examples = self.shots[:shots]
        for shot in examples:
            messages += [Message(role="user", content=shot.question), Message(role="assistant", content=shot.answer)]
        suffix = f"\n\n{self.answer_format}" if self.answer_format and not examples else ""
        return [*messages, Message(role="user", content=item.question + suffix)]

    def verdict(self, extracted: str | None, item: Item) -> Verdict:
        """Return the verdict: wrong if nothing was extracted, and none yet if a judge decides."""
        if self.judged:
            return Verdict(None)
        if extracted is None:
            return Verdict(correct=False)
        verdict = self.score(extracted, item)
        return verdict if isinstance(verdict, Verdict) else Verdict(verdict)


def worked_examples(task: str) -> tuple[Shot, ...]:
    """Return the worked examples of a task that comes with gkt, from `shots.toml`."""
    examples = tomllib.loads(Path(__file__).with_name("shots.toml").read_text("utf-8"))
    return tuple(Shot(**example) for example in examples[task])
