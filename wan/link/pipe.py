"""One direction of one connection: bytes enter, wait in a bounded queue for as long as the way takes, and leave in order."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from random import Random
from typing import NamedTuple

from wan.link.bit_flips import Noise
from wan.link.direction import Lane
from wan.link.faults import Fault
from wan.link.sockets import received, writable

WINDOW_BYTES = 262_144
"""What is under way at most. As TCP's window does, it bounds the rate of one connection to itself over the latency."""


class _Parcel(NamedTuple):
    sent_at: float
    luck: float
    data: bytes | None
    """Nothing at the end of the stream; None where the sender has reset the connection."""


class _ResetBySender(ConnectionResetError):
    pass


class Pipe:
    """`take_in` and `deliver` run side by side, each once. `back` is the pipe of the other direction."""

    back: Pipe

    def __init__(self, source: socket.socket, sink: socket.socket, lane: Lane, name: str) -> None:
        self._source = source
        self._sink = sink
        self._lane = lane
        self._name = name
        self._luck = Random(name)  # noqa: S311 - jitter, not a key
        self._parcels: deque[_Parcel] = deque()
        self.under_way = 0
        self._moved = asyncio.Event()
        self._noise: Noise | None = None
        self._noise_of: Fault | None = None
        self._noise_at = 0
        self._delivered = asyncio.Event()
        self.stopped = False
        """Set, not a byte more leaves."""

    async def take_in(self) -> None:
        clock = asyncio.get_running_loop().time
        data: bytes | None = b"-"
        while data:
            while self.under_way >= WINDOW_BYTES:
                await self._movement()
            await self._lane.flowing.wait()
            try:
                data = await received(self._source, min(self._lane.pace.piece(), WINDOW_BYTES - self.under_way))
            except OSError:
                data = None
            self.under_way += len(data or b"")
            await self._lane.pace.take(len(data or b""))
            self._parcels.append(_Parcel(clock(), self._luck.random(), data))
            self._moved.set()

    async def deliver(self) -> None:
        """Raises OSError where either end has reset the connection."""
        try:
            await self._deliver()
        except _ResetBySender:
            raise
        except OSError:
            # The receiver is gone, and may have said something before: that arrives first.
            self._delivered.set()
            await self.back.heard_out()
            raise
        self._delivered.set()

    async def heard_out(self) -> None:
        """Wait until all has been delivered that ever will. Its source is gone, so that comes to an end."""
        await self._delivered.wait()

    async def _deliver(self) -> None:
        while True:
            while not self._parcels:
                await self._movement()
            parcel = self._parcels[0]
            await self._lane.arrival(parcel.sent_at, parcel.luck)
            if parcel.data:
                await self._send(parcel.data)
                self._parcels.popleft()
                self.under_way -= len(parcel.data)
                self._moved.set()
                continue
            await self._lane.flowing.wait()
            if parcel.data is None:
                raise _ResetBySender
            if not self.stopped:
                self._sink.shutdown(socket.SHUT_WR)
            return

    async def _send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            await self._lane.flowing.wait()
            if self.stopped:
                return
            fuse = self._lane.fuse
            piece = left if fuse is None else left[: fuse.left]
            try:
                sent = self._sink.send(self._spoiled(piece))
            except (BlockingIOError, InterruptedError):
                await writable(self._sink)
                continue
            left = left[sent:]
            self._noise_at += sent
            self._lane.passed(sent)

    def _spoiled(self, data: memoryview) -> bytes | memoryview:
        fault = self._lane.corruption
        if fault is not self._noise_of:
            self._noise_of, self._noise_at = fault, 0
            self._noise = Noise(fault.rate, f"{fault.seed}/{self._name}") if fault else None
        return self._noise.spoiled(data, self._noise_at) if self._noise else data

    async def _movement(self) -> None:
        self._moved.clear()
        await self._moved.wait()
