"""MT-bench: open questions of two turns, compared in pairs by a judge model (Zheng et al. 2023, arXiv 2306.05685)."""

from __future__ import annotations

from pydantic import BaseModel, Field

from evaluation.lab.tasks.base import Item, Record, Task


class _Line(BaseModel):
    turns: list[str] = Field(min_length=1)


def task() -> Task:
    return Task(name="mt_bench", item=_item, extract=_extract, judged=True)


def _extract(output: str) -> str | None:
    return output.strip() or None


def _item(record: Record) -> Item:
    first, *others = _Line.model_validate(record).turns
    return Item(first, target="", follow_ups=tuple(others))
