"""Conversations as the student's tokens, without keeping other requests waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from edge_student.student import Student
from shared.wire import Message

LONG_TEXT_CHARS = 20_000
"""Some milliseconds of work. Shorter ones are done sooner than a thread would begin beside a busy engine."""


async def encode(student: Student, messages: Sequence[Message]) -> list[int]:
    if sum(len(message.content) for message in messages) > LONG_TEXT_CHARS:
        return await asyncio.to_thread(student.encode, messages)
    return student.encode(messages)
