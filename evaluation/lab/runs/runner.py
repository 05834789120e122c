"""A run: every question under every arm, several at a time, each row kept as soon as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.lab.arms import Arm
from evaluation.lab.errors import ArmRefused, BadData, BadTask, EdgeGone
from evaluation.lab.results.folder import Folder, Seen, locked
from evaluation.lab.results.rows import Row
from evaluation.lab.runs.answer import RequestFailed
from evaluation.lab.runs.ask import ask
from evaluation.lab.runs.config import Setup
from evaluation.lab.runs.edge_client import LabEdge
from evaluation.lab.runs.judge import judge_rows
from evaluation.lab.runs.reuse import reusable
from evaluation.lab.tasks.base import Task
from evaluation.lab.tasks.data import Question

PROBE_TOKENS = 8
LASTING = frozenset({"not_configured", "unauthorized", "rejected", "unreachable", "failed"})
"""Fallbacks that the next request would meet too."""


@dataclass(frozen=True)
class Job:
    """A question to be asked under an arm."""

    question: Question
    arm: Arm

    @property
    def key(self) -> tuple[str, str]:
        return self.question.id, self.arm.text


Watch = Callable[[int, int], None]
"""Told how many rows there are, of how many, at the start and after each."""


async def run(setup: Setup, edge_url: str, out: Path, watch: Watch) -> list[Row]:
    """Do what is missing in the folder. Returns all its rows.

    Raises BadTask where a judge has nothing to judge; BadFolder, ArmRefused and EdgeGone before anything is asked in earnest;
    EdgeGone in mid-run too, when every row that was there is in the folder, and JudgeRefused likewise. A request that fails
    by itself becomes a row with its `error`, and is asked again by the next run into the folder.
    """
    if not setup.data.questions:
        raise BadData(f"{setup.data.path} has no questions in lines {setup.lines}")
    if setup.judge and not setup.task.judged:
        raise BadTask(f"{setup.task.name} needs no judge: it knows what is right")
    plan = setup.plan()
    with locked(out) as folder:
        begun = folder.check(plan) is not None
        done = {(row.question_id, row.arm) for row in (folder.rows() if begun else []) if _counts(row, setup)}
        jobs = [job for job in ordered(setup.data.questions, setup.arms, setup.concurrency) if job.key not in done]
        total = len(setup.data.questions) * len(setup.arms)
        watch(total - len(jobs), total)
        if jobs:
            async with LabEdge(edge_url, connections=setup.concurrency, timeout_s=setup.timeout_s) as edge:
                seen = await _look(edge, setup, jobs)
                folder.begin(plan, seen)
                jobs = await _reuse(setup, seen, jobs, folder)
                watch(total - len(jobs), total)
                await _work(edge, setup, jobs, folder, lambda left: watch(total - left, total))
        if setup.judge:
            await judge_rows(setup.judge, folder, plan.arms, concurrency=setup.concurrency)
        return folder.rows()


def ordered(questions: Sequence[Question], arms: Sequence[Arm], block: int) -> Iterator[Job]:
    """Blocks of questions, each block under every arm in turn, and the arms take turns at being first.

    So an arm finds the prompts of its questions in the prefix caches as often as the others do, and none runs only while
    the machine is warm, or cold.
    """
    for at, first in enumerate(range(0, len(questions), block)):
        turn = at % len(arms)
        for arm in [*arms[turn:], *arms[:turn]]:
            for question in questions[first : first + block]:
                yield Job(question, arm)


def _counts(row: Row, setup: Setup) -> bool:
    """Whether a row is done with, or has to be asked again."""
    return row.error is None and not (setup.retry_fallbacks and row.fallback)


async def _look(edge: LabEdge, setup: Setup, jobs: Sequence[Job]) -> Seen:
    """Ask a few words under each arm that has something left to do, so that what cannot work is known before it is run.

    Raises EdgeGone, and ArmRefused where the edge refuses an arm, or has no cloud that would do its part.
    """
    student = await edge.student()
    teacher: str | None = None
    templates: dict[str, str] = {}
    question = jobs[0].question
    messages = setup.task.messages(question.item, setup.shots)
    tokens = min(PROBE_TOKENS, setup.max_tokens)
    left = {job.arm.text for job in jobs}
    for arm in setup.arms:
        if arm.text not in left:
            continue
        # Whether the teacher answers in these depends on the student; it has to be able to.
        for probe in (arm, Arm.parse("teacher")) if arm.two_steps else (arm,):
            try:
                answer = await ask(edge, probe, messages, question_id=question.id, max_tokens=tokens, seed=setup.seed)
            except RequestFailed as error:
                raise ArmRefused(f"the edge refuses arm {arm.text!r}: {error}") from None
            if answer.fallback in LASTING:
                raise ArmRefused(f"arm {arm.text!r} needs the cloud, and the edge has to do without: {answer.fallback}")
            teacher = answer.teacher_model or teacher
            if answer.template:
                templates[arm.text] = answer.template
    return Seen(student=student, teacher=teacher, templates=templates)


async def _reuse(setup: Setup, seen: Seen, jobs: Sequence[Job], folder: Folder) -> list[Job]:
    """Keep the answers that other runs have, judged anew, and return what they have not. Raises BadFolder."""
    known = {(row.question_id, row.arm): row for row in reusable(setup, seen)}
    for job in jobs:
        if row := known.get(job.key):
            folder.add(await asyncio.to_thread(scored, row, setup.task, job.question))
    return [job for job in jobs if job.key not in known]


async def _work(edge: LabEdge, setup: Setup, jobs: Sequence[Job], folder: Folder, watch: Callable[[int], None]) -> None:
    left = len(jobs)
    waiting = iter(jobs)

    async def worker() -> None:
        nonlocal left
        for job in waiting:
            folder.add(await _row(edge, setup, job))
            left -= 1
            watch(left)

    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(setup.concurrency, left)):
                workers.create_task(worker())
    except* EdgeGone as gone:
        raise gone.exceptions[0] from None


async def _row(edge: LabEdge, setup: Setup, job: Job) -> Row:
    """Raises EdgeGone."""
    item = job.question.item
    asked = Row(
        task=setup.task.name,
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
            setup.task.messages(item, setup.shots),
            question_id=job.question.id,
            max_tokens=setup.max_tokens,
            seed=setup.seed,
            follow_ups=item.follow_ups,
        )
    except RequestFailed as error:
        return asked.model_copy(update={"error": str(error)})
    given = {
        "output": answer.text,
        "segments": answer.segments,
        "teacher": answer.teacher,
        "student": answer.student,
        "template": answer.template,
        "fallback": answer.fallback,
        "first_token_s": answer.first_token_s,
        "total_s": answer.total_s,
        "bytes_sent": answer.bytes_sent,
        "bytes_received": answer.bytes_received,
        "finish": answer.finish,
    }
    return await asyncio.to_thread(scored, asked.model_copy(update=given), setup.task, job.question)


def scored(row: Row, task: Task, question: Question) -> Row:
    """The row with its verdict. A scorer of the user's own may fail: then with an error, and no verdict."""
    try:
        extracted = task.extract(row.output)
        verdict = task.verdict(extracted, question.item)
        said = {"extracted": extracted, "correct": verdict.correct, "score": verdict.score}
        return Row.model_validate({**row.model_dump(), **said})
    except Exception as error:  # noqa: BLE001 - whatever it is, the answer is kept, and the row says so
        return row.model_copy(update={"error": f"the scorer failed: {type(error).__name__}: {error}"})
