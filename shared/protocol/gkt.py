"""The `gkt` object of requests and answers: what a client may ask of the pair, and who wrote what."""

from __future__ import annotations

from enum import StrEnum

from pydantic import ConfigDict, Field

from shared.protocol.guidance import WireModel


class Growing(WireModel):
    """Filled while the answer is under way."""

    model_config = ConfigDict(frozen=False)


class Mode(StrEnum):
    """Who writes the answer."""

    OFF = "off"
    """The student alone; the cloud is never asked."""
    FIXED = "fixed"
    """The teacher writes up to `max_guidance_tokens`, the student the rest."""
    DRAFT = "draft"
    """The teacher writes a terse draft that nobody is shown; the student writes the answer with it before its eyes."""
    ADAPTIVE = "adaptive"
    """The teacher begins; the student takes over once it would have written the last `agree` tokens itself."""
    ON_DEMAND = "on_demand"
    """The student writes; a step whose first token it is not `sure` of is the teacher's."""
    REVIEW = "review"
    """The student writes; the teacher reads each step, and has a `turn` from its first `doubt` on."""
    TEACHER = "teacher"
    """The teacher writes all of it; the student stands in where the cloud fails."""


class Source(StrEnum):
    TEACHER = "teacher"
    STUDENT = "student"


class FallbackReason(StrEnum):
    """Why the student had to go on without (more) guidance."""

    OFF_GRAMMAR = "off_grammar"
    """What the teacher wrote is not of the structure that was asked for."""
    TOO_LONG = "too_long"
    """The draft does not fit into the student's context beside the conversation."""
    UNREACHABLE = "unreachable"
    UNAUTHORIZED = "unauthorized"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    REJECTED = "rejected"
    FAILED = "failed"
    FIRST_TOKEN_DEADLINE = "first_token_deadline"  # noqa: S105 - not a password
    STALLED = "stalled"
    BROKEN = "broken"
    GARBLED = "garbled"
    BREAKER_OPEN = "breaker_open"
    NOT_CONFIGURED = "not_configured"


class PolicyFields(WireModel):
    """How an answer is guided, as requests, policy files and an edge's settings say it. None leaves it to the next of these."""

    mode: Mode | None = None
    max_guidance_tokens: int | None = Field(default=None, ge=0, le=1_000_000)
    template: str | None = Field(default=None, min_length=1, max_length=100)
    teacher: str | None = Field(
        default=None, min_length=1, max_length=100, description="by its name in the cloud; none: the cloud's first"
    )
    doubt: float | None = Field(
        default=None, ge=0, le=1, description="review: the teacher doubts a token less probable to it than this"
    )
    agree: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="adaptive, on_demand, review: the student takes over once it agreed with so many of the teacher's tokens "
        "in a row; 0: only at a step's end",
    )
    turn: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        description="on_demand, review: the teacher writes so many tokens at most, then it is the student's turn; 0: up to the "
        "step's end",
    )
    sure: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="on_demand: a step whose first token is less probable to the student is the teacher's; review: the "
        "teacher reads as much at once as the student finds at least so probable, all its tokens together; 0: by lines",
    )
    lines: int | None = Field(
        default=None, ge=1, le=10_000, description="review with sure of 0: the teacher reads so many lines at once"
    )
    share: float | None = Field(
        default=None, ge=0, le=1, description="of the requests, by lot; the others the student answers alone (mode off)"
    )


class GktOptions(PolicyFields):
    """What a request may ask of the pair; what it leaves out the edge's policy decides."""

    model_config = ConfigDict(extra="forbid")

    scores: bool = Field(default=False, description="say how probable the guidance was to the student")


class Segment(Growing):
    """A run of the answer from one source, in characters and in that source's own tokens."""

    source: Source
    chars: int
    tokens: int


class Side(Growing):
    """What one side did for a request, n choices together."""

    model: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = Field(default=0, description="all that was written, what was not used included")
    calls: int = Field(default=0, description="requests to the teacher")
    bytes_sent: int = Field(default=0, description="over the link to the cloud, bodies only")
    bytes_received: int = 0
    first_token_ms: float | None = Field(default=None, description="from the request's arrival at the edge")
    total_ms: float | None = None


class GuidanceScore(WireModel):
    """How probable a token of the guidance, as the student reads it, was to the student itself."""

    token: str
    logprob: float
    rank: int = Field(description="how many tokens were more probable")
    entropy: float = Field(description="of the student's distribution there, in nats")


class GktReport(WireModel):
    """The `gkt` object of an answer: who wrote what, and what it took."""

    mode: Mode
    policy: str | None = Field(default=None, description="name of the edge's policy file, where it decided the mode")
    segments: list[list[Segment]] = Field(description="of each choice, in order")
    student: Side
    teacher: Side | None = None
    template: str | None = None
    fallback: FallbackReason | None = None
    cost_usd: float | None = None
    scores: list[GuidanceScore] | None = None
    request_id: str


class ChunkSource(WireModel):
    """The `gkt` object of a chunk that carries text."""

    source: Source
