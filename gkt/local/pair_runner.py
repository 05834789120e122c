"""Processes of a pair: started together, watched, and ended together."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence

import httpx
from pydantic import ValidationError

from gkt.local.pair import Pair
from gkt.terminal.sanitize import plain
from shared.child_process import POLL_S, ChildProcess
from shared.errors import ConfigurationError, GktError
from shared.protocol.guidance import Health

READY_POLL_S = 0.25
GRACE_S = 5.0
"""Time that a process may take to end, beyond its own grace."""


class ServiceEnded(GktError):
    """A service ended unexpectedly."""

    code = "service_ended"

    def __init__(self, child: ChildProcess) -> None:
        super().__init__(f"the {child.name} ended unexpectedly; its log is {child.log}")
        self.log_tail = plain(child.log_tail())


class PairRunner:
    """Runs the services of a pair. If one ends, the others are ended too."""

    def __init__(self, pair: Pair) -> None:
        self._services = pair.services
        self._children: list[ChildProcess] = []
        self._stop = asyncio.Event()

    async def run(self, *, on_status: Callable[[str], None], on_ready: Callable[[float], None]) -> None:
        """Run all services until SIGINT, SIGTERM, SIGHUP or `stop`, and leave no process. A second signal ends the grace.

        `on_status` gets the state of the services, `on_ready` the seconds until all are ready. Raises ServiceEnded if one ends
        by itself, ConfigurationError if one cannot be started.
        """
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(signum, self._on_signal)
        try:
            self._start()
            ended = await self._watch(on_status, on_ready, loop.time())
            if ended and not self._stop.is_set():
                raise ServiceEnded(ended)
            on_status("stopping")
        finally:
            await self._end()

    async def _watch(
        self, on_status: Callable[[str], None], on_ready: Callable[[float], None], began: float
    ) -> ChildProcess | None:
        """Wait for a signal or the end of a service. Returns the process that ended, if one did."""
        ready = asyncio.create_task(self._until_ready(on_status))
        stop = asyncio.create_task(self._stop.wait())
        ends = {asyncio.create_task(_ended(child)): child for child in self._children}
        try:
            await asyncio.wait({ready, stop, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                ready.result()
                on_ready(asyncio.get_running_loop().time() - began)
                await asyncio.wait({stop, *ends}, return_when=asyncio.FIRST_COMPLETED)
            return next((child for end, child in ends.items() if end.done()), None)
        finally:
            for task in (ready, stop, *ends):
                task.cancel()
            await asyncio.gather(ready, stop, *ends, return_exceptions=True)

    def _start(self) -> None:
        for service in self._services:
            # -P: a folder `shared` in the working directory must not be imported.
            command = [sys.executable, "-P", *service.arguments]
            try:
                child = ChildProcess(service.name, command, env=service.environment, log=service.log)
            except OSError as error:
                raise ConfigurationError(f"the {service.name} cannot be started: {error}") from error
            self._children.append(child)

    def stop(self) -> None:
        """End the run as a signal does."""
        self._stop.set()

    def _on_signal(self) -> None:
        if self._stop.is_set():
            for child in self._children:
                child.kill()
        self._stop.set()

    async def _end(self) -> None:
        ends = zip(self._children, self._services, strict=False)
        await asyncio.gather(*(asyncio.to_thread(child.stop, service.grace_s + GRACE_S) for child, service in ends))

    async def _until_ready(self, on_status: Callable[[str], None]) -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            while True:
                states = await asyncio.gather(*(_state(client, service.url) for service in self._services))
                on_status(self._sentence(states))
                if all(state.status == "ok" for state in states):
                    return
                await asyncio.sleep(READY_POLL_S)

    def _sentence(self, states: Sequence[Health]) -> str:
        return ", ".join(
            f"{service.name}: {'ready' if state.status == 'ok' else state.detail or state.status}"
            for service, state in zip(self._services, states, strict=True)
        )


async def _ended(child: ChildProcess) -> None:
    while child.status is None:  # noqa: ASYNC110 - a process sets no event
        await asyncio.sleep(POLL_S)


async def _state(client: httpx.AsyncClient, url: str) -> Health:
    try:
        response = await client.get(f"{url}/ready")
        return Health.model_validate_json(response.content)
    except (httpx.TransportError, ValidationError):
        return Health(status="loading", detail="starting")
