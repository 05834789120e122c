"""Data files: read from a local path, recognised by their digest, used line by line."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from evaluation.lab.errors import BadData
from evaluation.lab.tasks.base import Item, Record, Task
from shared.home import home
from shared.validation import describe

MANIFEST = Path(__file__).with_name("manifest.toml")


class KnownFile(BaseModel):
    """A data file of the manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    task: str
    items: int
    bytes: int
    sha256: str
    licence: str
    origin: str


@dataclass(frozen=True)
class LineRange:
    """Lines of a file, counted from 1, both ends included; without `last` up to the end."""

    first: int = 1
    last: int | None = None

    @classmethod
    def parse(cls, text: str) -> LineRange:
        """Parse a range such as `501-1000`. Raises BadData."""
        ends = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", text)
        lines = cls(int(ends[1]), int(ends[2])) if ends else None
        if lines is None or not 1 <= lines.first <= (lines.last or 0):
            raise BadData(f"{text!r} is not a range of lines; write it as 501-1000, counted from 1, both ends included")
        return lines

    def __str__(self) -> str:
        return f"{self.first}-{self.last or ''}"


@dataclass(frozen=True)
class Question:
    """An item of a file. Its id is the same in every file that has the same question in the same line."""

    id: str
    item: Item


@dataclass(frozen=True)
class Dataset:
    """Questions chosen from a file: the first `limit` of some lines."""

    path: Path
    sha256: str
    questions: list[Question]
    lines: LineRange = LineRange()
    limit: int | None = None

    def part(self, block: range) -> Dataset:
        """Return the questions at some places."""
        first = self.lines.first
        lines = LineRange(first + block.start, first + block.stop - 1)
        return Dataset(self.path, self.sha256, self.questions[block.start : block.stop], lines)


def known_files() -> dict[str, KnownFile]:
    """Return the manifest, by digest."""
    files = [KnownFile.model_validate(entry) for entry in tomllib.loads(MANIFEST.read_text("utf-8"))["file"]]
    return {file.sha256: file for file in files}


def find_data_file(task: Task) -> Path:
    """Return a file of the task in the folder `data` under GKT_HOME, recognised by its digest; the manifest's first of several.

    Raises BadData if there is none, with the origins of the task's files.
    """
    known = [file for file in known_files().values() if file.task == task.name]
    if not known:
        raise BadData(f"the lab knows no data file of task {task.name}; name one with --data")
    folder = home() / "data"
    candidates = sorted(path for path in folder.glob("**/*") if path.is_file())
    for file in known:
        for path in candidates:
            if path.stat().st_size == file.bytes and _sha256(path.read_bytes()) == file.sha256:
                return path
    origins = "; ".join(f"{file.name} is {file.origin} ({file.licence})" for file in known)
    raise BadData(
        f"{folder} has no data file of task {task.name}: copy one there, or name it with --data; known files: {origins}"
    )


def halves(path: Path) -> tuple[LineRange, LineRange]:
    """Return the first and the second half of a file's first thousand lines, or of all if it has fewer. Raises BadData."""
    count = min(len(_lines(path, _content(path))), 1000)
    if count < 2:
        raise BadData(f"{path} has too few lines for two halves: {count}")
    return LineRange(1, count // 2), LineRange(count // 2 + 1, count)


def load(task: Task, path: Path, lines: LineRange, *, limit: int | None = None, allow_unknown: bool = False) -> Dataset:
    """Return the first `limit` of the given lines of a file as questions.

    Raises BadData if the file cannot be read, is not in the manifest (unless `allow_unknown`), belongs to another task, has
    fewer lines, or has a bad one among them.
    """
    content = _content(path)
    sha256 = _sha256(content)
    known = known_files().get(sha256)
    if known is None and not allow_unknown:
        raise BadData(
            f"{path} is not a data file that the lab knows (its sha256 is {sha256}); it may be truncated or another version. "
            "To use it anyway: --allow-unknown-data"
        )
    if known and known.task != task.name and not allow_unknown:
        raise BadData(f"{path} is {known.name}, data of task {known.task}, not of {task.name}")
    raw = _lines(path, content)
    last = len(raw) if lines.last is None else lines.last
    if last > len(raw) or lines.first > last:
        raise BadData(f"{path} has {len(raw)} lines, but lines {lines} were requested")
    if limit is not None:
        last = min(last, lines.first + limit - 1)
    return Dataset(path, sha256, list(_questions(task, path, raw, range(lines.first, last + 1))), lines, limit)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadData(f"{path}: {error.strerror}") from None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _lines(path: Path, content: bytes) -> Sequence[Any]:
    """Return the lines of a file, or the items of a file that is one JSON array."""
    if content.lstrip()[:1] != b"[":
        return content.splitlines()
    try:
        items: list[Any] = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadData(f"{path} is not a JSON array: {error}") from None
    return items


def _questions(task: Task, path: Path, raw: Sequence[Any], numbers: range) -> Iterator[Question]:
    for number in numbers:
        try:
            item = task.item(_record(raw[number - 1]))
        except ValidationError as error:
            raise BadData(f"{path}, line {number}: {describe(error)}") from None
        except ValueError as error:
            raise BadData(f"{path}, line {number}: {error}") from None
        except (LookupError, TypeError, AttributeError, RecursionError) as error:
            raise BadData(f"{path}, line {number}: {type(error).__name__} {error}") from None
        digest = _sha256("\0".join([item.question, *item.follow_ups]).encode())
        yield Question(f"{number}-{digest[:8]}", item)


def _record(line: Any) -> Record:
    record = json.loads(line) if isinstance(line, bytes) else line
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    return record
