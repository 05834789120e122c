"""A port that connections come in at, that can be closed for a while without being lost to somebody else."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from wan.link.sockets import held, listening, tune
from wan.link.units import Address

logger = logging.getLogger("gkt.wan")

AGAIN_S = 0.2
"""After the system had no file handle left."""


class Listener:
    """While it is open, `accepted` is called with each new connection; while it is shut, the kernel refuses them."""

    def __init__(self, where: Address, accepted: Callable[[socket.socket], None]) -> None:
        self.address = where
        self._accepted = accepted
        self._holder: socket.socket | None = None
        self._listening: socket.socket | None = None

    async def hold(self) -> None:
        """Take the port. Raises OSError where it cannot be had."""
        self._holder = await held(self.address)
        self.address = Address(*self._holder.getsockname()[:2])
        try:
            self.open()
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        """Give the port back."""
        self.shut()
        if self._holder:
            self._holder.close()
            self._holder = None

    def open(self) -> None:
        """Nothing where the port is not held, or is open already. Raises OSError."""
        if self._holder and not self._listening:
            self._listening = listening(self._holder)
            self._watch(self._listening)

    def shut(self) -> None:
        """At once: those whom nobody has accepted yet are reset."""
        if self._listening:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    def _watch(self, sock: socket.socket) -> None:
        if sock is self._listening:
            asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def _accept(self, sock: socket.socket) -> None:
        try:
            client, _ = sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            logger.warning("%s accepts no connection for a moment: %s", self.address, error)
            loop = asyncio.get_running_loop()
            loop.remove_reader(sock)
            loop.call_later(AGAIN_S, self._watch, sock)
            return
        tune(client)
        self._accepted(client)
