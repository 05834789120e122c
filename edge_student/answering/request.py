"""One request, as the use case takes it, and what of it the teacher is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_student.policy import Plan
from edge_student.student import Sampling
from edge_student.tools.tool_use import ToolUse
from shared.protocol.guidance import GuidanceRequest, Message
from shared.protocol.sampling import SamplingParams


@dataclass(frozen=True)
class Ask:
    """One request, understood. `messages` is None for raw text, which only the student can go on with."""

    request_id: str
    prompt: list[int]
    messages: Sequence[Message] | None
    plan: Plan
    sampling: Sampling
    """Its `max_tokens` counts both sides."""
    stops: tuple[str, ...] = ()
    n: int = 1
    tools: ToolUse | None = None
    """What the answer may call. It is text here all the same: `ToolUse.reader` finds the calls in it."""
    scored_from: int | None = None
    """From which token on, at least 1, the prompt's own log-probabilities are wanted, with alternatives as the answer's."""
    stops_shown: bool = False
    """Whether the stop string that ends the answer is part of it."""
    counted: bool = False
    """Whether a part says what was computed of the prompt, before the student's first word."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers that the cloud gets too, such as `traceparent`."""
    cache_salt: str | None = None
    """Prompts are shared in the caches of both models only with requests of the same."""
    model: str = "gkt"
    """The name it was asked for by."""

    @property
    def cloud_headers(self) -> dict[str, str]:
        """What the cloud gets with each call."""
        return {"x-request-id": self.request_id, **self.headers}

    def guidance(self, messages: Sequence[Message]) -> GuidanceRequest:
        """What the teacher is asked for, of a conversation as it may leave the device."""
        plan, sampling = self.plan, self.sampling
        return GuidanceRequest(
            messages=list(messages),
            template=plan.template,
            max_guidance_tokens=plan.budget,
            **{name: getattr(sampling, name) for name in SamplingParams.model_fields},
            json_schema=sampling.structure.json_schema if sampling.structure else None,
            logprobs=sampling.top_logprobs is not None,
            stop_at_word_boundary=not plan.alone,
            model=plan.teacher,
            cache_salt=self.cache_salt,
        )
