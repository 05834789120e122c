"""A result folder: what was run (`run.json`), and a row a line (`rows.jsonl`), each on the disk before the next is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from evaluation.lab.errors import BadFolder
from evaluation.lab.results.rows import LabModel, Row
from shared.atomic_file import write_atomically
from shared.validation import describe

FORMAT = 1
RUN, LOCK = "run.json", ".lock"
ROWS = "rows.jsonl"


class Plan(LabModel):
    """What a run is asked to do. Rows of different plans do not stand in one folder."""

    task: str
    task_file_sha256: str | None = None
    """Of a task of the user's own."""
    data: str
    """The file's name; its folder is the machine's own affair."""
    data_sha256: str
    lines: str
    limit: int | None
    shots: int
    prompts_sha256: str
    """Of every conversation as it is sent, and its target."""
    arms: list[str]
    max_tokens: int
    seed: int
    judge: str | None = None


class Seen(LabModel):
    """What answered when the run began."""

    student: str
    teacher: str | None
    templates: dict[str, str]
    """The guidance template of each arm that has one, as `name@version#hash`."""


class RunFile(LabModel):
    """`run.json`."""

    format: int = FORMAT
    plan: Plan
    seen: Seen


class Folder:
    """A result folder that this process alone writes to. Made by `locked`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = path / ROWS

    def rows(self) -> list[Row]:
        """Raises BadFolder."""
        return read_rows(self.path)

    def check(self, plan: Plan) -> RunFile | None:
        """What the folder's run saw, or None where it is new. Raises BadFolder where it is of another plan."""
        run = read_run(self.path)
        if run is None:
            there = sorted(entry.name for entry in self.path.iterdir() if entry.name != LOCK)
            if there:
                raise BadFolder(
                    f"{self.path} is not empty and no result folder (it holds {there[0]}); name another --out"
                )
        elif run.plan != plan:
            raise BadFolder(f"{self.path} holds a run of another configuration: {difference(run.plan, plan)}")
        return run

    def begin(self, plan: Plan, seen: Seen) -> None:
        """Note what is run, or compare it with what was noted. Raises BadFolder where other models or templates answer now."""
        run = read_run(self.path)
        if run is None:
            write_atomically(self.path / RUN, RunFile(plan=plan, seen=seen).model_dump_json(indent=2) + "\n")
            return
        # Arms that are through already are not asked again, so that nothing may be known of their teacher now.
        now = seen.model_copy(
            update={
                "teacher": seen.teacher or run.seen.teacher,
                "templates": run.seen.templates | seen.templates,
            }
        )
        if now != run.seen:
            raise BadFolder(f"{self.path} holds a run of other models: {difference(run.seen, now)}")

    def add(self, row: Row) -> None:
        """On the disk when this returns."""
        with self._rows.open("ab") as file:
            file.write(row.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def mend(self) -> None:
        """Cut off a last line that a process did not live to end."""
        if not self._rows.exists():
            return
        content = self._rows.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self._rows, whole)


@contextmanager
def locked(path: Path) -> Iterator[Folder]:
    """The folder, made where it is not there, for this process alone. Raises BadFolder at once where another has it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadFolder(f"{path}: {error.strerror}") from None
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadFolder(f"another run is writing into {path}; wait for it, or name another --out") from None
    except OSError as error:
        raise BadFolder(f"{path}: {error.strerror}") from None
    try:
        folder = Folder(path)
        folder.mend()
        yield folder
    finally:
        lock.release()


def read_run(path: Path) -> RunFile | None:
    """What a folder's run was, or None where there is none. Raises BadFolder where it cannot be read."""
    try:
        content = (path / RUN).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadFolder(f"{path / RUN}: {error.strerror}") from None
    try:
        run = RunFile.model_validate_json(content)
    except ValidationError as error:
        raise BadFolder(f"{path / RUN} is no run of this version: {describe(error)}") from None
    if run.format != FORMAT:
        raise BadFolder(f"{path / RUN} has format {run.format}; this version reads {FORMAT}")
    return run


def read_rows(path: Path) -> list[Row]:
    """The rows of a result folder, in the order in which their questions and arms first came; none if none is written yet.

    Raises BadFolder.
    """
    if read_run(path) is None:
        raise BadFolder(f"{path} is no result folder: it has no {RUN}")
    return rows_in(path) if (path / ROWS).exists() else []


def difference(there: LabModel, asked: LabModel) -> str:
    """What two models of a kind differ in, in words."""
    one, other = there.model_dump(), asked.model_dump()
    names = [name for name in one if one[name] != other[name]]
    return "; ".join(f"{name} was {one[name]}, and is now {other[name]}" for name in names)


def rows_in(folder: Path) -> list[Row]:
    """The rows of a run, in the order in which their questions and arms first came. The last one of a task, question and arm
    counts. A last line without its end is one that a process did not live to write, and is left out. Raises BadFolder, which
    names the file and the line.
    """
    path = folder / ROWS
    rows: dict[tuple[str, str, str], Row] = {}
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip() or not line.endswith(b"\n"):
                    continue
                row = _row(line, f"{path}, line {number}")
                rows[row.task, row.question_id, row.arm] = row
    except OSError as error:
        raise BadFolder(f"{path} cannot be read: {error.strerror}") from error
    return list(rows.values())


def write_rows(folder: Path, rows: Iterable[Row]) -> None:
    """Append rows to a run."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ROWS).open("a", encoding="utf-8") as file:
        file.writelines(row.model_dump_json() + "\n" for row in rows)


def _row(line: bytes, place: str) -> Row:
    try:
        return Row.model_validate_json(line)
    except ValidationError as error:
        raise BadFolder(f"{place}: {describe(error)}") from error
