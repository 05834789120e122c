"""One direction of one connection: bytes enter, wait in a bounded queue for as long as the way takes, and leave in order."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import NamedTuple

from wan.link.bit_flips import BitFlips
from wan.link.delay_and_jitter import JitterDraws
from wan.link.direction import LinkDirection
from wan.link.faults import Fault
from wan.link.sockets import received, writable

WINDOW_BYTES = 262_144
"""Upper bound of bytes in transit. Like TCP's window, it bounds the rate of one connection to window over latency."""


class _Parcel(NamedTuple):
    sent_at: float
    jitter_fraction: float
    data: bytes | None
    """Bytes of the parcel: empty at the end of the stream, None if the sender has reset the connection."""


class _ResetBySender(ConnectionResetError):
    pass


class Pipe:
    """Moves bytes one way. Run `take_in` and `deliver` once each, concurrently. `back` is the pipe of the other direction."""

    back: Pipe

    def __init__(self, source: socket.socket, sink: socket.socket, side: LinkDirection, name: str) -> None:
        self._source = source
        self._sink = sink
        self._direction = side
        self._name = name
        self._jitter = JitterDraws(name)
        self._parcels: deque[_Parcel] = deque()
        self.under_way = 0
        self._moved = asyncio.Event()
        self._flips: BitFlips | None = None
        self._flips_of: Fault | None = None
        self._flips_at = 0
        self._delivered = asyncio.Event()
        self.stopped = False
        """If set, no more bytes leave."""

    async def take_in(self) -> None:
        clock = asyncio.get_running_loop().time
        data: bytes | None = b"-"
        while data:
            while self.under_way >= WINDOW_BYTES:
                await self._movement()
            await self._direction.flowing.wait()
            try:
                data = await received(self._source, min(self._direction.bucket.piece(), WINDOW_BYTES - self.under_way))
            except OSError:
                data = None
            self.under_way += len(data or b"")
            await self._direction.bucket.take(len(data or b""))
            self._parcels.append(_Parcel(clock(), self._jitter.fraction(), data))
            self._moved.set()

    async def deliver(self) -> None:
        """Deliver everything in order. Raises OSError if either end has reset the connection."""
        try:
            await self._deliver()
        except _ResetBySender:
            raise
        except OSError:
            # The receiver has reset the connection; bytes that it sent before arrive first.
            self._delivered.set()
            await self.back.drained()
            raise
        self._delivered.set()

    async def drained(self) -> None:
        """Wait until everything is delivered. The source is closed, so this ends."""
        await self._delivered.wait()

    async def _deliver(self) -> None:
        while True:
            while not self._parcels:
                await self._movement()
            parcel = self._parcels[0]
            await self._direction.delay.arrival(parcel.sent_at, parcel.jitter_fraction)
            if parcel.data:
                await self._send(parcel.data)
                self._parcels.popleft()
                self.under_way -= len(parcel.data)
                self._moved.set()
                continue
            await self._direction.flowing.wait()
            if parcel.data is None:
                raise _ResetBySender
            if not self.stopped:
                self._sink.shutdown(socket.SHUT_WR)
            return

    async def _send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            await self._direction.flowing.wait()
            if self.stopped:
                return
            trigger = self._direction.trigger
            piece = left if trigger is None else left[: trigger.left]
            try:
                sent = self._sink.send(self._flipped(piece))
            except (BlockingIOError, InterruptedError):
                await writable(self._sink)
                continue
            left = left[sent:]
            self._flips_at += sent
            self._direction.passed(sent)

    def _flipped(self, data: memoryview) -> bytes | memoryview:
        fault = self._direction.corruption
        if fault is not self._flips_of:
            self._flips_of, self._flips_at = fault, 0
            self._flips = BitFlips(fault.rate, f"{fault.seed}/{self._name}") if fault else None
        return self._flips.flipped(data, self._flips_at) if self._flips else data

    async def _movement(self) -> None:
        self._moved.clear()
        await self._moved.wait()
