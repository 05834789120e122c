"""A listening port that can refuse connections for a while and stays reserved."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from wan.link.sockets import held, listening, tune
from wan.link.units import Address

logger = logging.getLogger("gkt.wan")

AGAIN_S = 0.2
"""Pause after the system has run out of file handles."""


class Listener:
    """Calls `accepted` with each new connection while it is open; while it is shut, the kernel refuses them."""

    def __init__(self, where: Address, accepted: Callable[[socket.socket], None]) -> None:
        self.address = where
        self._accepted = accepted
        self._holder: socket.socket | None = None
        self._listening: socket.socket | None = None

    async def hold(self) -> None:
        """Reserve the port and listen. Raises OSError."""
        self._holder = await held(self.address)
        self.address = Address(*self._holder.getsockname()[:2])
        try:
            self.open()
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        """Close and release the port."""
        self.shut()
        if self._holder:
            self._holder.close()
            self._holder = None

    def open(self) -> None:
        """Listen, if the port is reserved and not open yet. Raises OSError."""
        if self._holder and not self._listening:
            self._listening = listening(self._holder)
            self._watch(self._listening)

    def shut(self) -> None:
        """Stop listening at once; connections that are not accepted yet are reset."""
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
            logger.warning("%s pauses accepting connections: %s", self.address, error)
            loop = asyncio.get_running_loop()
            loop.remove_reader(sock)
            loop.call_later(AGAIN_S, self._watch, sock)
            return
        tune(client)
        self._accepted(client)
