"""Slots of the engine and the queue in front of them, bounded and fair between keys.

Start-time fair queueing (Goyal, Vin, Cheng, 1996): each key has a virtual time that grows by its tokens divided by its weight.
The key with the lowest virtual time is next. An idle key restarts at the current virtual time, so it cannot save up credit. A
request enters with the upper bound of its tokens, which is corrected to the real number when it leaves.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from shared.errors import Overloaded

MAX_KEYS = 1000
"""Idle keys are forgotten above this number of keys."""


@dataclass(eq=False, slots=True)
class Ticket:
    """One request for a slot. Lower `priority` goes first, regardless of keys."""

    key: str
    cost: float
    """Upper bound of the request's tokens."""
    weight: float = 1.0
    priority: int = 0
    granted: asyncio.Future[None] | None = field(default=None)


class FairQueue:
    """Grants slots to tickets. Belongs to one event loop."""

    def __init__(self, slots: int, max_waiting: int, deadline_s: float) -> None:
        self._slots = slots
        self._max_waiting = max_waiting
        self._deadline_s = deadline_s
        self._waiting: dict[int, dict[str, deque[Ticket]]] = {}
        self._times: dict[str, float] = {}
        """Virtual time at which the next request of each key may start."""
        self._now = 0.0
        self.running = 0
        self.waiting = 0

    async def enter(self, ticket: Ticket) -> None:
        """Take a slot, or wait for one. Raises Overloaded if the queue is full or the wait too long."""
        if self.running < self._slots:  # then the queue is empty
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
            self._abandon(ticket)
            raise Overloaded(f"no slot became free within {self._deadline_s:g} s") from None
        except BaseException:
            self._abandon(ticket)
            raise

    def leave(self, ticket: Ticket, cost: float) -> None:
        """Free the slot. `cost` is the real number of tokens."""
        self._times[ticket.key] = self._times.get(ticket.key, self._now) + (cost - ticket.cost) / ticket.weight
        self.running -= 1
        while self.waiting and self.running < self._slots:
            self._take(self._next())
        if len(self._times) > MAX_KEYS:
            self._times = {key: at for key, at in self._times.items() if at > self._now or self._is_waiting(key)}

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
        """Drop the last request of the key with the longest queue for its weight. Raises Overloaded if that is `ticket`."""
        full = Overloaded(f"all {self._slots} slots are in use and the queue of {self.waiting} is full")
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
        assert dropped.granted  # noqa: S101 - it is waiting
        if not dropped.granted.done():
            dropped.granted.set_exception(full)

    def _abandon(self, ticket: Ticket) -> None:
        """Remove a ticket that no longer waits. A slot that it was granted at the same moment goes to the next one."""
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

    def _is_waiting(self, key: str) -> bool:
        return any(key in queues for queues in self._waiting.values())
