"""Pairwise judging by a model of the user's choice, behind any server with OpenAI's chat API.

Each answer is compared with the answer of a baseline arm to the same question, in both orders; if the two verdicts disagree
it is a tie (Zheng et al. 2023, arXiv 2306.05685, section 3.4). A row's `score` is 1, 0.5 or 0 for better, tie and worse, and
it is `correct` if it is not worse. The baseline's own rows tie with themselves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Literal

import httpx
from pydantic import SecretStr

from evaluation.lab.errors import JudgeRefused
from evaluation.lab.results.folder import Folder
from evaluation.lab.results.rows import Row
from evaluation.lab.runs.workers import for_each

PROMPT = Path(__file__).with_name("judge.txt")
VERDICT = re.compile(r"\[\[([ABC])\]\]")
MAX_TOKENS = 600
Winner = Literal["A", "B", "C"]


@dataclass(frozen=True)
class Judge:
    """A judge model. `base_url` is OpenAI's: with most servers it ends in `/v1`."""

    base_url: str
    model: str
    key: SecretStr | None = None
    timeout_s: float = 600.0


def baseline_of(arms: Sequence[str]) -> str:
    """Return the arm that the others are compared with: `teacher` if it is run, otherwise the first."""
    return "teacher" if "teacher" in arms else arms[0]


async def judge_rows(judge: Judge, folder: Folder, arms: Sequence[str], *, concurrency: int) -> None:
    """Compare all answers without a verdict, and write each row as soon as it has one.

    Raises JudgeRefused if the judge cannot be reached or answers with an error. A verdict that cannot be parsed leaves its row
    without one.
    """
    rows = [row for row in folder.rows() if row.error is None]
    baseline = baseline_of(arms)
    against = {row.key: row for row in rows if row.arm == baseline}
    waiting = [row for row in rows if row.correct is None and row.key in against]
    prompt = Template(PROMPT.read_text("utf-8"))
    headers = {"authorization": f"Bearer {judge.key.get_secret_value()}"} if judge.key else {}
    timeout = httpx.Timeout(judge.timeout_s, connect=5, pool=None)

    async with httpx.AsyncClient(headers=headers, timeout=timeout) as http:

        async def compare(row: Row) -> None:
            score = 0.5 if row.arm == baseline else await _compare(http, judge, prompt, row, against[row.key])
            if score is not None:
                folder.add(row.model_copy(update={"score": score, "correct": score >= 0.5}))

        await for_each(waiting, compare, concurrency=concurrency)


async def _compare(http: httpx.AsyncClient, judge: Judge, prompt: Template, row: Row, other: Row) -> float | None:
    """Return 1, 0.5 or 0 as the row's answer is better, as good, or worse; None if a verdict cannot be parsed."""
    ahead = await _winner(http, judge, prompt.substitute(question=row.question, first=row.output, second=other.output))
    behind = await _winner(http, judge, prompt.substitute(question=row.question, first=other.output, second=row.output))
    if ahead is None or behind is None:
        return None
    return {("A", "B"): 1.0, ("B", "A"): 0.0}.get((ahead, behind), 0.5)


async def _winner(http: httpx.AsyncClient, judge: Judge, text: str) -> Winner | None:
    """Return the verdict of one comparison. Raises JudgeRefused."""
    body = {
        "model": judge.model,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
    }
    where, kept = f"the judge at {judge.base_url}", "The answers measured so far are kept"
    try:
        response = await http.post(f"{judge.base_url.rstrip('/')}/chat/completions", json=body)
        if response.status_code != httpx.codes.OK:
            raise JudgeRefused(f"{where} answered {response.status_code}: {response.text[:300]}. {kept}")
        content = response.json()["choices"][0]["message"]["content"] or ""
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise JudgeRefused(f"{where}: {type(error).__name__} {error}. {kept}") from None
    except (ValueError, LookupError, TypeError):
        raise JudgeRefused(f"{where} did not answer with a chat completion. {kept}") from None
    verdicts: list[Winner] = VERDICT.findall(str(content))
    return verdicts[-1] if verdicts else None
