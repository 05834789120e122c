"""MBPP: short Python functions, right when their tests pass (Austin et al. 2021, arXiv 2108.07732)."""

from __future__ import annotations

import re

from pydantic import BaseModel, Field

from evaluation.lab.tasks.base import Item, Record, Shot, Task
from evaluation.lab.tasks.sandbox import passes

_BLOCK = re.compile(r"```[ \t]*(?:python3?|py)?[ \t]*\r?\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_CODE = re.compile(r"(?:def|class|import|async def)[ \t]+\w|from[ \t]+[\w.]+[ \t]+import\b|@\w")


def _asked(text: str, *tests: str) -> str:
    return "\n".join([text, "The function has to pass these tests:", *tests])


SHOTS = (
    Shot(
        _asked(
            "Write a function to add up the squares of the numbers from 1 to n.",
            "assert sum_of_squares(3) == 14",
            "assert sum_of_squares(1) == 1",
        ),
        "```python\ndef sum_of_squares(n):\n    return sum(i * i for i in range(1, n + 1))\n```",
    ),
    Shot(
        _asked(
            "Write a function to find the longest word of a sentence; of several the first.",
            "assert longest_word('a green tree') == 'green'",
            "assert longest_word('one two') == 'one'",
        ),
        "```python\ndef longest_word(sentence):\n    return max(sentence.split(), key=len)\n```",
    ),
    Shot(
        _asked(
            "Write a function to remove from a list what stands in it before, keeping the order.",
            "assert without_repeats([2, 1, 2, 3]) == [2, 1, 3]",
            "assert without_repeats([]) == []",
        ),
        "```python\ndef without_repeats(values):\n    return list(dict.fromkeys(values))\n```",
    ),
)


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
        shots=SHOTS,
        instructions="You write Python functions. Answer with one block of code and nothing else.",
    )


def _extract(output: str) -> str | None:
    """The first block of code, or all of it where that is code and nothing but code; None otherwise."""
    block = _BLOCK.search(output)
    code = block[1] if block else output if _CODE.match(output) else ""
    return code.replace("\r\n", "\n").strip() or None


def _score(extracted: str, item: Item) -> bool:
    return passes(extracted, setup=item.data["setup"], tests=item.data["tests"])


def _item(record: Record) -> Item:
    line = _Line.model_validate(record)
    return Item(
        _asked(line.text, *line.test_list),
        target="\n".join(line.test_list),
        data={"tests": line.test_list, "setup": line.test_setup_code},
    )
