"""The Teacher protocol: a prompt in, chunks of an answer out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol

from prometheus_client import CollectorRegistry
from pydantic import Field

from shared.protocol.guidance import Message, Usage
from shared.protocol.sampling import SamplingParams

AnswerEnd = Literal["stop", "limit", "string"]
"""The model's own end of the answer; `max_tokens` is reached; a stop string ended it."""

REPLACEMENT = "\ufffd"
"""U+FFFD, which decoders write for an incomplete character at the end of a text."""


class GenerationParams(SamplingParams):
    """The options of one call to a teacher. `max_tokens` fits into the context behind the prompt."""

    max_tokens: int = Field(ge=1)
    json_schema: dict[str, Any] | None = None
    logprobs: bool = False
    stop: tuple[str, ...] = ()
    """Strings that end the answer, and are part of it."""


@dataclass(frozen=True, slots=True)
class SchedulingHints:
    """Information about a request for the engine's scheduler, prefix cache and tracing."""

    priority: int = 0
    """As in vLLM: lower goes first."""
    cache_salt: str | None = None
    """Only requests with the same salt share a prefix cache, so that no client can time what others have asked."""
    trace: Mapping[str, str] = field(default_factory=dict, compare=False)
    """W3C headers of the parent of the engine's own spans."""


DEFAULT_HINTS = SchedulingHints()


class TokenEstimate(NamedTuple):
    """The size of a prompt whose tokenizer is not known."""

    likely: int
    at_most: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation and the beginning of its answer, as one teacher encoded it for itself.

    A model that takes token ids has them here. A chat API takes none, and gets the texts.
    """

    messages: Sequence[Message]
    text: str
    """The beginning of the answer."""
    conversation: list[int] = field(default_factory=list)
    """Ids up to and including the generation prompt."""
    answer: list[int] = field(default_factory=list)
    """Ids of `text`."""
    estimated_tokens: TokenEstimate | None = None
    """Set if there are no ids."""

    @property
    def ids(self) -> list[int]:
        return self.conversation + self.answer

    @property
    def tokens(self) -> int:
        """Tokens of the prompt: exact with ids, estimated without."""
        return self.estimated_tokens.likely if self.estimated_tokens else len(self.conversation) + len(self.answer)

    @property
    def max_tokens(self) -> int:
        """Upper bound of `tokens`."""
        return self.estimated_tokens.at_most if self.estimated_tokens else self.tokens

    def with_answer(self, text: str, answer: Sequence[int]) -> Prompt:
        """Return the same conversation with another beginning of the answer."""
        return replace(self, text=text, answer=list(answer))


@dataclass(frozen=True, slots=True)
class Scores:
    """The teacher's probabilities for tokens of a given text, one entry per token."""

    logprobs: Sequence[float]
    ranks: Sequence[int]
    """1 if the token is the teacher's own top choice."""
    choices: Sequence[int | None] = ()
    """Top choices of the teacher. An entry is None if it is unknown; the list is empty if all are."""
    cached_tokens: int = 0
    queue_s: float | None = None


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """Output of the teacher since the chunk before, mostly one token.

    `text` may be empty if a token ends inside a character. `logprobs` has one natural logarithm per token if they were asked
    for. Only the last chunk has an `end`.
    """

    text: str
    token_ids: Sequence[int]
    logprobs: Sequence[float] | None = None
    end: AnswerEnd | None = None
    cached_tokens: int = 0
    """Tokens of the prompt found in the prefix cache."""
    queue_s: float | None = None
    """Time in the engine's queue before the first step, if the engine measures it."""
    tokens: int | None = None
    """Number of tokens, if the server sends no `token_ids`."""
    usage: Usage | None = None
    """Usage of the request so far, from a server that bills by its own count."""

    @property
    def count(self) -> int:
        """Number of tokens."""
        return len(self.token_ids) if self.tokens is None else self.tokens


class Teacher(Protocol):
    """A model that is loaded. Every method is called on the event loop, except `encode`, which any thread may call."""

    @property
    def model(self) -> str: ...

    @property
    def max_model_len(self) -> int:
        """Upper bound for the tokens of prompt and answer together."""

    @property
    def fingerprint(self) -> str:
        """Digest of tokenizer and chat template: equal if conversations become equal ids. Empty if unknown."""

    @property
    def registry(self) -> CollectorRegistry:
        """The engine's own metrics."""

    def encode(self, messages: Sequence[Message], answer: str = "") -> Prompt:
        """Encode a conversation, the generation prompt and the beginning of an answer. All of the texts are plain text.

        Raises InvalidRequest, and ContinuationUnsupported if there is an answer and the teacher cannot continue one.
        """

    def reviewer(self) -> Reviewer:
        """Return this teacher as a Reviewer. Raises ReviewUnsupported."""

    def check_schema(self, json_schema: dict[str, Any]) -> None:
        """Raises InvalidRequest if the engine cannot constrain an answer to this schema."""

    def stream(
        self, request_id: str, prompt: Prompt, params: GenerationParams, hints: SchedulingHints = DEFAULT_HINTS
    ) -> AsyncGenerator[OutputChunk, None]:
        """Write an answer, or continue one. The last chunk has an `end`.

        Closing the generator, or cancelling the task that waits for it, stops the engine's work within a step.
        `request_id` is unique among running requests. Raises EngineFailed; a server elsewhere can also raise NotReady,
        Overloaded, TooManyRequests and InvalidRequest.
        """

    def check_health(self) -> None:
        """Raises EngineFailed if the engine cannot work any more."""

    async def close(self) -> None:
        """Free all resources. No process is left behind."""


class Reviewer(Protocol):
    """A teacher that takes token ids and can score text it did not write."""

    @property
    def max_model_len(self) -> int: ...

    def encode_answer(self, text: str) -> list[int]:
        """Return the ids of text behind a prompt. All of it is plain text. Any thread may call it."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids. An incomplete character at the end becomes REPLACEMENT."""

    @property
    def end_id(self) -> int:
        """The token that ends an answer."""

    async def score(
        self, request_id: str, ids: list[int], start: int, hints: SchedulingHints = DEFAULT_HINTS
    ) -> Scores:
        """Score each of `ids` from position `start` (at least 1) on, given the ids before it. Raises EngineFailed."""
