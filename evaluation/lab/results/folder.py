"""A result folder: `run.json` describes the run, `rows.jsonl` has one row per line, each on disk before the next request."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from evaluation.lab.errors import BadFolder
from evaluation.lab.results.rows import LabModel, Row
from evaluation.lab.results.state import difference, read_state, write_state
from shared.validation import describe

RUN, ROWS, LOCK = "run.json", "rows.jsonl", ".lock"


class RunSpec(LabModel):
    """The request that a run answers. A folder holds rows of one spec only."""

    task: str
    task_file_sha256: str | None = Field(default=None, description="digest of the file of a user's own task")
    data: str = Field(description="name of the data file, without its folder")
    data_sha256: str
    lines: str
    limit: int | None
    shots: int
    prompts_sha256: str = Field(description="digest of every conversation as it is sent, and of its target")
    arms: list[str]
    max_tokens: int
    seed: int
    judge: str | None = None


class ServedModels(LabModel):
    """The models that answered when the run began, and the guidance template of each arm that has one."""

    student: str
    teacher: str | None
    templates: dict[str, str]


class RunFile(LabModel):
    """Content of `run.json`."""

    format: Literal[1] = 1
    spec: RunSpec
    models: ServedModels


class Folder:
    """A result folder that only this process writes to. `open_folder` makes it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[Row]:
        """Raises BadFolder."""
        return read_rows(self.path)

    def has_run(self, spec: RunSpec) -> bool:
        """Return False if the folder is new. Raises BadFolder if it holds something else than a run of this spec."""
        run = read_run(self.path)
        if run is None:
            others = sorted(entry.name for entry in self.path.iterdir() if entry.name != LOCK)
            if others:
                raise BadFolder(
                    f"{self.path} is neither empty nor a result folder (it holds {others[0]}); choose another --out"
                )
        elif run.spec != spec:
            raise BadFolder(f"{self.path} holds a run of another configuration: {difference(run.spec, spec)}")
        return run is not None

    def start(self, spec: RunSpec, models: ServedModels) -> None:
        """Write `run.json`, or compare it with the models that answer now. Raises BadFolder if they are others."""
        run = read_run(self.path)
        if run is None:
            write_state(self.path / RUN, RunFile(spec=spec, models=models))
            return
        # An arm that is complete is not probed again, so its teacher and template may be unknown now.
        now = models.model_copy(
            update={
                "teacher": models.teacher or run.models.teacher,
                "templates": run.models.templates | models.templates,
            }
        )
        if now != run.models:
            raise BadFolder(f"{self.path} holds a run of other models: {difference(run.models, now)}")

    def add(self, row: Row) -> None:
        """Append a row. It is on disk when this returns."""
        with (self.path / ROWS).open("ab") as file:
            file.write(row.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def drop_partial_row(self) -> None:
        """Cut off a last line that a process was killed in."""
        file = self.path / ROWS
        if file.exists():
            content = file.read_bytes()
            os.truncate(file, content.rfind(b"\n") + 1)


@contextmanager
def open_folder(path: Path) -> Iterator[Folder]:
    """Open a folder for this process alone, and make it if needed. Raises BadFolder at once if another process has it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / LOCK).acquire(timeout=0)
    except Timeout:
        raise BadFolder(f"another run is writing into {path}; wait for it, or choose another --out") from None
    except OSError as error:
        raise BadFolder(f"{path}: {error.strerror}") from None
    with lock:
        folder = Folder(path)
        folder.drop_partial_row()
        yield folder


def read_run(path: Path) -> RunFile | None:
    """Read a folder's `run.json`; None if there is none. Raises BadFolder."""
    return read_state(path / RUN, RunFile)


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a result folder; none if none is written yet. Raises BadFolder."""
    if read_run(path) is None:
        raise BadFolder(f"{path} is not a result folder: it has no {RUN}")
    return rows_in(path) if (path / ROWS).exists() else []


def rows_in(folder: Path) -> list[Row]:
    """Return the rows of `rows.jsonl`, ordered by when their question and arm first came.

    The last row of a task, question and arm counts. A last line without its end is left out: a process was killed in it.
    Raises BadFolder, which names the file and the line.
    """
    path = folder / ROWS
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise BadFolder(f"{path} cannot be read: {error.strerror}") from error
    rows: dict[tuple[str, str, str], Row] = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and line.endswith(b"\n"):
            try:
                row = Row.model_validate_json(line)
            except ValidationError as error:
                raise BadFolder(f"{path}, line {number}: {describe(error)}") from error
            rows[row.task, row.question_id, row.arm] = row
    return list(rows.values())
