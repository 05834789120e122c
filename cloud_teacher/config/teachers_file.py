"""The teachers file (`GKT_CLOUD_TEACHERS_FILE`): a YAML list of `TeacherEntry`. The first entry is the default."""

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
    """Return the entries. Raises ConfigurationError, also for a missing key; it names the file, the entry and the field."""
    try:
        listed = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"teachers_file: {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: invalid YAML: {error}") from error
    if not isinstance(listed, list) or not listed:
        raise ConfigurationError(f"{path}: expected a list of teachers")
    entries = [_entry(path, number, item) for number, item in enumerate(listed, 1)]
    _check(path, entries)
    return entries


def _entry(path: Path, number: int, item: Any) -> TeacherEntry:
    name = item.get("name") if isinstance(item, dict) else None
    where = f"{path}: teacher {number}" + (f" ({name})" if isinstance(name, str) else "")
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
    """Check what only all entries together can violate."""
    names = Counter(entry.name for entry in entries)
    for number, entry in enumerate(entries, 1):
        where = f"{path}: teacher {number} ({entry.name})"
        if names[entry.name] > 1:
            raise ConfigurationError(f"{where}: name: another teacher has the same name")
        for other in entry.fallbacks or ():
            if other not in names or other == entry.name:
                raise ConfigurationError(
                    f"{where}: fallbacks: {other!r} is not the name of another teacher in this file"
                )
    if sum(entry.api == "vllm" for entry in entries) > 1:
        raise ConfigurationError(f"{path}: api: vllm: only one teacher of a service may use it")
