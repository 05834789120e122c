"""The processes below this one, and their end.

vLLM runs its engine as a child of ours and its workers as children of that. Found on Linux, through `/proc`; elsewhere only
children are known, and the engine looks after its own.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from multiprocessing import resource_tracker
from pathlib import Path

GRACE_S = 5.0
"""A process that was told to end may take this long."""

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Have processes below this one become its children when their parents die, so that they are not lost sight of."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_children(grace_s: float = GRACE_S) -> None:
    """End what was started through `multiprocessing`, and what that has started. Returns when it is gone."""
    children = multiprocessing.active_children()
    family = [pid for child in children if child.pid for pid in descendants(child.pid)]
    for child in children:
        child.terminate() if grace_s else child.kill()
    for child in children:
        child.join(grace_s)
        if child.is_alive():
            child.kill()
            child.join()
    _kill(family)


def end_descendants() -> None:
    """End every process below this one, at the end of its own life.

    But for Python's resource tracker: it ends by itself, after it has removed what the killed have left in shared memory.
    """
    end_children()
    tracker = getattr(resource_tracker, "_resource_tracker", None)
    _kill([pid for pid in descendants(os.getpid()) if pid != getattr(tracker, "_pid", None)])


def descendants(pid: int) -> list[int]:
    """Ids of the processes that a process started, and theirs."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
