"""SVAMP: short word problems, varied so that shallow reading fails (Patel et al. 2021, arXiv 2103.07191).

The file is ChilleD/SVAMP's: an array, or lines, of `Body`, `Question`, `Answer`.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from evaluation.lab.tasks import numbers
from evaluation.lab.tasks.base import Item, Record, Task, worked_examples


class _Line(BaseModel):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    body: str = Field(alias="Body")
    question: str = Field(alias="Question")
    answer: str = Field(alias="Answer")


def task() -> Task:
    return Task(
        name="svamp",
        item=_item,
        extract=numbers.answer,
        shots=worked_examples("gsm8k"),
        answer_format=numbers.ANSWER_FORMAT,
    )


def _item(record: Record) -> Item:
    line = _Line.model_validate(record)
    target = numbers.canonical(line.answer)
    if target is None:
        raise ValueError(f"Answer: {line.answer[:40]!r} is not a number")
    body = line.body.strip()
    return Item(f"{body}{'' if body.endswith(('.', '!', '?')) else '.'} {line.question.strip()}", target)
