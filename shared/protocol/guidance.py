"""Messages between the edge and the cloud, version 1 (`/v1/...`).

`POST /v1/guidance` takes a `GuidanceRequest` and returns server-sent events: one `Start`, any number of `Guidance`, then
exactly one `Done` or `Failure`. `POST /v1/review` takes a `ReviewRequest` and returns the same, with a `Verdict` after the
`Start`. `shared.protocol.sse` encodes and decodes them.
"""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from shared.protocol.sampling import SamplingParams

MAX_SCHEMA_CHARS = 100_000
"""Upper bound of a JSON schema, as text."""


class WireModel(BaseModel):
    """Base of all messages. Unknown fields are ignored, so that an older side understands a newer one."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


def _unicode(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("expected valid Unicode; the text holds half of a surrogate pair") from None
    return text


Text = Annotated[str, AfterValidator(_unicode)]
"""String that can be encoded as UTF-8. JSON can express strings that cannot."""

CacheSalt = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=1000,
        description="salt of the engine's prefix cache: only requests with the same salt share cached prompts, as in vLLM",
    ),
]


class Message(WireModel):
    """A message of a conversation, as plain text."""

    role: Literal["system", "user", "assistant"]
    content: Text


class GuidanceRequest(WireModel, SamplingParams):
    """Request for the beginning of an answer, or its continuation."""

    messages: list[Message] = Field(min_length=1, max_length=10_000)
    template: str = Field(default="answer", max_length=100, description="guidance template, `name` or `name@version`")
    max_guidance_tokens: int = Field(ge=1, le=1_000_000)
    logprobs: bool = False
    json_schema: dict[str, Any] | None = Field(
        default=None, description="JSON schema of the whole answer, which has no optional whitespace"
    )
    stop_at_word_boundary: bool = Field(
        default=False,
        description="end with a whole word, up to a few tokens before the budget's end",
    )
    answer: Text = Field(default="", description="beginning of the answer, which the teacher continues")
    stop_at_line_end: bool = Field(default=False, description="end after the first line")
    model: str | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="teacher, by its name in the cloud. If unset, the cloud's first",
    )
    cache_salt: CacheSalt | None = None
    priority: int = Field(
        default=0, ge=0, le=100, description="added to the key's priority; requests with higher numbers wait longer"
    )


class ReviewRequest(GuidanceRequest):
    """Request to verify a draft, and to write a correction after its accepted part."""

    draft: Text = Field(max_length=100_000, description="text of another model after `answer`")
    draft_is_final: bool = Field(default=False, description="true if the answer ends with the draft")
    acceptance_threshold: float = Field(
        ge=0,
        le=1,
        description="reject a token that is not the teacher's top choice and has a probability below this",
    )


class FinishReason(StrEnum):
    """Reason for the end of guidance."""

    STOP = "stop"
    """The teacher ended its answer."""
    BUDGET = "budget"
    """The token budget is used up."""
    LENGTH = "length"
    """The teacher's context is full."""
    HANDBACK = "handback"
    """The line is complete, or the whole draft was accepted."""


class Usage(WireModel):
    """Token counts of the teacher, in its own vocabulary. `cached_tokens` are the prompt tokens found in its cache."""

    prompt_tokens: int = Field(ge=0)
    cached_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(ge=0)
    estimated: bool = Field(
        default=False, description="true if the cloud counted itself because the upstream server has not reported usage"
    )


class Timing(WireModel):
    """Milliseconds in the cloud since the arrival of the request."""

    queue_ms: float | None = None
    first_token_ms: float | None = None
    total_ms: float


class Start(WireModel):
    """The request was admitted."""

    event: ClassVar[str] = "start"
    request_id: str
    model: str
    template: str = Field(description="`name@version#hash` of the rendered template")
    tokenizer: str = Field(
        description="fingerprint of the teacher's tokenizer and chat template; empty if they are unknown"
    )


class Guidance(WireModel):
    """The next tokens of guidance. `text` is empty if a token ends inside a character; `logprobs` has one entry per token.

    The first event has the `usage` so far, for clients that disconnect before `Done`. Behind a chat API `token_ids` is empty,
    and `tokens` is the best known count.
    """

    event: ClassVar[str] = "guidance"
    text: str
    token_ids: list[int]
    logprobs: list[float] | None = None
    usage: Usage | None = None
    tokens: int | None = Field(default=None, ge=0)

    @property
    def count(self) -> int:
        """Number of tokens."""
        return len(self.token_ids) if self.tokens is None else self.tokens


class Verdict(WireModel):
    """The accepted part of a draft: its beginning, in characters, or all of it, including a final end."""

    event: ClassVar[str] = "verdict"
    accepted_chars: int = Field(ge=0)
    accepted: bool = Field(description="true if the whole draft is accepted, so that no guidance follows")
    scored_tokens: int = Field(ge=0, description="tokens of the draft, in the teacher's vocabulary")
    usage: Usage


class Done(WireModel):
    """The guidance is complete."""

    event: ClassVar[str] = "done"
    finish_reason: FinishReason
    usage: Usage
    timing: Timing
    cost_usd: float | None = Field(
        default=None, description="cost by the operator's prices. If unset, the operator has none"
    )
    reused: Literal["coalesced", "cached"] | None = Field(
        default=None,
        description="set if another request computed the guidance: a concurrent (`coalesced`) or an earlier one (`cached`)",
    )


class Failure(WireModel):
    """The guidance failed and ends here."""

    event: ClassVar[str] = "error"
    code: str
    message: str
    retryable: bool = False
    retry_after_s: float | None = None


Event = Start | Verdict | Guidance | Done | Failure


class DayUsage(WireModel):
    """Usage of a key on a day (UTC). Tokens are computed ones; reused guidance is counted separately."""

    day: date
    key: str
    requests: int = Field(description="streams, including reused ones")
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reused_requests: int = Field(description="streams that reused guidance of another request")
    reused_tokens: int = Field(description="teacher tokens in reused streams")
    cost_usd: float


class UsageReport(WireModel):
    """Response of `GET /v1/usage`, by day, then key."""

    days: list[DayUsage]


class ErrorDetail(WireModel):
    """Error in OpenAI's shape, with `retryable` and `retry_after_s` added."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None
    retryable: bool = False
    retry_after_s: float | None = None


class ErrorBody(WireModel):
    error: ErrorDetail


class Health(WireModel):
    """Response of `/health` and `/ready`."""

    status: Literal["ok", "loading", "failed"]
    model: str | None = None
    detail: str | None = None
