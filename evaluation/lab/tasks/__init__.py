"""The tasks by their names, and tasks of the user's own."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path

from evaluation.lab.errors import BadTask
from evaluation.lab.tasks.base import Task

TASKS = ("gsm8k", "commonsenseqa", "mbpp", "svamp", "mt_bench")
"""Each is a module here with a `task()`."""


def load(name: str) -> tuple[Task, str | None]:
    """A task by its name, or by `path/to/file.py:function`; for the latter the file's SHA-256 too. Raises BadTask."""
    if name in TASKS:
        task: Task = importlib.import_module(f"{__name__}.{name}").task()
        return task, None
    path, colon, function = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise BadTask(
            f"there is no task {name!r}; there are {', '.join(TASKS)}, and your own as path/to/file.py:function"
        )
    return _own(Path(path), function)


def _own(path: Path, function: str) -> tuple[Task, str]:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise BadTask(f"{path}: {error.strerror}") from None
    spec = importlib.util.spec_from_file_location(f"gkt_task_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise BadTask(f"{path} is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their own annotations
    try:
        spec.loader.exec_module(module)
        task = getattr(module, function)()
    except Exception as error:
        raise BadTask(f"{path}:{function} failed: {type(error).__name__}: {error}") from error
    if not isinstance(task, Task):
        raise BadTask(
            f"{path}:{function} returns {type(task).__name__}; it has to return a Task of evaluation.lab.tasks.base"
        )
    return task, hashlib.sha256(source).hexdigest()
