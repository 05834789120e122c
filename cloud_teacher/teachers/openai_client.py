"""What both ways to ask a server have in common: the client, the request's headers and hints, and its usage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cloud_teacher.config.teacher import TeacherEntry
from cloud_teacher.teachers.base import SchedulingHints
from shared.protocol.guidance import Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import CompletionUsage


def build_client(entry: TeacherEntry, key: str | None) -> AsyncOpenAI:
    """The client for an entry's server. It never asks twice: who asked us decides whether to try again."""
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
    """As vLLM's server takes it: a priority only where there is one, as a server without priorities refuses it."""
    salt = {} if hints.cache_salt is None else {"cache_salt": hints.cache_salt}
    return salt | ({"priority": hints.priority} if hints.priority else {})


def cached_tokens_of(usage: CompletionUsage | None) -> int:
    details = usage.prompt_tokens_details if usage else None
    return (details.cached_tokens or 0) if details else 0


def usage_of(usage: CompletionUsage | None) -> Usage | None:
    """The server's own count."""
    if usage is None:
        return None
    return Usage(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=cached_tokens_of(usage),
        completion_tokens=usage.completion_tokens,
    )
