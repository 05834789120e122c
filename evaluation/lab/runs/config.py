"""Configuration of a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.lab.arms import Arm
from evaluation.lab.results.folder import RunSpec
from evaluation.lab.runs.judge import Judge
from evaluation.lab.tasks.base import Task
from evaluation.lab.tasks.data import Dataset


@dataclass(frozen=True)
class RunConfig:
    """The questions and arms of a run, and how they are asked. An answer may be silent for `timeout_s`.

    `reuse` are folders of other runs: their answers are taken if the same models would be asked the same.
    """

    task: Task
    data: Dataset
    arms: Sequence[Arm]
    shots: int = 4
    max_tokens: int = 300
    seed: int = 0
    concurrency: int = 8
    timeout_s: float = 600.0
    retry_fallbacks: bool = False
    judge: Judge | None = None
    reuse: Sequence[Path] = ()

    def spec(self) -> RunSpec:
        """Return the part that decides the answers: runs of equal specs may share a folder."""
        prompts = [
            [
                question.id,
                [message.model_dump() for message in self.task.messages(question.item, self.shots)],
                list(question.item.follow_ups),
                question.item.target,
            ]
            for question in self.data.questions
        ]
        return RunSpec(
            task=self.task.name,
            task_file_sha256=self.task.file_sha256,
            data=self.data.path.name,
            data_sha256=self.data.sha256,
            lines=str(self.data.lines),
            limit=self.data.limit,
            shots=self.shots,
            prompts_sha256=hashlib.sha256(json.dumps(prompts).encode()).hexdigest(),
            arms=[arm.text for arm in self.arms],
            max_tokens=self.max_tokens,
            seed=self.seed,
            judge=self.judge.model if self.judge else None,
        )
