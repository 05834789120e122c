"""MBPP: short Python functions, right when their tests pass (Austin et al. 2021, arXiv 2108.07732)."""

from __future__ import annotations

import re

from pydantic import BaseModel, Field

from evaluation.lab.tasks.base import Item, Record, Task, worked_examples
from evaluation.lab.tasks.sandbox import passes

_BLOCK = re.compile(r"```[ \t]*(?:python3?|py)?[ \t]*\r?\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_CODE = re.compile(r"(?:def|class|import|async def)[ \t]+\w|from[ \t]+[\w.]+[ \t]+import\b|@\w")


class _Line(BaseModel):
    text: str
    test_list: list[str] = Field(min_length=1)
    test_setup_code: str = ""


def task() -> Task:
    return Task(
        name="mbpp",
        item=_item,
        extract=_extract,
        score=_score,
        shots=worked_examples("mbpp"),
        instructions="You write Python functions. Answer with one block of code and nothing else.",
    )


def _extract(output: str) -> str | None:
    """Return the first block of code, or the whole output if it is all code; None otherwise."""
    block = _BLOCK.search(output)
    code = block[1] if block else output if _CODE.match(output) else ""
    return code.replace("\r\n", "\n").strip() or None


def _score(extracted: str, item: Item) -> bool:
    return passes(extracted, setup=item.data["setup"], tests=item.data["tests"])


def _item(record: Record) -> Item:
    line = _Line.model_validate(record)
    return Item(
        "\n".join([line.text, "The function has to pass these tests:", *line.test_list]),
        target="\n".join(line.test_list),
        data={"tests": line.test_list, "setup": line.test_setup_code},
    )
