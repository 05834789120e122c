"""Answers of other runs, where the same models would be asked the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from evaluation.lab.arms import parse_all
from evaluation.lab.errors import BadFolder
from evaluation.lab.results.folder import Seen, difference, read_rows, read_run
from evaluation.lab.results.rows import Row
from evaluation.lab.runs.config import Setup
from evaluation.lab.tasks import data as lab_data


def reusable(setup: Setup, seen: Seen) -> Iterator[Row]:
    """The answers in the folders of `setup.reuse`, of whatever lines and arms, but those for which the student had to stand in.

    `seen` is what answers now.

    Raises BadFolder for a folder whose prompts, data, settings, models or templates are others.
    """
    for path in setup.reuse:
        run = read_run(path)
        if run is None:
            raise BadFolder(f"{path} is no result folder, so there is nothing to reuse")
        if run.plan.data_sha256 != setup.data.sha256:
            raise BadFolder(f"{path} cannot be reused, it is of other data: {run.plan.data}")
        every = lab_data.Lines()
        lines = every if run.plan.lines == str(every) else lab_data.Lines.parse(run.plan.lines)
        # The plan that the other run would have today: with its lines and arms, and all else as here.
        data = lab_data.load(setup.task, setup.data.path, lines, limit=run.plan.limit, any_data=True)
        today = replace(setup, data=data, lines=lines, limit=run.plan.limit, arms=parse_all(run.plan.arms)).plan()
        there = run.plan.model_copy(update={"data": today.data})
        if there != today:
            raise BadFolder(f"{path} cannot be reused: {difference(there, today)}")
        now = _seen(seen, run.seen)
        if run.seen != now:
            raise BadFolder(f"{path} cannot be reused, it is of other models: {difference(run.seen, now)}")
        yield from (row for row in read_rows(path) if row.error is None and row.fallback is None)


def _seen(now: Seen, then: Seen) -> Seen:
    """What answers now, of what both runs know: either may have no arm that asks the teacher, or uses a template."""
    templates = {arm: now.templates.get(arm, template) for arm, template in then.templates.items()}
    teacher = now.teacher if now.teacher and then.teacher else then.teacher
    return Seen(student=now.student, teacher=teacher, templates=templates)
