"""The same question, once: greedy requests that are alike read one generation, while it is written and for a while after.

Alike are requests of one key with the same template, conversation and options; of any keys where the operator says so, since
the time a hit takes tells what another has asked.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, NamedTuple

from cloud_teacher.auth.caller import Caller
from cloud_teacher.guidance.generation import Generation
from cloud_teacher.guidance.prepare import Asked
from shared.server.bearer_keys import ANYONE

How = Literal["coalesced", "cached"]
Share = Literal["off", "running", "cache"]

ENTRY_TOKENS = 50
"""What a cached generation takes beside its tokens, in tokens."""


class Found(NamedTuple):
    generation: Generation
    how: How


class _Kept(NamedTuple):
    generation: Generation
    until_s: float
    tokens: int


class Sharing:
    """Generations that run, and a bounded cache of those that ended well, least recently used go first."""

    def __init__(
        self,
        share: Share = "off",
        *,
        across_keys: bool = False,
        cache_tokens: int = 0,
        lasts_s: float = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share = share
        self._across_keys = across_keys
        self._cache_tokens = cache_tokens if share == "cache" else 0
        self._lasts_s = lasts_s
        self._clock = clock
        self._running: dict[bytes, Generation] = {}
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._kept_tokens = 0

    def cache_salt(self, caller: Caller, wished: str | None) -> str | None:
        """What keeps the engine's prefix cache apart: between keys, where the operator wants that, and as a request wishes."""
        if self._across_keys or caller.name == ANYONE:
            return wished
        return caller.name if wished is None else f"{caller.name}/{wished}"  # no key's name has a slash

    def key(self, asked: Asked) -> bytes | None:
        """What makes two requests alike; None where a request is like no other, because chance decides its answer."""
        request = asked.request
        if self._share == "off" or request.temperature > 0:
            return None
        whose = "" if self._across_keys else asked.caller.name
        options = request.model_dump_json(exclude={"template", "priority"})
        what = "\0".join([whose, asked.template.identity, type(request).__name__, options])
        return hashlib.sha256(what.encode()).digest()

    def find(self, key: bytes, asked: Asked) -> Found | None:
        """A generation to read instead of asking for one. The same key's may still wait for a place, not others'."""
        running = self._running.get(key)
        if running and running.open and (running.admitted or running.account.subject.key == asked.caller.name):
            return Found(running, "coalesced")
        kept = self._kept.get(key)
        if kept is None:
            return None
        if self._clock() >= kept.until_s:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return Found(kept.generation, "cached")

    def begun(self, key: bytes, generation: Generation) -> None:
        self._running[key] = generation

    def ended(self, key: bytes, generation: Generation) -> None:
        """It is kept where it was written to its end."""
        if self._running.get(key) is generation:
            del self._running[key]
        tokens = ENTRY_TOKENS + generation.account.completion_tokens
        if generation.reason is None or tokens > self._cache_tokens:
            return
        if key in self._kept:
            self._drop(key)
        self._kept[key] = _Kept(generation, self._clock() + self._lasts_s, tokens)
        self._kept_tokens += tokens
        while self._kept_tokens > self._cache_tokens:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: bytes) -> None:
        self._kept_tokens -= self._kept.pop(key).tokens
