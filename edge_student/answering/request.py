"""The parsed request that is answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_student.policy import Policy
from edge_student.student import StudentSampling
from edge_student.tools.tool_use import ToolUse
from shared.protocol.guidance import GuidanceRequest, Message


@dataclass(frozen=True)
class AnswerRequest:
    """One parsed request. `messages` is None for raw text, which only the student can continue."""

    request_id: str
    prompt: list[int]
    messages: Sequence[Message] | None
    policy: Policy
    sampling: StudentSampling
    """`max_tokens` counts the tokens of both sides."""
    max_tokens: int | None = None
    """Limit of the answer as the client set it, in tokens of both sides. None if it set none."""
    stops: tuple[str, ...] = ()
    include_stop: bool = False
    """True if the stop string that ends the answer is part of it."""
    n: int = 1
    tools: ToolUse | None = None
    """Tools that the answer may call. Calls are plain text here; `ToolUse.parser` finds them."""
    prompt_scores_from: int | None = None
    """First prompt token, at least 1, whose log-probability is returned. Alternatives are those of the answer's tokens."""
    prompt_usage_first: bool = False
    """True if a part with the prompt's token counts precedes the student's first token."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers for the cloud, such as `traceparent`."""
    cache_salt: str | None = None
    """Both models reuse a cached prompt only between requests with the same salt."""
    model: str = "gkt"
    """Model name that the client requested."""

    @property
    def cloud_headers(self) -> dict[str, str]:
        """Headers of each call to the cloud."""
        return {"x-request-id": self.request_id, **self.headers}

    @property
    def budget_covers_answer(self) -> bool:
        """True if the teacher's budget covers the whole answer, so that the student adds nothing to it."""
        return self.policy.max_guidance_tokens == self.max_tokens

    def guidance(self, *, template: str = "answer", **changes: Any) -> GuidanceRequest:
        """Build the request to the teacher. `template` applies if the policy names none. Raises ValueError for raw text."""
        if self.messages is None:
            raise ValueError("raw text has no conversation to send to the teacher")
        structure = self.sampling.structure
        fields = {
            "messages": list(self.messages),
            "template": self.policy.template or template,
            "max_guidance_tokens": self.policy.max_guidance_tokens,
            **self.sampling.sampling_options(),
            "json_schema": structure.json_schema if structure else None,
            "logprobs": self.sampling.top_logprobs is not None,
            "model": self.policy.teacher,
            "cache_salt": self.cache_salt,
        }
        return GuidanceRequest(**{**fields, **changes})
