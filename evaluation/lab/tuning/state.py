"""`tune.json` of a tuner's folder: what is tuned, and what was decided after each stage, so that it is not decided twice."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from evaluation.lab.errors import BadFolder
from evaluation.lab.results.rows import LabModel
from shared.atomic_file import write_atomically
from shared.validation import describe

FORMAT = 1
TUNE = "tune.json"

By = Literal["cost", "tokens"]
"""What is to be little: the teacher's cost by three prices, or its output tokens."""


class TunePlan(LabModel):
    """What a search is asked for. Stages of different plans do not stand in one folder."""

    task: str
    task_file_sha256: str | None
    data_sha256: str
    tune_lines: str
    report_lines: str
    tune_questions: int
    report_questions: int
    first_block: int
    keep: float
    by: By
    prices: dict[str, float] | None
    """Three, where the user gave a file of them."""
    arms: list[str]
    shots: int
    max_tokens: int
    seed: int


class Decision(LabModel):
    """The end of a stage."""

    arms: list[str]
    """That were asked in it."""
    dropped: dict[str, str]
    """After it, and why."""
    seconds: float
    """That it took, in the process that ended it."""


class TuneFile(LabModel):
    format: int = FORMAT
    plan: TunePlan
    decisions: tuple[Decision, ...] = ()

    def write(self, folder: Path) -> None:
        """All of it or nothing."""
        write_atomically(folder / TUNE, self.model_dump_json(indent=2) + "\n")


def opened(folder: Path, plan: TunePlan) -> TuneFile:
    """What is there of this plan, or a new one. Raises BadFolder where the folder is of another plan, or cannot be read."""
    try:
        content = (folder / TUNE).read_bytes()
    except FileNotFoundError:
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise BadFolder(f"{folder} is not empty and no folder of gkt tune; name another --out") from None
        file = TuneFile(plan=plan)
        file.write(folder)
        return file
    except OSError as error:
        raise BadFolder(f"{folder / TUNE}: {error.strerror}") from None
    try:
        file = TuneFile.model_validate_json(content)
    except ValidationError as error:
        raise BadFolder(f"{folder / TUNE} is none of this version: {describe(error)}") from None
    if file.format != FORMAT:
        raise BadFolder(f"{folder / TUNE} has format {file.format}; this version reads {FORMAT}")
    if file.plan != plan:
        there, asked = file.plan.model_dump(), plan.model_dump()
        told = "; ".join(
            f"{name} was {there[name]}, and is now {asked[name]}" for name in there if there[name] != asked[name]
        )
        raise BadFolder(f"{folder} holds a search of another configuration: {told}")
    return file
