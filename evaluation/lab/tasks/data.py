"""Data files: read from a local path, known by their digest, line by line."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from evaluation.lab.errors import BadData
from evaluation.lab.tasks.base import Item, Record, Task
from shared.model_hub.catalog import home
from shared.validation import describe

MANIFEST = Path(__file__).with_name("manifest.toml")


class KnownFile(BaseModel):
    """A data file that the manifest knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    task: str
    items: int
    bytes: int
    sha256: str
    licence: str
    origin: str


@dataclass(frozen=True)
class Lines:
    """Lines of a file, 1-based, both ends included; None is its last."""

    first: int = 1
    last: int | None = None

    @classmethod
    def parse(cls, text: str) -> Lines:
        """`501-1000`. Raises BadData."""
        said = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", text)
        lines = cls(int(said[1]), int(said[2])) if said else None
        if lines is None or not 1 <= lines.first <= (lines.last or 0):
            raise BadData(f"{text!r} are no lines; write them as 501-1000, counted from 1, both included")
        return lines

    def __str__(self) -> str:
        return f"{self.first}-{self.last or ''}"


@dataclass(frozen=True)
class Question:
    """An item of a file, under a name that holds wherever that line holds the same question."""

    id: str
    item: Item


@dataclass(frozen=True)
class Data:
    """What was chosen of a file."""

    path: Path
    sha256: str
    questions: list[Question]


def known_files() -> dict[str, KnownFile]:
    """The manifest, by digest."""
    files = [KnownFile.model_validate(entry) for entry in tomllib.loads(MANIFEST.read_text("utf-8"))["file"]]
    return {file.sha256: file for file in files}


def kept(task: Task) -> Path:
    """A file of the task in the folder `data` under GKT_HOME, known by its digest; of several the manifest's first.

    Raises BadData, which says where the task's files come from, where there is none.
    """
    known = [file for file in known_files().values() if file.task == task.name]
    if not known:
        raise BadData(f"name the data of task {task.name} by --data; the lab knows no file of it")
    folder = home() / "data"
    there = sorted(path for path in folder.glob("**/*") if path.is_file())
    for file in known:
        for path in there:
            if path.stat().st_size == file.bytes and hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256:
                return path
    origins = "; ".join(f"{file.name} is {file.origin} ({file.licence})" for file in known)
    raise BadData(
        f"there is no data of task {task.name} in {folder}: put it there, or name a file by --data; {origins}"
    )


def halves(path: Path) -> tuple[Lines, Lines]:
    """Of a file's first thousand lines, or of all if it has fewer, the first half and the second. Raises BadData."""
    count = min(len(_raw(path, _content(path))), 1000)
    if count < 2:
        raise BadData(f"{path} has too few lines for two halves")
    return Lines(1, count // 2), Lines(count // 2 + 1, count)


def load(task: Task, path: Path, lines: Lines, *, limit: int | None = None, any_data: bool = False) -> Data:
    """The first `limit` of some lines of a file of the task, as questions.

    Raises BadData for a file that cannot be read, that the manifest does not know (unless `any_data`), that is another
    task's, that has fewer lines, or in which one of those lines is bad.
    """
    content = _content(path)
    sha256 = hashlib.sha256(content).hexdigest()
    known = known_files().get(sha256)
    if known is None and not any_data:
        raise BadData(
            f"{path} is no data file that the lab knows (its sha256 is {sha256}); it may be cut short or another version. "
            "To use it all the same: --any-data"
        )
    if known and known.task != task.name and not any_data:
        raise BadData(f"{path} is {known.name}, data of task {known.task}, not of {task.name}")
    raw = _raw(path, content)
    last = len(raw) if lines.last is None else lines.last
    if last > len(raw) or lines.first > last:
        raise BadData(f"{path} has {len(raw)} lines; {lines} were asked for")
    if limit is not None:
        last = min(last, lines.first + limit - 1)
    return Data(path, sha256, list(_questions(task, path, raw, range(lines.first, last + 1))))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadData(f"{path}: {error.strerror}") from None


def _raw(path: Path, content: bytes) -> list[Any]:
    """The lines of a file, or the items of one that is an array."""
    return _array(path, content) if content.lstrip()[:1] == b"[" else content.splitlines()


def _questions(task: Task, path: Path, raw: list[Any], numbers: range) -> Iterator[Question]:
    for number in numbers:
        try:
            item = task.item(_record(raw[number - 1]))
        except ValidationError as error:
            raise BadData(f"{path}, line {number}: {describe(error)}") from None
        except ValueError as error:
            raise BadData(f"{path}, line {number}: {error}") from None
        except (LookupError, TypeError, AttributeError, RecursionError) as error:
            raise BadData(f"{path}, line {number}: {type(error).__name__} {error}") from None
        digest = hashlib.sha256("\0".join([item.question, *item.follow_ups]).encode()).hexdigest()
        yield Question(f"{number}-{digest[:8]}", item)


def _record(line: Any) -> Record:
    record = json.loads(line) if isinstance(line, bytes) else line
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    return record


def _array(path: Path, content: bytes) -> list[Any]:
    """A file that is one JSON array; its items count as lines."""
    try:
        array: list[Any] = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadData(f"{path} is no JSON array: {error}") from None
    return array
