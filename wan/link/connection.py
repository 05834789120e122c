"""One connection through a link: the client's socket, the target's, and a pipe each way."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from wan.link.direction import LinkDirection
from wan.link.pipe import Pipe
from wan.link.sockets import close, connected
from wan.link.units import Address

logger = logging.getLogger("gkt.wan")


class Connection:
    """A connection that runs from its creation on, and calls `ended` when both sockets are closed."""

    def __init__(
        self,
        client: socket.socket,
        target: Address,
        *,
        number: int,
        up: LinkDirection,
        down: LinkDirection,
        unreachable: Callable[[], None],
        ended: Callable[[Connection], None],
    ) -> None:
        self._client = client
        self._cloud: socket.socket | None = None
        self._target = target
        self._number = number
        self._up, self._down = up, down
        self._unreachable = unreachable
        self._ended = ended
        self._pipes: list[Pipe] = []
        self._reset = False
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._finish)

    @property
    def under_way(self) -> int:
        """Bytes that have left one end and have not reached the other."""
        return sum(pipe.under_way for pipe in self._pipes)

    def end(self, *, reset: bool) -> None:
        """Stop the pipes at once, and end both sockets with a RST or a FIN."""
        self._reset = reset
        for pipe in self._pipes:
            pipe.stopped = True
        self._task.cancel()

    async def gone(self) -> None:
        """Wait until both sockets are closed."""
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        # The kernel has already answered the client, so its first bytes wait for the round trip of the handshake.
        for side in (self._up, self._down):
            await side.flowing.wait()
            await side.delay.arrival(clock(), 0.0)
        try:
            self._cloud = await connected(self._target)
        except OSError as error:
            logger.info("%s cannot be reached: %s", self._target, error)
            self._unreachable()
            self._reset = True
            return
        up = Pipe(self._client, self._cloud, self._up, f"up/{self._number}")
        down = Pipe(self._cloud, self._client, self._down, f"down/{self._number}")
        up.back, down.back = down, up
        self._pipes = [up, down]
        try:
            async with asyncio.TaskGroup() as group:
                for pipe in self._pipes:
                    group.create_task(pipe.take_in())
                    group.create_task(pipe.deliver())
        except* OSError:
            self._reset = True

    def _finish(self, task: asyncio.Task[None]) -> None:
        for sock in (self._client, self._cloud):
            if sock:
                close(sock, reset=self._reset)
        if not task.cancelled() and (error := task.exception()):
            logger.error("connection %d failed unexpectedly", self._number, exc_info=error)
        self._ended(self)
