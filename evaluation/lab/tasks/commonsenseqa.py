"""CommonsenseQA: five choices, one letter (Talmor et al. 2019, arXiv 1811.00937)."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, Field

from evaluation.lab.tasks.base import Item, Record, Shot, Task
from evaluation.lab.tasks.numbers import last_statement

_LETTER = re.compile(r"\(([A-Z])\)|([A-Z])(?=\s*$|[.,:;)])")


def _asked(stem: str, *choices: str) -> str:
    return "\n".join([stem, *(f"({letter}) {text}" for letter, text in zip("ABCDE", choices, strict=False))])


SHOTS = (
    Shot(
        _asked("Where would you put milk so that it stays fresh?", "oven", "fridge", "cupboard", "car", "garden"),
        "Milk stays fresh where it is cold.\nA fridge is the cold place in a kitchen.\nThe answer is (B).",
    ),
    Shot(
        _asked("What do people usually do when they are tired?", "run", "shout", "cook", "paint", "sleep"),
        "Who is tired needs rest.\nSleeping is how people rest.\nThe answer is (E).",
    ),
    Shot(
        _asked("What would a person use to cut paper?", "scissors", "spoon", "pillow", "rope", "glass"),
        "Cutting takes a blade.\nOf these only scissors are blades made for paper.\nThe answer is (A).",
    ),
    Shot(
        _asked("If it starts to rain, what might you open?", "a book", "a letter", "a gift", "an umbrella", "a jar"),
        "In the rain one wants to stay dry.\nAn umbrella is opened to stay dry.\nThe answer is (D).",
    ),
)


class _Choice(BaseModel):
    label: Annotated[str, Field(pattern=r"^[A-Z]$")]
    text: str


class _Question(BaseModel):
    stem: str
    choices: list[_Choice] = Field(min_length=2)


class _Line(BaseModel):
    question: _Question
    answerKey: str  # noqa: N815 - the file's spelling


def task() -> Task:
    asked = "Think step by step, and end with a line that says: The answer is (letter)."
    return Task(name="commonsenseqa", item=_item, extract=_extract, score=_score, shots=SHOTS, asked=asked)


def _extract(output: str) -> str | None:
    """The letter of the last `The answer is (B)`, with or without parentheses; None where a word stands there instead."""
    said = _LETTER.match(last_statement(output).replace("*", "").strip())
    return (said[1] or said[2]) if said else None


def _score(extracted: str, item: Item) -> bool:
    return extracted == item.target


def _item(record: Record) -> Item:
    line = _Line.model_validate(record)
    labels = [choice.label for choice in line.question.choices]
    if len(set(labels)) != len(labels):
        raise ValueError("question.choices: a label stands twice")
    if line.answerKey not in labels:
        raise ValueError(f"answerKey: {line.answerKey[:20]!r} is none of the choices")
    choices = [f"({choice.label}) {choice.text}" for choice in line.question.choices]
    return Item("\n".join([line.question.stem, *choices]), line.answerKey)
