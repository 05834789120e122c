"""`tune.json` in a tuner's folder: the search, and its decision after each stage, so that none is made twice."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from evaluation.lab.errors import BadFolder
from evaluation.lab.results.rows import LabModel
from evaluation.lab.results.state import difference, read_state, write_state
from shared.prices import Prices

SEARCH = "tune.json"

Objective = Literal["cost", "tokens"]
"""Quantity to minimize: the teacher's cost by three prices, or its output tokens."""


class SearchSpec(LabModel):
    """The request that a search answers. A folder holds stages of one spec only. `prices` are a user's own."""

    task: str
    task_file_sha256: str | None
    data_sha256: str
    tuning_range: str
    reporting_range: str
    tuning_questions: int
    reporting_questions: int
    first_block: int
    keep: float
    minimize: Objective
    prices: dict[str, Prices] | None
    arms: list[str]
    shots: int
    max_tokens: int
    seed: int


class Decision(LabModel):
    """The end of a stage: the arms that it asked, those dropped after it with the reasons, and how long it took."""

    arms: list[str]
    dropped: dict[str, str]
    seconds: float


class SearchFile(LabModel):
    """Content of `tune.json`."""

    format: Literal[1] = 1
    spec: SearchSpec
    decisions: tuple[Decision, ...] = ()

    def write(self, folder: Path) -> None:
        write_state(folder / SEARCH, self)


def open_search(folder: Path, spec: SearchSpec) -> SearchFile:
    """Return the search in a folder, or start one. Raises BadFolder if the folder holds anything else."""
    file = read_state(folder / SEARCH, SearchFile)
    if file is None:
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise BadFolder(f"{folder} is neither empty nor a folder of gkt tune; choose another --out")
        file = SearchFile(spec=spec)
        file.write(folder)
    elif file.spec != spec:
        raise BadFolder(f"{folder} holds a search of another configuration: {difference(file.spec, spec)}")
    return file
