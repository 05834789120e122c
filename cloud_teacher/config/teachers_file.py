"""The file of teachers (`GKT_CLOUD_TEACHERS_FILE`): a YAML list of `TeacherEntry`. The first is asked where none is named."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cloud_teacher.config.teacher import TeacherEntry
from shared.errors import ConfigurationError
from shared.validation import describe


def read_teachers(path: Path) -> list[TeacherEntry]:
    """The entries, their keys looked for. Raises ConfigurationError, which names the file, the entry and the field."""
    try:
        listed = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"teachers_file: {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: is not YAML: {error}") from error
    if not isinstance(listed, list) or not listed:
        raise ConfigurationError(f"{path}: is no list of teachers")
    entries = [_entry(path, place, item) for place, item in enumerate(listed, 1)]
    _check(path, entries)
    return entries


def _entry(path: Path, place: int, item: Any) -> TeacherEntry:
    name = item.get("name") if isinstance(item, dict) else None
    where = f"{path}: teacher {place}" + (f" ({name})" if isinstance(name, str) else "")
    try:
        entry = TeacherEntry.model_validate(item)
        if entry.key_file and not entry.key_file.is_absolute():
            entry = entry.model_copy(update={"key_file": path.parent / entry.key_file})
        entry.key()
    except ValidationError as error:
        raise ConfigurationError(f"{where}: {describe(error)}") from error
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error.message}") from error
    return entry


def _check(path: Path, entries: list[TeacherEntry]) -> None:
    """What only all of them together can have wrong."""
    names = Counter(entry.name for entry in entries)
    for place, entry in enumerate(entries, 1):
        where = f"{path}: teacher {place} ({entry.name})"
        if names[entry.name] > 1:
            raise ConfigurationError(f"{where}: name: another has it too")
        for other in entry.fallbacks or ():
            if other not in names or other == entry.name:
                raise ConfigurationError(f"{where}: fallbacks: {other!r} is no other teacher of this file")
    if sum(entry.api == "vllm" for entry in entries) > 1:
        raise ConfigurationError(f"{path}: api: vllm: there is one engine in a service; two teachers want it")
