"""The small JSON files that record the run or search of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from evaluation.lab.errors import BadFolder
from evaluation.lab.results.rows import LabModel
from shared.atomic_file import write_atomically
from shared.validation import describe

State = TypeVar("State", bound=LabModel)


def read_state(path: Path, kind: type[State]) -> State | None:
    """Read a file; None if there is none. Raises BadFolder."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadFolder(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        raise BadFolder(f"{path} was not written by this version of gkt: {describe(error)}") from None


def write_state(path: Path, state: LabModel) -> None:
    write_atomically(path, state.model_dump_json(indent=2) + "\n")


def difference(before: LabModel, now: LabModel) -> str:
    """Return the fields in which two states of one kind differ, with both values."""
    old, new = before.model_dump(), now.model_dump()
    return "; ".join(f"{name} was {old[name]}, and is now {new[name]}" for name in old if old[name] != new[name])
