"""Shared by both OpenAI backends: the client, request headers, scheduling fields, and the server's usage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloud_teacher.config.teacher import TeacherEntry
from cloud_teacher.teachers.base import SchedulingHints
from shared.protocol.guidance import Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import CompletionUsage


def build_client(entry: TeacherEntry, key: str | None) -> AsyncOpenAI:
    """Return a client for an entry's server. It never retries; the pool and the edge decide about that."""
    from openai import AsyncOpenAI, Timeout

    return AsyncOpenAI(
        base_url=entry.url,
        api_key=key or "none",
        max_retries=0,
        timeout=Timeout(entry.silence_s, connect=entry.connect_s),
    )


def request_headers(request_id: str, hints: SchedulingHints) -> dict[str, str]:
    return {"x-request-id": request_id, **hints.trace}


def scheduling_fields(hints: SchedulingHints) -> dict[str, Any]:
    """Return vLLM's fields for the hints. Servers without priorities reject the field, so 0 is left out."""
    salt = {} if hints.cache_salt is None else {"cache_salt": hints.cache_salt}
    return salt | ({"priority": hints.priority} if hints.priority else {})


def cached_tokens_of(usage: CompletionUsage | None) -> int:
    details = usage.prompt_tokens_details if usage else None
    return (details.cached_tokens or 0) if details else 0


def usage_of(usage: CompletionUsage | None) -> Usage | None:
    """Return the server's own count of tokens."""
    if usage is None:
        return None
    return Usage(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=cached_tokens_of(usage),
        completion_tokens=usage.completion_tokens,
    )
