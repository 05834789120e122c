"""Places in the engine, and the one queue before them: bounded, and fair between keys.

Start-time fair queueing (Goyal, Vin, Cheng, 1996): each key has a virtual time that grows by the tokens it was given over its
weight; who has had least goes next. A key that comes back begins at the present time, so idleness saves nothing up. Asked for
is the most a request can come to; what it took in truth is put right as it leaves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from shared.errors import Overloaded

MANY_KEYS = 1000


@dataclass(eq=False, slots=True)
class Ticket:
    """One request for a place. Lower `priority` goes first, whatever the keys."""

    key: str
    cost: float
    """Tokens."""
    weight: float = 1.0
    priority: int = 0
    granted: asyncio.Future[None] | None = field(default=None)


class FairQueue:
    """Belongs to one event loop."""

    def __init__(self, places: int, max_waiting: int, deadline_s: float) -> None:
        self._places = places
        self._max_waiting = max_waiting
        self._deadline_s = deadline_s
        self._waiting: dict[int, dict[str, deque[Ticket]]] = {}
        self._times: dict[str, float] = {}
        """Of each key: when, in virtual time, its next request may begin."""
        self._now = 0.0
        self.running = 0
        self.waiting = 0

    async def enter(self, ticket: Ticket) -> None:
        """Take a place, or wait for one. Raises Overloaded where the queue is full or the wait too long."""
        if self.running < self._places:  # then nobody waits
            self._take(ticket)
            return
        if self.waiting >= self._max_waiting:
            self._make_room(ticket)
        ticket.granted = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(ticket.priority, {}).setdefault(ticket.key, deque()).append(ticket)
        self.waiting += 1
        self._times[ticket.key] = max(self._times.get(ticket.key, 0.0), self._now)
        try:
            async with asyncio.timeout(self._deadline_s):
                await ticket.granted
        except TimeoutError:
            self._forget(ticket)
            raise Overloaded(f"no place came free within {self._deadline_s:g} s") from None
        except BaseException:
            self._forget(ticket)
            raise

    def leave(self, ticket: Ticket, took: float) -> None:
        """Give the place back; `took` is what it cost in truth."""
        self._times[ticket.key] = self._times.get(ticket.key, self._now) + (took - ticket.cost) / ticket.weight
        self.running -= 1
        while self.waiting and self.running < self._places:
            self._take(self._next())
        if len(self._times) > MANY_KEYS:
            self._times = {key: at for key, at in self._times.items() if at > self._now or self._waits(key)}

    def _take(self, ticket: Ticket) -> None:
        self._now = max(self._times.get(ticket.key, 0.0), self._now)
        self._times[ticket.key] = self._now + ticket.cost / ticket.weight
        self.running += 1
        if ticket.granted:
            ticket.granted.set_result(None)

    def _next(self) -> Ticket:
        queues = self._waiting[min(self._waiting)]
        key = min(queues, key=lambda one: self._times[one])
        ticket = queues[key][0]
        self._remove(ticket)
        return ticket

    def _make_room(self, ticket: Ticket) -> None:
        """Full: the key that waits for most, for its weight, loses its last request. Raises Overloaded where that is this one."""
        full = Overloaded(f"{self._places} requests run and {self.waiting} wait, the most there may")
        last = max(self._waiting, default=ticket.priority)
        if not self.waiting or ticket.priority > last:
            raise full
        queues = self._waiting[last]
        longest = max(queues.values(), key=lambda queue: len(queue) / queue[0].weight)
        if ticket.priority == last:
            mine = len(queues.get(ticket.key, ())) + 1
            if mine / ticket.weight >= len(longest) / longest[0].weight:
                raise full
        dropped = longest[-1]
        self._remove(dropped)
        assert dropped.granted  # noqa: S101 - it waits
        if not dropped.granted.done():
            dropped.granted.set_exception(full)

    def _forget(self, ticket: Ticket) -> None:
        """It does not wait any more. A place that it was given in the same moment goes to the next."""
        granted = ticket.granted
        if granted and granted.done() and not granted.cancelled() and not granted.exception():
            self.leave(ticket, 0)
        elif ticket in self._waiting.get(ticket.priority, {}).get(ticket.key, ()):
            self._remove(ticket)

    def _remove(self, ticket: Ticket) -> None:
        queues = self._waiting[ticket.priority]
        queues[ticket.key].remove(ticket)
        if not queues[ticket.key]:
            del queues[ticket.key]
        if not queues:
            del self._waiting[ticket.priority]
        self.waiting -= 1

    def _waits(self, key: str) -> bool:
        return any(key in queues for queues in self._waiting.values())
