"""A run's folder: `rows.jsonl`, one row a line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from evaluation.lab.errors import BadFolder
from evaluation.lab.rows import Row

ROWS = "rows.jsonl"


def read_rows(folder: Path) -> list[Row]:
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
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadFolder(f"{place}: {where + ': ' if where else ''}{first['msg']}") from error
