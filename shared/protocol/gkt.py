"""The `gkt` object: options in requests, and the report of who wrote which part in answers."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from shared.protocol.guidance import WireModel


class Growing(WireModel):
    """Base of messages that are filled while the answer is written."""

    model_config = ConfigDict(frozen=False)


ModeName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,30}$")]
"""Name of a mode: one of `Mode`, or of a strategy that was added to the edge, which rejects any other."""


class Mode(StrEnum):
    """Modes that come with gkt: the division of work between teacher and student."""

    OFF = "off"
    """The student alone; the cloud is never asked."""
    FIXED = "fixed"
    """The teacher writes a prefix of up to `max_guidance_tokens`, the student the rest (GKT, arXiv 2405.19635)."""
    OUTLINE = "outline"
    """The teacher writes a terse outline that no client sees; the student writes the answer from it."""
    ADAPTIVE = "adaptive"
    """A prefix with an early handover: it ends when the student agrees with the last `handback_after` teacher tokens."""
    ON_DEMAND = "on_demand"
    """The student writes; the teacher writes the lines the student is unsure of (BiLD's fallback policy, arXiv 2302.07863)."""
    REVIEW = "review"
    """The student drafts, the teacher verifies and corrects: speculative decoding with text instead of tokens."""
    TEACHER = "teacher"
    """The teacher writes all of it; the student takes over if the cloud fails."""


class Source(StrEnum):
    TEACHER = "teacher"
    STUDENT = "student"


class FallbackReason(StrEnum):
    """Reason why the student continued without (more) guidance."""

    OFF_GRAMMAR = "off_grammar"
    """The guidance does not match the requested JSON schema or tools."""
    TOO_LONG = "too_long"
    """The outline does not fit into the student's context with the conversation."""
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
    """Policy of guidance: fields of requests, policy files and an edge's settings. None leaves a field to the next of these."""

    mode: ModeName | None = Field(
        default=None, description="who writes the answer, if the request names no mode. If unset, `fixed`"
    )
    max_guidance_tokens: int | None = Field(
        default=None, ge=0, le=1_000_000, description="most teacher tokens per answer. If unset, 40"
    )
    template: str | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="guidance template, `name` or `name@version`. If unset, `outline` in mode `outline`, else `answer`",
    )
    teacher: str | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="teacher, by its name in the cloud. If unset, the cloud's first",
    )
    acceptance_threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="mode `review`: reject a draft token that is not the teacher's top choice and has a probability below "
        "this. At 0.5 or more only top choices pass. If unset, 0.5",
    )
    handback_after: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="modes `adaptive`, `on_demand` and `review`: the student takes over after this many teacher tokens in a "
        "row that the student would have written too. At 0 it takes over only at the end of a line. If unset, 3",
    )
    max_correction_tokens: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        description="modes `on_demand` and `review`: most tokens of one correction by the teacher. At 0 the teacher writes "
        "to the end of the line. If unset, 1 in `review` and 0 in `on_demand`",
    )
    confidence_threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="mode `on_demand`: the teacher writes a line if the student's first-token probability is below this. "
        "Mode `review`: a draft ends when its joint probability falls below this; at 0 a draft is `draft_lines` lines. "
        "If unset, 0.5 in `on_demand`, 0.1 in `review`, or 0 if `draft_lines` is set",
    )
    draft_lines: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="mode `review` with a confidence_threshold of 0: lines of one draft. If unset, 1",
    )
    rollout_fraction: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="fraction of the requests without a mode of their own that use `mode`, by a hash of prompt and seed; the "
        "student answers the rest alone. If unset, all of them",
    )


class GktOptions(PolicyFields):
    """Options of a request. The edge's policy sets what it leaves out."""

    model_config = ConfigDict(extra="forbid")

    scores: bool = Field(default=False, description="report the student's probabilities of the guidance")


class Segment(Growing):
    """A part of the answer from one source, in characters and in that source's tokens."""

    source: Source
    chars: int
    tokens: int


class Side(Growing):
    """Work of one side for a request, summed over its choices."""

    model: str
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = Field(default=0, description="all output tokens, including unused ones")
    calls: int = Field(default=0, description="requests to the teacher")
    bytes_sent: int = Field(default=0, description="bytes of request bodies sent to the cloud")
    bytes_received: int = 0
    first_token_ms: float | None = Field(default=None, description="time since the request's arrival at the edge")
    total_ms: float | None = None


class GuidanceScore(WireModel):
    """The student's probability of a guidance token, in the student's tokenization."""

    token: str
    logprob: float
    rank: int = Field(description="number of more probable tokens")
    entropy: float = Field(description="entropy of the student's distribution, in nats")


class GktReport(WireModel):
    """The `gkt` object of an answer: its segments by source, and the work of both sides."""

    mode: ModeName
    policy: str | None = Field(default=None, description="name of the edge's policy file, if it set the mode")
    segments: list[list[Segment]] = Field(description="segments of each choice, in order")
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
