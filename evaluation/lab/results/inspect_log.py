"""`gkt eval log`: a result folder as logs of inspect_ai, one an arm, for its viewer and its tools."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluation.lab.errors import BadFolder, LabError
from evaluation.lab.results.folder import RunFile, read_rows, read_run
from evaluation.lab.results.rows import Row, SideTokens

SCORER = "gkt"
KEPT = ("score", "segments", "template", "fallback", "first_token_s", "bytes_sent", "bytes_received", "finish")
"""Fields of a row for which inspect has no place of its own; they become the sample's metadata."""


class InspectMissing(LabError):
    """inspect_ai is not installed."""

    code = "inspect_missing"


def log(
    folder: Annotated[Path, typer.Argument(help="Result folder of gkt eval run.")],
    *,
    to: Annotated[Path, typer.Option(file_okay=False, help="Folder for the logs; older ones of the run are replaced.")],
) -> None:
    """Write a run as logs of inspect_ai, one for each arm. Then look at them: inspect view --log-dir TO

    Each sample has the question, the raw output, the verdict with what was extracted, each side's tokens, and in its metadata
    who wrote what.
    """
    run, rows = read_run(folder), read_rows(folder)
    if run is None or not rows:
        raise BadFolder(f"{folder} has no rows")
    created = datetime.fromtimestamp((folder / "run.json").stat().st_mtime, UTC)
    for path in write_logs(run, rows, to, created):
        typer.echo(str(path))


def write_logs(run: RunFile, rows: Sequence[Row], to: Path, created: datetime) -> list[Path]:
    """One `.eval` file for each arm of the run. Returns their paths. Raises InspectMissing."""
    try:
        from inspect_ai.log import write_eval_log
    except ImportError:
        raise InspectMissing("inspect_ai is not installed: pip install 'gkt[eval]'") from None
    to.mkdir(parents=True, exist_ok=True)
    paths = []
    for at, arm in enumerate(run.plan.arms):
        path = to / f"{run.plan.task}_{at:02}_{''.join(sign if sign.isalnum() else '-' for sign in arm)}.eval"
        path.unlink(missing_ok=True)
        write_eval_log(_log(run, arm, [row for row in rows if row.arm == arm], created), path)
        paths.append(path)
    return paths


def _log(run: RunFile, arm: str, rows: Sequence[Row], created: datetime) -> Any:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSpec
    from inspect_ai.model import ModelUsage

    plan, seen = run.plan, run.seen
    name = f"{plan.task} {arm}"
    return EvalLog(
        status="success",
        eval=EvalSpec(
            eval_id=f"{plan.prompts_sha256[:16]}-{arm}",
            run_id=plan.prompts_sha256[:16],
            task_id=f"{plan.prompts_sha256[:16]}-{arm}",
            created=created.isoformat(),
            task=name,
            task_args={"arm": arm, "shots": plan.shots, "max_tokens": plan.max_tokens, "seed": plan.seed},
            dataset=EvalDataset(name=plan.data, samples=len(rows), sample_ids=[row.question_id for row in rows]),
            model=f"gkt/{seen.student}" + (f"+{seen.teacher}" if seen.teacher else ""),
            config=EvalConfig(),
            metadata={"data_sha256": plan.data_sha256, "lines": plan.lines, "template": seen.templates.get(arm)},
        ),
        results=EvalResults(
            total_samples=len(rows),
            completed_samples=sum(row.error is None for row in rows),
            scores=[_scores(rows)],
        ),
        stats={
            "model_usage": {
                side: sum((_usage(getattr(row, side)) for row in rows), ModelUsage()) for side in ("student", "teacher")
            }
        },
        samples=[_sample(row) for row in rows],
    )


def _scores(rows: Sequence[Row]) -> Any:
    """Accuracy and its standard error, by inspect's own metrics, over the rows with a verdict."""
    from inspect_ai.log import EvalMetric, EvalScore
    from inspect_ai.scorer import SampleScore, Score, accuracy, stderr

    told = [row for row in rows if row.correct is not None]
    scores = [SampleScore(score=Score(value=float(row.correct is True)), sample_id=row.question_id) for row in told]
    metrics = {"accuracy": accuracy()(scores), "stderr": stderr()(scores)} if scores else {}
    return EvalScore(
        name=SCORER,
        scorer=SCORER,
        scored_samples=len(told),
        unscored_samples=len(rows) - len(told),
        metrics={name: EvalMetric(name=name, value=value) for name, value in metrics.items()},
    )


def _sample(row: Row) -> Any:
    from inspect_ai.log import EvalError, EvalSample
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput
    from inspect_ai.scorer import CORRECT, INCORRECT, Score

    fields = row.model_dump(mode="json", include=set(KEPT))
    score = None if row.correct is None else Score(value=CORRECT if row.correct else INCORRECT, answer=row.extracted)
    return EvalSample(
        id=row.question_id,
        epoch=1,
        input=row.question,
        target=row.target or "",
        messages=[ChatMessageUser(content=row.question), ChatMessageAssistant(content=row.output)],
        output=ModelOutput.from_content("gkt", row.output),
        scores={SCORER: score} if score else None,
        metadata={**fields, "teacher": row.teacher.model_dump(), "student": row.student.model_dump()},
        model_usage={"student": _usage(row.student), "teacher": _usage(row.teacher)},
        total_time=row.total_s,
        error=EvalError(message=row.error, traceback="", traceback_ansi="") if row.error else None,
    )


def _usage(side: SideTokens) -> Any:
    from inspect_ai.model import ModelUsage

    return ModelUsage(
        input_tokens=side.prompt - side.cached,
        input_tokens_cache_read=side.cached,
        output_tokens=side.output,
        total_tokens=side.prompt + side.output,
    )
