"""What a run is asked to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.lab.arms import Arm
from evaluation.lab.results.folder import Plan
from evaluation.lab.runs.judge import Judge
from evaluation.lab.tasks.base import Task
from evaluation.lab.tasks.data import Data, Lines


@dataclass(frozen=True)
class Setup:
    """What is run, and how. `timeout_s` is how long an answer may be silent."""

    task: Task
    data: Data
    arms: Sequence[Arm]
    lines: Lines = field(default_factory=Lines)
    limit: int | None = None
    shots: int = 4
    max_tokens: int = 300
    seed: int = 0
    concurrency: int = 8
    timeout_s: float = 600.0
    retry_fallbacks: bool = False
    task_file_sha256: str | None = None
    judge: Judge | None = None
    reuse: Sequence[Path] = ()
    """Folders of other runs, whose answers are taken where the same would be asked."""

    def plan(self) -> Plan:
        said = [
            [
                question.id,
                [message.model_dump() for message in self.task.messages(question.item, self.shots)],
                list(question.item.follow_ups),
                question.item.target,
            ]
            for question in self.data.questions
        ]
        return Plan(
            task=self.task.name,
            task_file_sha256=self.task_file_sha256,
            data=self.data.path.name,
            data_sha256=self.data.sha256,
            lines=str(self.lines),
            limit=self.limit,
            shots=self.shots,
            prompts_sha256=hashlib.sha256(json.dumps(said).encode()).hexdigest(),
            arms=[arm.text for arm in self.arms],
            max_tokens=self.max_tokens,
            seed=self.seed,
            judge=self.judge.model if self.judge else None,
        )
