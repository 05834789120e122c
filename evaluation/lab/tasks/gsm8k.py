"""GSM8K: grade-school word problems with a number for an answer (Cobbe et al. 2021, arXiv 2110.14168)."""

from __future__ import annotations

from pydantic import BaseModel

from evaluation.lab.tasks import numbers
from evaluation.lab.tasks.base import Item, Record, Task, worked_examples


class _Line(BaseModel):
    question: str
    answer: str


def task() -> Task:
    return Task(
        name="gsm8k",
        item=_item,
        extract=numbers.answer,
        shots=worked_examples("gsm8k"),
        answer_format=numbers.ANSWER_FORMAT,
    )


def _item(record: Record) -> Item:
    line = _Line.model_validate(record)
    _, marks, number = line.answer.rpartition("####")
    target = numbers.canonical(number) if marks else None
    if target is None:
        raise ValueError("answer: there is no number after ####")
    return Item(line.question, target)
