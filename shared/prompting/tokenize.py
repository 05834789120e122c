"""Texts are tokenised so that others' streams do not wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from shared.protocol.guidance import Message

T = TypeVar("T")

LONG_TEXT_CHARS = 20_000
"""Some milliseconds of work. Shorter ones are done sooner than a thread would begin beside a busy engine."""


async def tokenize_off_loop(tokenise: Callable[[], T], messages: Sequence[Message], more: str = "") -> T:
    """What `tokenise` makes of a conversation and more text: here, or in a thread where they are long."""
    chars = sum(len(message.content) for message in messages) + len(more)
    return await asyncio.to_thread(tokenise) if chars > LONG_TEXT_CHARS else tokenise()
