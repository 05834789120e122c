"""Tokenization of long texts in a thread, so that other streams do not wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from shared.protocol.guidance import Message

T = TypeVar("T")

LONG_TEXT_CHARS = 20_000
"""Length above which a thread pays off: some milliseconds of work. A thread starts later than that beside a busy engine."""


async def tokenize_off_loop(tokenize: Callable[[], T], messages: Sequence[Message], more: str = "") -> T:
    """Return the result of `tokenize`, which runs in a thread if the conversation and the text `more` are long."""
    chars = sum(len(message.content) for message in messages) + len(more)
    return await asyncio.to_thread(tokenize) if chars > LONG_TEXT_CHARS else tokenize()
