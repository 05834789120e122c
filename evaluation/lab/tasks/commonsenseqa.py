"""CommonsenseQA: five choices, one letter (Talmor et al. 2019, arXiv 1811.00937)."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, Field

from evaluation.lab.tasks.base import Item, Record, Task, worked_examples
from evaluation.lab.tasks.numbers import last_statement

_LETTER = re.compile(r"\(([A-Z])\)|([A-Z])(?=\s*$|[.,:;)])")


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
    answer_format = "Think step by step, and end with a line that says: The answer is (letter)."
    return Task(
        name="commonsenseqa",
        item=_item,
        extract=_extract,
        shots=worked_examples("commonsenseqa"),
        answer_format=answer_format,
    )


def _extract(output: str) -> str | None:
    """Return the letter of the last `The answer is (B)`, with or without parentheses; None if a word is there instead."""
    found = _LETTER.match(last_statement(output).replace("*", "").strip())
    return (found[1] or found[2]) if found else None


def _item(record: Record) -> Item:
    line = _Line.model_validate(record)
    labels = [choice.label for choice in line.question.choices]
    if len(set(labels)) != len(labels):
        raise ValueError("question.choices: a label is given twice")
    if line.answerKey not in labels:
        raise ValueError(f"answerKey: {line.answerKey[:20]!r} is not one of the choices")
    choices = [f"({choice.label}) {choice.text}" for choice in line.question.choices]
    return Item("\n".join([line.question.stem, *choices]), line.answerKey)
