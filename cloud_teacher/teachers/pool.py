"""The teachers of a cloud: which one a request gets, which ones stand in for it, and which ones are cooling down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from cloud_teacher.config.teacher import TeacherEntry
from cloud_teacher.teachers.base import Teacher
from shared.errors import EngineFailed, GktError, NotReady, Overloaded, TooManyRequests, UnknownModel
from shared.prices import Prices

FAILURES = (NotReady, EngineFailed, Overloaded, TooManyRequests)
"""Errors worth retrying on another teacher. A bad request would fail on all of them."""
MAX_COOL_DOWN_S = 60.0
"""Upper bound for an upstream's Retry-After."""


class PooledTeacher:
    """One teacher of the pool: its settings and its health. Belongs to one event loop."""

    def __init__(
        self,
        entry: TeacherEntry,
        *,
        prices: Prices | None = None,
        cools_down: bool = False,
        teacher: Teacher | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`cools_down` skips the teacher for a while after a failure. Without a `teacher` it is still to be loaded."""
        self.entry = entry
        self.prices = prices
        self.teacher = teacher
        self.failure: str | None = None
        """Reason why the teacher has failed for good."""
        self._cools_down = cools_down
        self._clock = clock
        self._trouble: str | None = None
        self._cooling_until_s = 0.0

    @property
    def name(self) -> str:
        return self.entry.name

    def acquire(self) -> Teacher:
        """Return the teacher for one request. Raises NotReady while it loads or cools down, EngineFailed if it is dead.

        The first request after a cool-down tries the teacher; others skip it until `mark_healthy` is called.
        """
        if self.failure:
            raise EngineFailed(self.failure)
        if self.teacher is None:
            raise NotReady(f"teacher {self.name!r} is still loading", retry_after_s=5)
        self.teacher.check_health()
        if self._trouble:
            left_s = self._cooling_until_s - self._clock()
            if left_s > 0:
                raise NotReady(
                    f"teacher {self.name!r} is cooling down after a failure: {self._trouble}",
                    retry_after_s=round(max(0.1, left_s), 1),
                )
            self._cooling_until_s = self._clock() + self.entry.cool_down_s
        return self.teacher

    def mark_healthy(self) -> None:
        """Record that the teacher has answered."""
        self._trouble = None

    def mark_failed(self, error: GktError) -> None:
        """Record a failure. Unreachable or rate-limited teachers are skipped for a cool-down."""
        cool_down_s = self.entry.cool_down_s
        if isinstance(error, Overloaded | TooManyRequests):
            cool_down_s = min(MAX_COOL_DOWN_S, error.retry_after_s or 0.0)
        elif not isinstance(error, NotReady):
            return
        if self._cools_down and cool_down_s:
            self._trouble = error.message
            self._cooling_until_s = self._clock() + cool_down_s

    @property
    def cooling_down(self) -> bool:
        return self._trouble is not None and self._clock() < self._cooling_until_s

    def status(self) -> tuple[str, str | None]:
        """Return `ok`, `loading` or `failed`, and the reason. A teacher that cools down is `failed`."""
        if self.failure:
            return "failed", self.failure
        if self.teacher is None:
            return "loading", "the teacher is still loading"
        try:
            self.teacher.check_health()
        except EngineFailed as error:
            return "failed", error.message
        return ("failed", self._trouble) if self.cooling_down else ("ok", None)

    def is_up(self) -> bool:
        return self.status()[0] == "ok"


class TeacherPool:
    """All teachers of one cloud, in the order in which they stand in for each other."""

    def __init__(self, teachers: Sequence[PooledTeacher]) -> None:
        self._teachers = list(teachers)
        self._by_name = {pooled.name: pooled for pooled in teachers}

    @classmethod
    def single(cls, teacher: Teacher) -> TeacherPool:
        """Return a pool of one teacher that is loaded already."""
        return cls([PooledTeacher(TeacherEntry.model_construct(name=teacher.model), teacher=teacher)])

    def __iter__(self) -> Iterator[PooledTeacher]:
        return iter(self._teachers)

    @property
    def first(self) -> PooledTeacher:
        return self._teachers[0]

    def candidates(self, name: str | None) -> list[PooledTeacher]:
        """Return the named teacher, or the first, and behind it those that stand in for it. Raises UnknownModel."""
        pooled = self.first if name is None else self._by_name.get(name)
        if pooled is None:
            known = ", ".join(self._by_name)
            raise UnknownModel(f"teacher {name!r} not found; available teachers: {known}", param="model")
        if pooled.entry.fallbacks is None:
            return self._teachers[self._teachers.index(pooled) :]
        return [pooled, *(self._by_name[other] for other in pooled.entry.fallbacks)]
