"""Loads a teacher off the event loop, so that shutdown can stop the load at any moment.

Python cannot interrupt a thread, so the load runs in a daemon thread that asks before it starts processes that would outlive it.
Shutdown denies that from then on, and ends the processes that exist until the thread gives up.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from multiprocessing import resource_tracker
from typing import TypeVar

from cloud_teacher.teachers.processes import end_children

T = TypeVar("T")


class LoadingStopped(Exception):
    """The service shut down before the load was done."""


class Loader:
    """Runs one load, and decides whether it may still start processes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._started = False

    async def run(self, load: Callable[[Loader], T]) -> T:
        """Return or raise what `load` does. Cancelling it stops the load, and leaves no process behind."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            # Engine processes inherit this signal mask. Ctrl-C in a terminal signals the whole process group, and must not end
            # the engine while running requests have their grace period.
            resource_tracker.ensure_running()  # it unblocks SIGINT when it starts
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                value = load(self)
            except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
                settle(result.set_exception, error)
            else:
                settle(result.set_result, value)

        def settle(setter: Callable[..., None], value: object) -> None:
            def set_once() -> None:
                if not result.done():
                    setter(value)

            with self._lock:
                if not self._stopped:
                    loop.call_soon_threadsafe(set_once)

        thread = threading.Thread(target=work, name="load", daemon=True)
        thread.start()
        try:
            return await result
        except asyncio.CancelledError:
            with self._lock:
                self._stopped = True
                started = self._started
            if started:
                while thread.is_alive():
                    end_children(grace_s=0)
                    thread.join(0.1)
                end_children(grace_s=0)  # those of a load that ended just now
            raise

    def may_start_processes(self) -> None:
        """Ask before the load starts a process. Raises LoadingStopped during shutdown."""
        with self._lock:
            if self._stopped:
                raise LoadingStopped
            self._started = True
