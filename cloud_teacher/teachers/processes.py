"""Finds and ends the processes below this one.

vLLM runs its engine as a child process and its workers as children of that. Linux lists all of them in `/proc`. Elsewhere only
direct children are found, and the engine ends its own.
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
"""Time between SIGTERM and SIGKILL."""

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Make descendants children of this process when their parents die, so that they can still be found."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_children(grace_s: float = GRACE_S) -> None:
    """End the children started through `multiprocessing` and their descendants. Returns when they are gone."""
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
    """End every process below this one, when it exits itself.

    Python's resource tracker is left running: it removes the shared memory of killed processes and then ends by itself.
    """
    end_children()
    tracker = getattr(resource_tracker, "_resource_tracker", None)
    _kill([pid for pid in descendants(os.getpid()) if pid != getattr(tracker, "_pid", None)])


def descendants(pid: int) -> list[int]:
    """Return the ids of all processes below a process."""
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
