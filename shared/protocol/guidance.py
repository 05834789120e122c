"""Every message that crosses HTTP between the edge and the cloud, version 1 (`/v1/...`).

`POST /v1/guidance` takes a `GuidanceRequest` and answers with server-sent events: one `Start`, any number of `Guidance`,
then exactly one of `Done` and `Failure`. `POST /v1/review` takes a `ReviewRequest` and answers the same way, with a `Verdict`
behind the `Start`. `shared.protocol.sse` writes and reads them.
"""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from shared.protocol.sampling import SamplingParams

MAX_SCHEMA_CHARS = 100_000
"""Of a JSON schema, as text."""


class WireModel(BaseModel):
    """Base of all messages: frozen, and unknown fields are ignored so that an older side understands a newer one."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


def _unicode(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("the text is not valid Unicode: it holds half of a surrogate pair") from None
    return text


Text = Annotated[str, AfterValidator(_unicode)]
"""A string that can be written as UTF-8. JSON can spell others."""

CacheSalt = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=1000,
        description="what an engine has computed of a prompt serves requests of the same salt only, as in vLLM",
    ),
]


class Message(WireModel):
    """One turn of a conversation, plain text."""

    role: Literal["system", "user", "assistant"]
    content: Text


class GuidanceRequest(WireModel, SamplingParams):
    """Asks the teacher for the beginning of an answer."""

    messages: list[Message] = Field(min_length=1, max_length=10_000)
    template: str = Field(default="answer", max_length=100, description="`name`, or `name@version`")
    max_guidance_tokens: int = Field(ge=1, le=1_000_000)
    logprobs: bool = False
    json_schema: dict[str, Any] | None = Field(
        default=None, description="the answer that is begun is JSON under this schema, without optional whitespace"
    )
    stop_at_word_boundary: bool = Field(
        default=False,
        description="end at the last word that fits into the budget, a few tokens before its end, rather than inside one",
    )
    answer: Text = Field(
        default="", description="what is written of the answer already: the teacher goes on from its end"
    )
    stop_at_line_end: bool = Field(
        default=False, description="end with the first step of the answer: behind a line's end"
    )
    model: str | None = Field(
        default=None, min_length=1, max_length=100, description="the teacher, by its name in the cloud; none: its first"
    )
    cache_salt: CacheSalt | None = None
    priority: int = Field(
        default=0, ge=0, le=100, description="added to the key's: who can wait says a higher number, and goes later"
    )


class ReviewRequest(GuidanceRequest):
    """Asks the teacher what it thinks of the next step of an answer, and to rewrite it from the first doubt on."""

    draft: Text = Field(max_length=100_000, description="what somebody else has written behind `answer`")
    draft_is_final: bool = Field(default=False, description="whether the answer is meant to end with the step")
    acceptance_threshold: float = Field(
        ge=0,
        le=1,
        description="a token is doubted that is less probable to the teacher than this, and not its own choice",
    )


class FinishReason(StrEnum):
    """Why the teacher stopped."""

    STOP = "stop"
    """It ended its answer."""
    BUDGET = "budget"
    """It wrote as many tokens as it was allowed."""
    LENGTH = "length"
    """Its context is full."""
    HANDBACK = "handback"
    """The step is complete, or was accepted."""


class Usage(WireModel):
    """Tokens of the teacher, in its own vocabulary. `cached_tokens` of the prompt were not computed again."""

    prompt_tokens: int = Field(ge=0)
    cached_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(ge=0)
    estimated: bool = Field(
        default=False, description="counted by the cloud itself: the server behind it has told nothing, or not yet"
    )


class Timing(WireModel):
    """Milliseconds in the cloud, from the arrival of the request."""

    queue_ms: float | None = None
    first_token_ms: float | None = None
    total_ms: float


class Start(WireModel):
    """The request was admitted."""

    event: ClassVar[str] = "start"
    request_id: str
    model: str
    template: str = Field(description="`name@version#hash` of the template that was rendered")
    tokenizer: str = Field(
        description="fingerprint of the teacher's tokenizer and chat template; empty where those are not known"
    )


class Guidance(WireModel):
    """The next words. `text` may be empty where a token ends inside a character; `logprobs` has one entry a token.

    The first one has the `usage` so far, for whoever leaves before `Done`. A teacher behind a chat API tells no ids: there
    `token_ids` is empty, and `tokens` says how many they are, as nearly as is known.
    """

    event: ClassVar[str] = "guidance"
    text: str
    token_ids: list[int]
    logprobs: list[float] | None = None
    usage: Usage | None = None
    tokens: int | None = Field(default=None, ge=0)

    @property
    def count(self) -> int:
        """How many tokens this is."""
        return len(self.token_ids) if self.tokens is None else self.tokens


class Verdict(WireModel):
    """What the teacher accepts of a step: its beginning, in characters; and its end, where there was one and all is accepted."""

    event: ClassVar[str] = "verdict"
    accepted_chars: int = Field(ge=0)
    accepted: bool = Field(description="whether all of it is accepted, so that no guidance follows")
    scored_tokens: int = Field(ge=0, description="of the step, in the teacher's vocabulary")
    usage: Usage


class Done(WireModel):
    """The guidance is complete."""

    event: ClassVar[str] = "done"
    finish_reason: FinishReason
    usage: Usage
    timing: Timing
    cost_usd: float | None = Field(default=None, description="by the operator's prices, where there are any")
    reused: Literal["coalesced", "cached"] | None = Field(
        default=None, description="it was computed for another request: one that ran as this came, or one before"
    )


class Failure(WireModel):
    """The guidance ends here, unfinished."""

    event: ClassVar[str] = "error"
    code: str
    message: str
    retryable: bool = False
    retry_after_s: float | None = None


Event = Start | Verdict | Guidance | Done | Failure


class DayUsage(WireModel):
    """What one key used on one day (UTC). Tokens are those that were computed; guidance that was told again is apart."""

    day: date
    key: str
    requests: int = Field(description="streams, the shared ones among them")
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reused_requests: int = Field(description="streams of guidance that another request had asked for")
    reused_tokens: int = Field(description="the teacher's tokens in those")
    cost_usd: float


class UsageReport(WireModel):
    """Answer of `GET /v1/usage`: by day, then key."""

    days: list[DayUsage]


class ErrorDetail(WireModel):
    """What an error response holds, in OpenAI's shape with two fields more."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None
    retryable: bool = False
    retry_after_s: float | None = None


class ErrorBody(WireModel):
    error: ErrorDetail


class Health(WireModel):
    """Answer of `/health` and `/ready`."""

    status: Literal["ok", "loading", "failed"]
    model: str | None = None
    detail: str | None = None
