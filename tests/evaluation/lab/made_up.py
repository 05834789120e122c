"""Made-up rows of a laboratory run, always the same ones."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from evaluation.lab.results.folder import ROWS
from evaluation.lab.results.rows import Row, SideTokens
from shared.protocol.gkt import Segment, Source

TEXT = (
    "so the number of apples is then we add what she had before and take away the ones that were sold which leaves "
    "half of them for each child per day times seven days gives the total cost in dollars"
)


@dataclass(frozen=True)
class Arm:
    name: str
    reach: float
    """Recovered part of the gap between the student's accuracy and the teacher's, from 0 to 1."""
    share: float
    """Part of the teacher's output tokens that the arm uses, from 0 to 1."""
    calls: int
    seconds: float


ARMS = (
    Arm("off", 0.0, 0.0, 0, 2.4),
    Arm("fixed:10", 0.08, 0.1, 1, 2.5),
    Arm("fixed:20", 0.22, 0.19, 1, 2.6),
    Arm("fixed:40", 0.5, 0.38, 1, 2.9),
    Arm("fixed:80", 0.8, 0.75, 1, 3.3),
    Arm("review:0.1", 0.97, 0.45, 5, 3.9),
    Arm("review:0.1/hand-back=3", 0.9, 0.16, 8, 4.2),
    Arm("teacher", 1.0, 1.0, 1, 4.4),
)
TASKS = {"gsm8k": (0.17, 0.51), "commonsenseqa": (0.42, 0.58), "svamp": (0.35, 0.66)}


def write_rows(folder: Path, rows: Iterable[Row]) -> None:
    """Append rows to a run."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ROWS).open("a", encoding="utf-8") as file:
        file.writelines(row.model_dump_json() + "\n" for row in rows)


def rows(questions: int = 120, *, seed: int = 4) -> Iterator[Row]:
    """Make rows of three tasks and eight arms. Some answers cannot be read, one request failed, one fell back."""
    chance = random.Random(seed)
    for task, (low, high) in TASKS.items():
        for number in range(questions):
            hardness = chance.random()
            first, second = chance.randint(2, 60), chance.randint(2, 60)
            for arm in ARMS:
                wobble = chance.gauss(0, 0.12)
                right = hardness + wobble < low + arm.reach * (high - low)
                yield _row(chance, task, number, arm, right, first, second)


def _row(chance: random.Random, task: str, number: int, arm: Arm, right: bool, first: int, second: int) -> Row:
    identity = f"{task}/{number:04d}"
    question = f"Ann has {first} apples and buys {second} more. She gives each of her friends one. How many are there?"
    target = str(first + second)
    if arm.name == "fixed:80" and number == 3:
        return Row(
            task=task,
            question_id=identity,
            arm=arm.name,
            correct=None,
            question=question,
            error="503 overloaded: try later",
        )
    extracted = target if right else None if chance.random() < 0.1 else str(first + second + chance.randint(1, 9))
    tokens = chance.randint(80, 130)
    output, segments, teacher = _answer(chance, arm, tokens, extracted)
    prompt = arm.calls * 480
    return Row(
        task=task,
        question_id=identity,
        arm=arm.name,
        correct=right,
        extracted=extracted,
        target=target,
        question=question,
        output=output,
        segments=segments,
        teacher=SideTokens(prompt=prompt, cached=int(prompt * 0.9), output=teacher, calls=arm.calls),
        student=SideTokens(prompt=480, cached=400, output=tokens - teacher, calls=1),
        template="maths@1#abc" if arm.calls else None,
        fallback="unreachable" if arm.name == "review:0.1" and number == 5 else None,
        first_token_s=0.3 + 0.1 * chance.random(),
        total_s=arm.seconds * chance.lognormvariate(0, 0.3),
        bytes_sent=900 * arm.calls,
        bytes_received=6 * teacher,
        finish="stop",
    )


def _answer(chance: random.Random, arm: Arm, tokens: int, extracted: str | None) -> tuple[str, list[Segment], int]:
    """Return segments of both sides in turns. A token is a word."""
    words_known = TEXT.split()
    teacher = round(arm.share * tokens)
    turns = max(1, arm.calls - 1) if 0 < arm.share < 1 else 1
    output, segments, left = "", [], [teacher, tokens - teacher]
    for turn in range(turns):
        for at, source in enumerate((Source.TEACHER, Source.STUDENT)):
            words = left[at] if turn == turns - 1 else min(left[at], tokens // turns)
            words = words if turn == turns - 1 else min(words, [teacher, tokens - teacher][at] // turns)
            left[at] -= words
            text = "".join(f"{chance.choice(words_known)} " for _ in range(words))
            if turn == turns - 1 and at == (0 if arm.share == 1 else 1):
                text += f"The answer is {extracted}." if extracted else "I do not know"
            if text:
                segments.append(Segment(source=source, chars=len(text), tokens=words))
            output += text
    return output, segments, teacher
