"""Find a task by its name, or load one from a file of the user's own."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

from evaluation.lab.errors import BadTask
from evaluation.lab.tasks.base import Task


@cache
def names() -> tuple[str, ...]:
    """Return the names of the tasks that come with gkt: the modules of this package that have a `task()`."""
    modules = (found.name for found in pkgutil.iter_modules(__path__))
    return tuple(name for name in modules if hasattr(importlib.import_module(f"{__name__}.{name}"), "task"))


def load(name: str) -> Task:
    """Load a task by its name, or from `path/to/file.py:function`, then with the file's SHA-256. Raises BadTask."""
    if name in names():
        task: Task = importlib.import_module(f"{__name__}.{name}").task()
        return task
    path, colon, function = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise BadTask(
            f"task {name!r} not found; available: {', '.join(names())}, and your own as path/to/file.py:function"
        )
    return _own(Path(path), function)


def _own(path: Path, function: str) -> Task:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise BadTask(f"{path}: {error.strerror}") from None
    spec = importlib.util.spec_from_file_location(f"gkt_task_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise BadTask(f"{path} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look up their annotations here
    try:
        spec.loader.exec_module(module)
        task = getattr(module, function)()
    except Exception as error:
        raise BadTask(f"{path}:{function} failed: {type(error).__name__}: {error}") from error
    if not isinstance(task, Task):
        raise BadTask(
            f"{path}:{function} returns {type(task).__name__}; it must return a Task of evaluation.lab.tasks.base"
        )
    return replace(task, file_sha256=hashlib.sha256(source).hexdigest())
