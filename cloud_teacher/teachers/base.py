"""The teacher, as the use case sees it: a prompt in, pieces of an answer out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from prometheus_client import CollectorRegistry
from pydantic import Field

from shared.protocol.guidance import Message, Usage
from shared.protocol.sampling import SamplingParams


class GenerationParams(SamplingParams):
    """The options of one call to a teacher. `max_tokens` fits into the context behind the prompt."""

    max_tokens: int = Field(ge=1)
    json_schema: dict[str, Any] | None = None
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
HALF = "\ufffd"
"""What is no whole character at the end of a text of tokens."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation and what is written of its answer, as the teacher that encoded it goes on behind them.

    A model that takes token ids has them here; behind a chat API there are none, and the texts are what is asked.
    """

    messages: Sequence[Message]
    text: str
    """What is written of the answer."""
    conversation: list[int] = field(default_factory=list)
    """Ids up to and including the generation prompt."""
    answer: list[int] = field(default_factory=list)
    """Ids of `text`."""
    guess: tuple[int, int] | None = None
    """Where there are no ids: about how many tokens it has, and how many at most."""

    @property
    def ids(self) -> list[int]:
        return self.conversation + self.answer

    @property
    def tokens(self) -> int:
        """How many it has, as nearly as is known before the teacher is asked."""
        return self.guess[0] if self.guess else len(self.conversation) + len(self.answer)

    @property
    def most(self) -> int:
        """It has no more than so many."""
        return self.guess[1] if self.guess else self.tokens

    def going_on(self, text: str, answer: Sequence[int]) -> Prompt:
        """The same conversation behind another beginning of the answer."""
        return replace(self, text=text, answer=list(answer))


@dataclass(frozen=True, slots=True)
class Scores:
    """How probable tokens that somebody else wrote are to the teacher, one entry a token."""

    logprobs: Sequence[float]
    ranks: Sequence[int]
    """1 where it is the teacher's own choice."""
    choices: Sequence[int | None] = ()
    """The teacher's own choices; None where one is not known, and empty where none is."""
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
    tokens: int | None = None
    """How many they are, where `token_ids` are not told."""
    usage: Usage | None = None
    """All that was used so far, as a server counts it that is paid by its own count."""

    @property
    def count(self) -> int:
        """How many tokens this is."""
        return len(self.token_ids) if self.tokens is None else self.tokens


class Teacher(Protocol):
    """A model that is loaded. Every method is called on the event loop, except `encode`, which any thread may call."""

    @property
    def model(self) -> str: ...

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and answer together, at most."""

    @property
    def fingerprint(self) -> str:
        """Of tokenizer and chat template: the same wherever the same conversation becomes the same ids. Empty: unknown."""

    @property
    def registry(self) -> CollectorRegistry:
        """The engine's own metrics."""

    def encode(self, messages: Sequence[Message], answer: str = "") -> Prompt:
        """A conversation up to and including the generation prompt, and what is written of its answer behind that.

        Whatever the texts spell is plain text. Raises InvalidRequest, and NoGoingOn where there is an answer to go on with
        and the teacher cannot.
        """

    def reviewer(self) -> Reviewer:
        """The same teacher, to have it read what others have written. Raises NoReview where it cannot."""

    def check_schema(self, json_schema: dict[str, Any]) -> None:
        """Raises InvalidRequest where the engine cannot hold an answer to this schema."""

    def stream(
        self, request_id: str, prompt: Prompt, params: GenerationParams, standing: Standing = ALONE
    ) -> AsyncGenerator[Piece, None]:
        """Write an answer, or go on with it. The last piece has an `end`.

        Closing the generator, or cancelling who waits for it, stops the engine's work within a step.
        `request_id` is unique among those that run. Raises EngineFailed; of a server elsewhere NotReady, Overloaded,
        TooManyRequests and InvalidRequest too.
        """

    def check_health(self) -> None:
        """Raises EngineFailed where the engine cannot work any more."""

    async def close(self) -> None:
        """Leave nothing behind, no process either."""


class Reviewer(Protocol):
    """A teacher that says how probable to it is what others have written. It takes token ids, and tells its own."""

    @property
    def max_model_len(self) -> int: ...

    def encode_answer(self, text: str) -> list[int]:
        """Ids of text that goes on behind a prompt: plain text, whatever it spells. Any thread may call it."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids. What is no whole character at their end is HALF."""

    @property
    def end_id(self) -> int:
        """The token that ends an answer."""

    async def score(self, request_id: str, ids: list[int], start: int, standing: Standing = ALONE) -> Scores:
        """How probable each of `ids` from position `start` on, at least 1, was behind those before it. Raises EngineFailed."""
