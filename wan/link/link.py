"""One link: a port for clients, with conditions and faults on the way to the target."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from itertools import count

from wan.link.conditions import Conditions
from wan.link.connection import Connection
from wan.link.direction import LinkDirection
from wan.link.faults import ByteTrigger, CorruptOptions, Direction, Fault, FaultKind
from wan.link.listener import Listener
from wan.link.messages import LinkState
from wan.link.profiles import Phase, profile
from wan.link.units import Address


class Link:
    """A link whose changes apply at once, to live connections too. Call every method on the event loop's thread.

    A link has one active fault at a time: another replaces it, and `resume` ends it. Each can be armed to start after a number
    of bytes.
    """

    def __init__(self, name: str, where: Address, target: Address) -> None:
        self.name = name
        self.conditions = Conditions()
        self.fault: Fault | None = None
        self.profile_name: str | None = None
        self.opened = 0
        """Number of connections since the start."""
        self.unreachable = 0
        """Connections that were reset because the target could not be reached."""
        self.faults: Counter[FaultKind] = Counter()
        """Number of times that each fault has started."""
        self.up = LinkDirection("up")
        self.down = LinkDirection("down")
        self._target = target
        self._numbers = count(1)
        self._live: set[Connection] = set()
        self._ending: set[Connection] = set()
        self._listener = Listener(where, self._accept)
        self._phases: asyncio.Task[None] | None = None
        self._between_cells = False

    async def open(self) -> None:
        """Listen for clients. Raises OSError."""
        await self._listener.hold()

    async def close(self) -> None:
        """Close every connection, and wait until all sockets are closed."""
        self._leave_profile()
        self._listener.release()
        self._end_all(reset=False)
        while self._ending:
            await next(iter(self._ending)).gone()
            await asyncio.sleep(0)

    @property
    def address(self) -> Address:
        """Address on which the link listens."""
        return self._listener.address

    @property
    def url(self) -> str:
        """URL of the target through this link."""
        return f"http://{self.address}"

    @property
    def live(self) -> int:
        """Number of open connections."""
        return len(self._live)

    @property
    def under_way(self) -> int:
        """Bytes in transit, of all connections."""
        return sum(connection.under_way for connection in self._live)

    @property
    def state(self) -> LinkState:
        trigger = self.up.trigger or self.down.trigger
        return LinkState(
            name=self.name,
            listens=str(self.address),
            to=str(self._target),
            profile=self.profile_name,
            conditions=self.conditions,
            fault=self.fault,
            armed=trigger.fault.model_copy(update={"after_bytes": trigger.left}) if trigger else None,
            stalled=not (self.up.flowing.is_set() and self.down.flowing.is_set()),
            bytes_up=self.up.bytes,
            bytes_down=self.down.bytes,
            under_way=self.under_way,
            live=self.live,
            opened=self.opened,
            unreachable=self.unreachable,
            faults=dict(self.faults),
        )

    def set(
        self,
        *,
        latency: str | None = None,
        jitter: str | None = None,
        bandwidth: str | None = None,
        up: str | None = None,
        down: str | None = None,
    ) -> None:
        """Change conditions, in units: `latency="80ms"` of the round trip, `bandwidth="2mbit"` both ways. Raises BadUnit."""
        self.set_conditions(
            self.conditions.changed(latency=latency, jitter=jitter, bandwidth=bandwidth, up=up, down=down)
        )

    def set_conditions(self, conditions: Conditions) -> None:
        """Apply exactly these conditions, and leave any profile. An active fault stays."""
        self._leave_profile()
        self._shape(conditions)

    def refuse(self) -> None:
        self.strike(Fault(kind=FaultKind.REFUSE))

    def stall(self, *, direction: Direction = "both", after_bytes: int | None = None) -> None:
        self.strike(Fault(kind=FaultKind.STALL, direction=direction, after_bytes=after_bytes))

    def cut(self, *, direction: Direction = "both", after_bytes: int | None = None) -> None:
        self.strike(Fault(kind=FaultKind.CUT, direction=direction, after_bytes=after_bytes))

    def reset(self, *, direction: Direction = "both", after_bytes: int | None = None) -> None:
        self.strike(Fault(kind=FaultKind.RESET, direction=direction, after_bytes=after_bytes))

    def corrupt(
        self, *, rate: float = 0.001, seed: int = 0, direction: Direction = "both", after_bytes: int | None = None
    ) -> None:
        options = CorruptOptions(rate=rate, seed=seed, direction=direction, after_bytes=after_bytes)
        self.strike(Fault(kind=FaultKind.CORRUPT, **options.model_dump()))

    def strike(self, fault: Fault) -> None:
        """Start a fault, now or after its number of bytes. Until then the active one stays."""
        self._disarm()
        if not fault.after_bytes:
            self._begin(fault)
            return
        trigger = ByteTrigger(fault, self._begin)
        for side in self._directions():
            if fault.meets(side.direction):
                side.trigger = trigger

    def resume(self) -> None:
        """End the active fault and cancel an armed one. Conditions stay, and so does a profile without a fault."""
        self._disarm()
        if self.profile_name and profile(self.profile_name).fault:
            self.profile_name = None
        self.fault = None
        self._apply()

    def profile(self, name: str, *, seed: int = 0) -> None:
        """Apply a named profile: its conditions, and only its own fault. Raises UnknownProfile."""
        chosen = profile(name)
        self._leave_profile()
        self.resume()
        self.profile_name = name
        self._shape(chosen.conditions())
        if chosen.fault:
            self.strike(Fault(kind=chosen.fault))
        phases = chosen.phases(seed)
        if first := next(phases, None):
            self._enter(first)
            self._phases = asyncio.create_task(self._pass_through(first, phases))

    async def _pass_through(self, phase: Phase, phases: Iterator[Phase]) -> None:
        while True:
            await asyncio.sleep(phase.seconds)
            phase = next(phases)
            self._enter(phase)

    def _enter(self, phase: Phase) -> None:
        self._shape(phase.conditions)
        self.faults[FaultKind.STALL] += phase.stalled
        self._between_cells = phase.stalled
        self._apply()

    def _leave_profile(self) -> None:
        self.profile_name = None
        if self._phases:
            self._phases.cancel()
            self._phases = None
        self._between_cells = False
        self._apply()

    def _shape(self, conditions: Conditions) -> None:
        self.conditions = conditions
        for side, kbit in zip(self._directions(), (conditions.up_kbit, conditions.down_kbit), strict=True):
            delay_s, jitter_s = conditions.latency_ms / 2000, conditions.jitter_ms / 2000
            side.shape(delay_s=delay_s, jitter_s=jitter_s, rate=None if kbit is None else kbit * 125)

    def _begin(self, fault: Fault) -> None:
        self._disarm()
        self.faults[fault.kind] += 1
        if fault.kind is FaultKind.RESET:
            self._end_all(reset=True)
            return
        self.fault = fault
        self._apply()
        if fault.kind is FaultKind.CUT:
            self._end_all(reset=False)

    def _apply(self) -> None:
        """Apply the active fault to the listener and both directions."""
        fault = self.fault
        for side in self._directions():
            met = fault is not None and fault.meets(side.direction)
            stalled = met and fault is not None and fault.kind is FaultKind.STALL
            side.flow(not (stalled or self._between_cells))
            side.corruption = fault if met and fault is not None and fault.kind is FaultKind.CORRUPT else None
        if fault and fault.kind in {FaultKind.CUT, FaultKind.REFUSE}:
            self._listener.shut()
        else:
            self._listener.open()

    def _disarm(self) -> None:
        self.up.trigger = self.down.trigger = None

    def _directions(self) -> tuple[LinkDirection, LinkDirection]:
        return self.up, self.down

    def _end_all(self, *, reset: bool) -> None:
        ended, self._live = self._live, set()
        self._ending |= ended
        for connection in ended:
            connection.end(reset=reset)

    def _accept(self, client: socket.socket) -> None:
        self.opened += 1
        connection = Connection(
            client,
            self._target,
            number=next(self._numbers),
            up=self.up,
            down=self.down,
            unreachable=self._count_unreachable,
            ended=self._forget,
        )
        self._live.add(connection)

    def _count_unreachable(self) -> None:
        self.unreachable += 1

    def _forget(self, connection: Connection) -> None:
        self._live.discard(connection)
        self._ending.discard(connection)
