"""Answers of other runs, if the same models would be asked the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from evaluation.lab.arms import parse_all
from evaluation.lab.errors import BadFolder
from evaluation.lab.results.folder import ServedModels, read_rows, read_run
from evaluation.lab.results.rows import Row
from evaluation.lab.results.state import difference
from evaluation.lab.runs.config import RunConfig
from evaluation.lab.tasks import data as lab_data


def reusable_rows(config: RunConfig, models: ServedModels) -> Iterator[Row]:
    """Yield the answers in the folders of `config.reuse`, of any lines and arms, without failures and fallbacks.

    `models` are those that answer now. Raises BadFolder for a folder of other prompts, data, settings, models or templates.
    """
    for path in config.reuse:
        run = read_run(path)
        if run is None:
            raise BadFolder(f"{path} cannot be reused: it is not a result folder")
        if run.spec.data_sha256 != config.data.sha256:
            raise BadFolder(f"{path} cannot be reused: its data is another file, {run.spec.data}")
        every = lab_data.LineRange()
        lines = every if run.spec.lines == str(every) else lab_data.LineRange.parse(run.spec.lines)
        # The spec that the other run would have today: its own lines and arms, with everything else as in this run.
        data = lab_data.load(config.task, config.data.path, lines, limit=run.spec.limit, allow_unknown=True)
        today = replace(config, data=data, arms=parse_all(run.spec.arms)).spec()
        before = run.spec.model_copy(update={"data": today.data})
        if before != today:
            raise BadFolder(f"{path} cannot be reused: {difference(before, today)}")
        now = _comparable(models, run.models)
        if run.models != now:
            raise BadFolder(f"{path} cannot be reused: its models are others: {difference(run.models, now)}")
        yield from (row for row in read_rows(path) if row.error is None and row.fallback is None)


def _comparable(now: ServedModels, before: ServedModels) -> ServedModels:
    """Return the models of now that both runs have: either may lack an arm that uses the teacher, or a template."""
    templates = {arm: now.templates.get(arm, template) for arm, template in before.templates.items()}
    teacher = now.teacher if now.teacher and before.teacher else before.teacher
    return ServedModels(student=now.student, teacher=teacher, templates=templates)
