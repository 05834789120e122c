"""The teacher, as the use case sees it: token ids in, pieces of an answer out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from prometheus_client import CollectorRegistry

from shared.wire import Message


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to write. `temperature` 0 is greedy; `max_tokens` is at least 1 and fits into the context behind the prompt.

    The rest is as in `shared.wire.GuidanceRequest`: `top_k` below 1 means all.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    json_schema: dict[str, Any] | None = None
    seed: int | None = None
    logprobs: bool = False
    stop: tuple[str, ...] = ()
    """Strings that end the answer, and are part of it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a request is beside others in the engine."""

    priority: int = 0
    """Lower goes first."""
    cache_salt: str | None = None
    """Prompts share a prefix cache only where this is the same, so that nobody learns by timing what others have asked."""
    trace: Mapping[str, str] = field(default_factory=dict, compare=False)
    """W3C headers of the span that the engine's own belong to."""


ALONE = Standing()


@dataclass(frozen=True, slots=True)
class Scores:
    """How probable tokens that somebody else wrote are to the teacher, one entry a token."""

    logprobs: Sequence[float]
    ranks: Sequence[int]
    """1 where it is the teacher's own choice."""
    cached_tokens: int = 0
    queue_s: float | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """What the teacher wrote since the piece before: mostly one token.

    `text` may be empty where a token ends inside a character. `logprobs` has one natural logarithm a token, where they were
    asked for. The last piece says what ended the answer: `stop` is the model's own end, `limit` is `max_tokens`, `string` a
    string that was to end it.
    """

    text: str
    token_ids: Sequence[int]
    logprobs: Sequence[float] | None = None
    end: Literal["stop", "limit", "string"] | None = None
    cached_tokens: int = 0
    """Of the prompt, found in the prefix cache."""
    queue_s: float | None = None
    """Waited in the engine before the first step, where the engine knows."""


class Teacher(Protocol):
    """A model that is loaded. Every method is called on the event loop, except `encode` and
    `encode_answer`, which any thread may call.
    """

    @property
    def model(self) -> str: ...

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together, at most."""

    @property
    def fingerprint(self) -> str:
        """Of tokenizer and chat template: the same wherever the same conversation becomes the same ids."""

    @property
    def registry(self) -> CollectorRegistry:
        """The engine's own metrics."""

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """The prompt as ids, up to and including the generation prompt. Raises InvalidRequest."""

    def encode_answer(self, text: str) -> list[int]:
        """Ids of text that goes on behind a prompt: plain text, whatever it spells."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids. What is no whole character at their end is U+FFFD."""

    @property
    def end_id(self) -> int:
        """The token that ends an answer."""

    def check_schema(self, json_schema: dict[str, Any]) -> None:
        """Raises InvalidRequest where the engine cannot hold an answer to this schema."""

    def stream(
        self, request_id: str, prompt_ids: list[int], sampling: Sampling, standing: Standing = ALONE
    ) -> AsyncGenerator[Piece, None]:
        """Write an answer. The last piece has an `end`.

        Closing the generator, or cancelling who waits for it, stops the engine's work within a step.
        `request_id` is unique among those that run. Raises EngineFailed.
        """

    async def score(self, request_id: str, ids: list[int], start: int, standing: Standing = ALONE) -> Scores:
        """How probable each of `ids` from position `start` on, at least 1, was behind those before it. Raises EngineFailed."""

    def check_health(self) -> None:
        """Raises EngineFailed where the engine cannot work any more."""

    async def close(self) -> None:
        """Leave nothing behind, no process either."""
