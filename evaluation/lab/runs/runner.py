"""A run: every question under every arm, several at a time. Each row is written as soon as its answer is there."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.lab.arms import Arm
from evaluation.lab.errors import ArmRefused, BadData, BadTask
from evaluation.lab.results.folder import Folder, ServedModels, open_folder
from evaluation.lab.results.rows import Answer, Row
from evaluation.lab.runs.answer import RequestFailed
from evaluation.lab.runs.ask import ask
from evaluation.lab.runs.config import RunConfig
from evaluation.lab.runs.edge_client import LabEdge
from evaluation.lab.runs.judge import judge_rows
from evaluation.lab.runs.reuse import reusable_rows
from evaluation.lab.runs.workers import for_each
from evaluation.lab.tasks.base import Task
from evaluation.lab.tasks.data import Question

PROBE_TOKENS = 8
PERMANENT_FALLBACKS = frozenset({"not_configured", "unauthorized", "rejected", "unreachable", "failed"})
"""Fallback reasons that the next request would meet too."""


@dataclass(frozen=True)
class Job:
    """A question to ask under an arm."""

    question: Question
    arm: Arm

    @property
    def key(self) -> tuple[str, str]:
        return self.question.id, self.arm.text


OnProgress = Callable[[int, int], None]
"""Receives the number of rows that are done, and of all rows: at the start and after each row."""


async def run(config: RunConfig, edge_url: str, out: Path, on_progress: OnProgress) -> list[Row]:
    """Ask all questions whose rows are missing in the folder. Returns all its rows.

    Raises BadTask if the task needs no judge; BadFolder, ArmRefused and EdgeGone before the first question; EdgeGone and
    JudgeRefused later too, with every finished row in the folder. A request that fails by itself becomes a row with an
    `error`; the next run into the folder asks it again.
    """
    if not config.data.questions:
        raise BadData(f"{config.data.path} has no questions in lines {config.data.lines}")
    if config.judge and not config.task.judged:
        raise BadTask(f"task {config.task.name} takes no judge: its own scorer decides which answers are right")
    spec = config.spec()
    with open_folder(out) as folder:
        rows = folder.rows() if folder.has_run(spec) else []
        done = {(row.question_id, row.arm) for row in rows if _is_done(row, config)}
        jobs = [job for job in ordered(config.data.questions, config.arms, config.concurrency) if job.key not in done]
        total = len(config.data.questions) * len(config.arms)
        on_progress(total - len(jobs), total)
        if jobs:
            async with LabEdge(edge_url, connections=config.concurrency, timeout_s=config.timeout_s) as edge:
                models = await _probe(edge, config, jobs)
                folder.start(spec, models)
                jobs = await _reuse(config, models, jobs, folder)
                progress = itertools.count(total - len(jobs))
                on_progress(next(progress), total)

                async def answer(job: Job) -> None:
                    folder.add(await _row(edge, config, job))
                    on_progress(next(progress), total)

                await for_each(jobs, answer, concurrency=config.concurrency)
        if config.judge:
            await judge_rows(config.judge, folder, spec.arms, concurrency=config.concurrency)
        return folder.rows()


def ordered(questions: Sequence[Question], arms: Sequence[Arm], block: int) -> Iterator[Job]:
    """Yield blocks of questions, each block under every arm in turn, beginning with another arm each time.

    So every arm finds its questions' prompts in the prefix caches equally often, and none runs only while the machine is
    warm, or cold.
    """
    for at, first in enumerate(range(0, len(questions), block)):
        turn = at % len(arms)
        for arm in [*arms[turn:], *arms[:turn]]:
            for question in questions[first : first + block]:
                yield Job(question, arm)


def _is_done(row: Row, config: RunConfig) -> bool:
    return row.error is None and not (config.retry_fallbacks and row.fallback)


async def _probe(edge: LabEdge, config: RunConfig, jobs: Sequence[Job]) -> ServedModels:
    """Ask for a few tokens under each arm that has questions left, to find out early which arms cannot work.

    Raises EdgeGone, and ArmRefused if the edge refuses an arm or has no cloud for it.
    """
    student = await edge.student()
    teacher: str | None = None
    templates: dict[str, str] = {}
    question = jobs[0].question
    messages = config.task.messages(question.item, config.shots)
    tokens = min(PROBE_TOKENS, config.max_tokens)
    left = {job.arm.text for job in jobs}
    for arm in config.arms:
        if arm.text not in left:
            continue
        # In these the student decides whether the teacher is asked; the teacher must be able to answer.
        for probe in (arm, Arm.parse("teacher")) if arm.asks_student_first else (arm,):
            try:
                answer = await ask(edge, probe, messages, question_id=question.id, max_tokens=tokens, seed=config.seed)
            except RequestFailed as error:
                raise ArmRefused(f"the edge refuses arm {arm.text!r}: {error}") from None
            if answer.fallback in PERMANENT_FALLBACKS:
                raise ArmRefused(f"arm {arm.text!r} needs the cloud, which the edge cannot use: {answer.fallback}")
            teacher = answer.teacher_model or teacher
            if answer.template:
                templates[arm.text] = answer.template
    return ServedModels(student=student, teacher=teacher, templates=templates)


async def _reuse(config: RunConfig, models: ServedModels, jobs: Sequence[Job], folder: Folder) -> list[Job]:
    """Write the rows that other runs have, scored again, and return the jobs that are left. Raises BadFolder."""
    known = {(row.question_id, row.arm): row for row in reusable_rows(config, models)}
    for job in jobs:
        if row := known.get(job.key):
            folder.add(await asyncio.to_thread(scored, row, config.task, job.question))
    return [job for job in jobs if job.key not in known]


async def _row(edge: LabEdge, config: RunConfig, job: Job) -> Row:
    """Raises EdgeGone."""
    item = job.question.item
    row = Row(
        task=config.task.name,
        question_id=job.question.id,
        arm=job.arm.text,
        correct=None,
        target=item.target,
        question="\n\n".join([item.question, *item.follow_ups]),
    )
    try:
        answer = await ask(
            edge,
            job.arm,
            config.task.messages(item, config.shots),
            question_id=job.question.id,
            max_tokens=config.max_tokens,
            seed=config.seed,
            follow_ups=item.follow_ups,
        )
    except RequestFailed as error:
        return row.model_copy(update={"error": str(error)})
    answered = row.model_copy(update={name: getattr(answer, name) for name in Answer.model_fields})
    return await asyncio.to_thread(scored, answered, config.task, job.question)


def scored(row: Row, task: Task, question: Question) -> Row:
    """Return the row with its verdict; with an error and no verdict if the scorer fails."""
    try:
        extracted = task.extract(row.output)
        verdict = task.verdict(extracted, question.item)
        update = {"extracted": extracted, "correct": verdict.correct, "score": verdict.score}
        return Row.model_validate({**row.model_dump(), **update})
    except Exception as error:  # noqa: BLE001 - a user's own scorer may raise anything; the answer is kept
        return row.model_copy(update={"error": f"the scorer failed: {type(error).__name__}: {error}"})
