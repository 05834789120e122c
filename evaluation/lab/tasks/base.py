"""What a task is: how a line of its file becomes a question, how the model is asked, what its answer is, whether it is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from shared.protocol.guidance import Message

Record = Mapping[str, Any]
"""A line of a data file, as JSON has it."""


@dataclass(frozen=True)
class Item:
    """One question. `data` is whatever the task's own scorer needs besides the target."""

    question: str
    """As the model reads it."""
    target: str
    """What is right, as the report shows it."""
    data: Mapping[str, Any] = field(default_factory=dict)
    follow_ups: Sequence[str] = ()
    """What the user says after each answer, in conversations of several turns."""


class Shot(NamedTuple):
    """A worked example: a turn of the user, and the assistant's."""

    question: str
    answer: str


class Verdict(NamedTuple):
    """Where right and wrong do not say it all. `score` is from 0 to 1."""

    correct: bool | None
    score: float | None = None


@dataclass(frozen=True)
class Task:
    """A kind of question, and how it is scored. All of it is pure but `score`, which may take its time (in a thread).

    name: of the rows, and of the report's sections.
    item: makes the question of a line. Raises ValueError (pydantic's ValidationError is one) for a line that is bad.
    extract: the answer in what the model wrote, in one canonical form; None where there is none. It never guesses.
    score: whether an extracted answer is right: a bool, or a Verdict. Not called where nothing was extracted.
    shots: worked examples, of which a run takes the first `--shots`.
    asked: what is added to a question where no worked example shows how to answer.
    instructions: a system message, if there is one.
    judged: whether a judge model says which answers are right, rather than `score`.
    """

    name: str
    item: Callable[[Record], Item]
    extract: Callable[[str], str | None]
    score: Callable[[str, Item], bool | Verdict]
    shots: Sequence[Shot] = ()
    asked: str | None = None
    instructions: str | None = None
    judged: bool = False

    def messages(self, item: Item, shots: int) -> list[Message]:
        """The conversation that is sent: instructions, so many worked examples, the question."""
        said = [Message(role="system", content=self.instructions)] if self.instructions else []
        shown = self.shots[:shots]
        for shot in shown:
            said += [Message(role="user", content=shot.question), Message(role="assistant", content=shot.answer)]
        asked = f"\n\n{self.asked}" if self.asked and not shown else ""
        return [*said, Message(role="user", content=item.question + asked)]

    def verdict(self, extracted: str | None, item: Item) -> Verdict:
        """Right, wrong, or None where a judge has yet to say it. What cannot be read is wrong."""
        if self.judged:
            return Verdict(None)
        if extracted is None:
            return Verdict(correct=False)
        said = self.score(extracted, item)
        return said if isinstance(said, Verdict) else Verdict(said)
