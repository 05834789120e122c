"""Pairwise judging by a model of the user's choice, behind any server that speaks OpenAI's chat API.

Each answer is compared with the one that a baseline arm gave to the same question, in both orders; where the two verdicts
disagree it is a tie (Zheng et al. 2023, arXiv 2306.05685, section 3.4). A row's `score` is 1, 0.5 or 0 for better, tie and
worse, and it is `correct` where it is not worse. The baseline's own rows tie with themselves.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from evaluation.lab.errors import JudgeRefused
from evaluation.lab.results.folder import Folder
from evaluation.lab.results.rows import Row

PROMPT = Path(__file__).with_name("judge.txt")
VERDICT = re.compile(r"\[\[([ABC])\]\]")
MAX_TOKENS = 600
Winner = Literal["A", "B", "C"]


@dataclass(frozen=True)
class Judge:
    """`base_url` is OpenAI's: most servers' ends in `/v1`."""

    base_url: str
    model: str
    key: SecretStr | None = None
    timeout_s: float = 600.0


class _Tolerant(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Message(_Tolerant):
    content: str | None = None


class _Choice(_Tolerant):
    message: _Message


class _Said(_Tolerant):
    choices: list[_Choice] = Field(min_length=1)


def baseline_of(arms: Sequence[str]) -> str:
    """The arm that the others are compared with: `teacher` where it is run, or else the first."""
    return "teacher" if "teacher" in arms else arms[0]


async def judge_rows(judge: Judge, folder: Folder, arms: Sequence[str], *, concurrency: int) -> None:
    """Compare what has not been compared yet, and keep each verdict as it comes.

    Raises JudgeRefused where the judge cannot be reached, or answers with an error. A verdict that cannot be read leaves its
    row without one.
    """
    rows = folder.rows()
    baseline = baseline_of(arms)
    against = {row.key: row for row in rows if row.arm == baseline and row.error is None}
    waiting = _pairs([row for row in rows if row.error is None and row.correct is None], against)
    prompt = Template(PROMPT.read_text("utf-8"))
    headers = {"authorization": f"Bearer {judge.key.get_secret_value()}"} if judge.key else {}
    timeout = httpx.Timeout(judge.timeout_s, connect=5, pool=None)

    async with httpx.AsyncClient(headers=headers, timeout=timeout) as http:

        async def worker() -> None:
            for row, other in waiting:
                score = 0.5 if row.arm == baseline else await _compare(http, judge, prompt, row, other)
                if score is not None:
                    folder.add(row.model_copy(update={"score": score, "correct": score >= 0.5}))

        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(concurrency):
                    workers.create_task(worker())
        except* JudgeRefused as refused:
            raise refused.exceptions[0] from None


def _pairs(rows: Sequence[Row], against: dict[tuple[str, str], Row]) -> Iterator[tuple[Row, Row]]:
    for row in rows:
        if row.key in against:
            yield row, against[row.key]


async def _compare(http: httpx.AsyncClient, judge: Judge, prompt: Template, row: Row, other: Row) -> float | None:
    """1, 0.5 or 0 as the row's answer is better, as good, or worse. None where a verdict cannot be read."""
    ahead = await _winner(http, judge, prompt.substitute(question=row.question, first=row.output, second=other.output))
    behind = await _winner(http, judge, prompt.substitute(question=row.question, first=other.output, second=row.output))
    if ahead is None or behind is None:
        return None
    return {("A", "B"): 1.0, ("B", "A"): 0.0}.get((ahead, behind), 0.5)


async def _winner(http: httpx.AsyncClient, judge: Judge, text: str) -> Winner | None:
    """Of one comparison. Raises JudgeRefused."""
    body = {
        "model": judge.model,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
    }
    where = f"the judge at {judge.base_url}"
    try:
        response = await http.post(f"{judge.base_url.rstrip('/')}/chat/completions", json=body)
        if response.status_code != httpx.codes.OK:
            raise JudgeRefused(
                f"{where} answered {response.status_code}: {response.text[:300]}. What was measured is kept"
            )
        said = _Said.model_validate_json(response.content).choices[0].message.content or ""
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise JudgeRefused(f"{where}: {type(error).__name__} {error}. What was measured is kept") from None
    except ValidationError:
        raise JudgeRefused(f"{where} sent what is no chat completion. What was measured is kept") from None
    verdicts = VERDICT.findall(said)
    winner: Winner | None = verdicts[-1] if verdicts else None
    return winner
