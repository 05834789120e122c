"""GSM8K: grade-school word problems with a number for an answer (Cobbe et al. 2021, arXiv 2110.14168)."""

from __future__ import annotations

from pydantic import BaseModel

from evaluation.lab.tasks import numbers
from evaluation.lab.tasks.base import Item, Record, Shot, Task

SHOTS = (
    Shot(
        "A baker fills 6 trays with 8 rolls each. She sells 35 of the rolls. How many rolls are left?",
        "She bakes 6 * 8 = 48 rolls.\nThere are 48 - 35 = 13 rolls left.\nThe answer is 13.",
    ),
    Shot(
        "Tickets cost $9 for adults and $5 for children. How much do 2 adults and 3 children pay together?",
        "The adults pay 2 * 9 = 18 dollars.\nThe children pay 3 * 5 = 15 dollars.\n"
        "Together they pay 18 + 15 = 33 dollars.\nThe answer is 33.",
    ),
    Shot(
        "Omar read 40 pages on Monday, and half as many on Tuesday. His book has 150 pages. How many pages does he still "
        "have to read?",
        "On Tuesday he read 40 / 2 = 20 pages.\nSo far he has read 40 + 20 = 60 pages.\n"
        "He still has to read 150 - 60 = 90 pages.\nThe answer is 90.",
    ),
    Shot(
        "A coat costs $80. Its price falls by 25%, and then a coupon takes off $10 more. What does the coat cost in the end?",
        "The price falls by 80 * 0.25 = 20 dollars.\nThen the coat costs 80 - 20 = 60 dollars.\n"
        "With the coupon it costs 60 - 10 = 50 dollars.\nThe answer is 50.",
    ),
)


class _Line(BaseModel):
    question: str
    answer: str


def task() -> Task:
    return Task(name="gsm8k", item=_item, extract=numbers.answer, score=is_target, shots=SHOTS, asked=numbers.ASKED)


def is_target(extracted: str, item: Item) -> bool:
    return extracted == item.target


def _item(record: Record) -> Item:
    line = _Line.model_validate(record)
    _, marks, number = line.answer.rpartition("####")
    target = numbers.canonical(number) if marks else None
    if target is None:
        raise ValueError("answer: no number stands after ####")
    return Item(line.question, target)
