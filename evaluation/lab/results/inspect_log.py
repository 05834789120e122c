"""Logs of inspect_ai, one for each arm of a run, for its viewer and its tools."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalError,
    EvalLog,
    EvalMetric,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    write_eval_log,
)
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput, ModelUsage
from inspect_ai.scorer import CORRECT, INCORRECT, SampleScore, Score, accuracy, stderr

from evaluation.lab.results.folder import RunFile
from evaluation.lab.results.rows import Row, SideTokens

SCORER = "gkt"
METADATA = {
    *("score", "segments", "template", "fallback", "first_token_s", "bytes_sent", "bytes_received", "finish"),
    *("teacher", "student"),
}
"""Fields of a row that inspect has no field for; they become the sample's metadata."""


def write_logs(run: RunFile, rows: Sequence[Row], to: Path, created: datetime) -> list[Path]:
    """Write one `.eval` file for each arm of the run, and return their paths."""
    to.mkdir(parents=True, exist_ok=True)
    paths = []
    for at, arm in enumerate(run.spec.arms):
        path = to / f"{run.spec.task}_{at:02}_{re.sub(r'[^0-9A-Za-z]', '-', arm)}.eval"
        path.unlink(missing_ok=True)
        write_eval_log(_log(run, arm, [row for row in rows if row.arm == arm], created), path)
        paths.append(path)
    return paths


def _log(run: RunFile, arm: str, rows: Sequence[Row], created: datetime) -> Any:
    spec, models = run.spec, run.models
    run_id = spec.prompts_sha256[:16]
    usage = {side: sum((_usage(getattr(row, side)) for row in rows), ModelUsage()) for side in ("student", "teacher")}
    return EvalLog(
        status="success",
        eval=EvalSpec(
            eval_id=f"{run_id}-{arm}",
            run_id=run_id,
            task_id=f"{run_id}-{arm}",
            created=created.isoformat(),
            task=f"{spec.task} {arm}",
            task_args={"arm": arm, "shots": spec.shots, "max_tokens": spec.max_tokens, "seed": spec.seed},
            dataset=EvalDataset(name=spec.data, samples=len(rows), sample_ids=[row.question_id for row in rows]),
            model=f"gkt/{models.student}" + (f"+{models.teacher}" if models.teacher else ""),
            config=EvalConfig(),
            metadata={"data_sha256": spec.data_sha256, "lines": spec.lines, "template": models.templates.get(arm)},
        ),
        results=EvalResults(
            total_samples=len(rows),
            completed_samples=sum(row.error is None for row in rows),
            scores=[_scores(rows)],
        ),
        stats={"model_usage": usage},
        samples=[_sample(row) for row in rows],
    )


def _scores(rows: Sequence[Row]) -> Any:
    """Return accuracy and standard error, by inspect's own metrics, over the rows with a verdict."""
    judged = [row for row in rows if row.correct is not None]
    scores = [SampleScore(score=Score(value=float(row.correct is True)), sample_id=row.question_id) for row in judged]
    metrics = {"accuracy": accuracy()(scores), "stderr": stderr()(scores)} if scores else {}
    return EvalScore(
        name=SCORER,
        scorer=SCORER,
        scored_samples=len(judged),
        unscored_samples=len(rows) - len(judged),
        metrics={name: EvalMetric(name=name, value=value) for name, value in metrics.items()},
    )


def _sample(row: Row) -> Any:
    score = None if row.correct is None else Score(value=CORRECT if row.correct else INCORRECT, answer=row.extracted)
    return EvalSample(
        id=row.question_id,
        epoch=1,
        input=row.question,
        target=row.target or "",
        messages=[ChatMessageUser(content=row.question), ChatMessageAssistant(content=row.output)],
        output=ModelOutput.from_content("gkt", row.output),
        scores={SCORER: score} if score else None,
        metadata=row.model_dump(mode="json", include=METADATA),
        model_usage={"student": _usage(row.student), "teacher": _usage(row.teacher)},
        total_time=row.total_s,
        error=EvalError(message=row.error, traceback="", traceback_ansi="") if row.error else None,
    )


def _usage(side: SideTokens) -> Any:
    return ModelUsage(
        input_tokens=side.prompt - side.cached,
        input_tokens_cache_read=side.cached,
        output_tokens=side.output,
        total_tokens=side.prompt + side.output,
    )
