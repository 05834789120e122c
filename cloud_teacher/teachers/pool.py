"""The teachers of a cloud, by name and in order: who is asked, who is asked in its place, and who is left alone for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from cloud_teacher.config.teacher import TeacherEntry
from cloud_teacher.teachers.base import Teacher
from shared.errors import EngineFailed, GktError, NotReady, Overloaded, TooManyRequests, UnknownModel
from shared.prices import Prices

FAILURES = (NotReady, EngineFailed, Overloaded, TooManyRequests)
"""Of a teacher; another may do better. What is wrong with a request is wrong everywhere."""
LONGEST_REST_S = 60.0
"""That a server may ask for."""


class Member:
    """One teacher: as it was set up, and how it is. Belongs to one event loop."""

    def __init__(
        self,
        entry: TeacherEntry,
        *,
        prices: Prices | None = None,
        rests: bool = False,
        teacher: Teacher | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rests`: after a failure it is left alone for a while. Without a `teacher` it is still to be loaded."""
        self.entry = entry
        self.prices = prices
        self.teacher = teacher
        self.failure: str | None = None
        """Why it will not come back."""
        self._rests = rests
        self._clock = clock
        self._trouble: str | None = None
        self._rests_until_s = 0.0

    @property
    def name(self) -> str:
        return self.entry.name

    def ask(self) -> Teacher:
        """The teacher, for one request. Raises NotReady while it is loaded or rests, EngineFailed where it is dead.

        The first that comes after a rest tries it; the others stay away until it has answered.
        """
        if self.failure:
            raise EngineFailed(self.failure)
        if self.teacher is None:
            raise NotReady(f"{self.name} is being loaded", retry_after_s=5)
        self.teacher.check_health()
        if self._trouble:
            left_s = self._rests_until_s - self._clock()
            if left_s > 0:
                raise NotReady(f"{self.name} is left alone: {self._trouble}", retry_after_s=round(max(0.1, left_s), 1))
            self._rests_until_s = self._clock() + self.entry.cool_down_s
        return self.teacher

    def answered(self) -> None:
        """It has written something."""
        self._trouble = None

    def failed(self, error: GktError) -> None:
        """It has not. One that could not be reached rests; so does one that has said when to come again."""
        rest_s = self.entry.cool_down_s
        if isinstance(error, Overloaded | TooManyRequests):
            rest_s = min(LONGEST_REST_S, error.retry_after_s or 0.0)
        elif not isinstance(error, NotReady):
            return
        if self._rests and rest_s:
            self._trouble = error.message
            self._rests_until_s = self._clock() + rest_s

    def state(self) -> tuple[str, str | None]:
        """`ok`, `loading` or `failed`, and why. One that rests is `failed` until it may be tried again."""
        if self.failure:
            return "failed", self.failure
        if self.teacher is None:
            return "loading", "the teacher is being loaded"
        try:
            self.teacher.check_health()
        except EngineFailed as error:
            return "failed", error.message
        if self._trouble and self._clock() < self._rests_until_s:
            return "failed", self._trouble
        return "ok", None

    def is_up(self) -> bool:
        """Whether it can be asked now."""
        return self.state()[0] == "ok"


class Teachers:
    """Those of one cloud, in the order in which they are asked."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = list(members)
        self._by_name = {member.name: member for member in members}

    @classmethod
    def of(cls, teacher: Teacher) -> Teachers:
        """One that is loaded."""
        return cls([Member(TeacherEntry.model_construct(name=teacher.model), teacher=teacher)])

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members)

    @property
    def first(self) -> Member:
        return self._members[0]

    def in_order(self, name: str | None) -> list[Member]:
        """Who is to be asked by a request that names one, or none: that one, then those who stand in for it.

        Raises UnknownModel.
        """
        member = self.first if name is None else self._by_name.get(name)
        if member is None:
            known = ", ".join(self._by_name)
            raise UnknownModel(f"there is no teacher {name!r}; there are {known}", param="model")
        if member.entry.fallbacks is None:
            return self._members[self._members.index(member) :]
        return [member, *(self._by_name[other] for other in member.entry.fallbacks)]
