"""Loader a teacher off the event loop, in a way that shutdown can end at any moment.

Python cannot interrupt a thread. So the load runs in a daemon thread, which asks before it starts processes that would
outlive it: shutdown says no from then on, or ends the processes there are until the thread gives up.
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
    """Shutdown came first."""


class Loader:
    """One load, and whether it may still start processes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._started = False

    async def run(self, load: Callable[[Loader], T]) -> T:
        """What `load` returns, or raises. Cancelled, it stops the load: no process is left behind, and none will come."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            # An engine in processes of its own inherits this mask. Ctrl-C in a terminal signals the whole group, and
            # must not end the engine under guidance that may still run for the length of the grace.
            resource_tracker.ensure_running()  # which unblocks SIGINT when it starts
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                value = load(self)
            except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
                tell(result.set_exception, error)
            else:
                tell(result.set_result, value)

        def tell(setter: Callable[..., None], value: object) -> None:
            def settle() -> None:
                if not result.done():
                    setter(value)

            with self._lock:
                if not self._stopped:
                    loop.call_soon_threadsafe(settle)

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
                end_children(grace_s=0)  # of a load that was just done
            raise

    def may_start_processes(self) -> None:
        """Called before the load starts any. Raises LoadingStopped once shutdown has come."""
        with self._lock:
            if self._stopped:
                raise LoadingStopped
            self._started = True
