"""The Student protocol: the model on the device, as the rest of the edge sees it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from prometheus_client import CollectorRegistry
from pydantic import ConfigDict, SkipValidation

from shared.protocol.guidance import Message
from shared.protocol.sampling import SamplingParams


class Gate(Protocol):
    """Passes on text of another model while it matches a structure."""

    @property
    def complete(self) -> bool:
        """True if the text so far is a complete answer."""
        ...

    def push(self, text: str) -> str:
        """Return the prefix of a text that may come next. If it is not the whole text, every later result is empty."""
        ...


@dataclass(frozen=True)
class Structure:
    """The form that an answer must have: a schema for the teacher, and the student's own grammar of it.

    There is no schema if the answer need not be JSON. The teacher then writes freely, and the gate checks its text.
    """

    json_schema: dict[str, Any] | None
    grammar: str
    gate: Callable[[], Gate] = field(compare=False, repr=False)
    """Makes a new gate for one answer."""


class StudentSampling(SamplingParams):
    """Options for the choice of the student's tokens.

    At temperature 0, penalties and bias apply, but not the options that cut off improbable tokens (`top_k`, `top_p`, `min_p`,
    `typical_p`). Presence and frequency penalties count the answer's tokens, guidance included; the repetition penalty (CTRL,
    arXiv 1909.05858) counts those of the prompt too.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    max_tokens: int
    typical_p: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Pairs of a token id and the number that is added to its logit."""
    structure: SkipValidation[Structure | None] = None
    """Structure of the whole answer, guidance included. An answer that ends by its length may be incomplete."""
    top_logprobs: int | None = None
    """Alternatives whose log-probabilities come with each token's own. None asks for no log-probabilities."""


@dataclass(frozen=True)
class Alternative:
    token: bytes
    logprob: float
    token_id: int | None = None


@dataclass(frozen=True)
class TokenOutput:
    """One token of the student. `text` is empty if the token ends inside a character. `end` is set on the last token only."""

    text: str
    token: bytes = b""
    token_id: int | None = None
    logprob: float | None = None
    alternatives: tuple[Alternative, ...] = ()
    end: Literal["stop", "length"] | None = None
    """Reason why the student stops after this token. `stop` is the student's own end: it counts as no token, and the
    log-probability is that of the end."""


@dataclass(frozen=True)
class Score:
    """Probability that the student gave to a token of another author."""

    token: bytes
    logprob: float
    rank: int
    """Number of tokens that were more probable. At 0 the student would have written the same one, greedily."""
    entropy: float
    """Entropy of the student's distribution at that position, in nats."""
    alternatives: tuple[Alternative, ...] = ()
    token_id: int | None = None


ScoresOf = int | Literal["guidance"]
"""Tokens to score: the prompt from a position on, at least 1, or the guidance."""


class StudentSequence(Protocol):
    """One answer: opened with a prompt, extended by guidance, then continued by the student."""

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that were in the cache already. Known once `generate` has yielded."""
        ...

    @property
    def scores(self) -> Sequence[Score]:
        """Scores of the requested tokens, as far as they are computed; all of them once `generate` has yielded."""
        ...

    def extend(self, text: str) -> None:
        """Add guidance. Returns at once; the engine prefills it in the background."""
        ...

    def prefill_ahead(self, text: str) -> None:
        """Prefill text that will probably come next. It becomes guidance only by `extend`. Returns at once."""
        ...

    def generate(self, sampling: StudentSampling) -> AsyncGenerator[TokenOutput, None]:
        """Decode from the exact end of prompt and guidance. May be called once.

        With `max_tokens` of 0 it only waits for the scores, if there are any to compute. Raises EngineFailed. Closing the
        generator removes the sequence from the engine's batch at the next step.
        """
        ...

    def close(self) -> None:
        """Leave the engine at once. May be called again."""
        ...


class Student(Protocol):
    """A model on this device, with an engine for many answers at once."""

    @property
    def model(self) -> str: ...

    @property
    def context_tokens(self) -> int:
        """Most tokens of prompt, guidance and answer together."""
        ...

    @property
    def registry(self) -> CollectorRegistry:
        """The engine's own metrics."""
        ...

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids of a conversation up to the answer. Raises InvalidRequest if the template rejects it."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """Return the token ids of plain text, without a template."""
        ...

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token, which may be a part of a character. A control token has none."""
        ...

    def check_tokens(self, ids: Sequence[int], *, param: str = "prompt") -> None:
        """Raise InvalidRequest unless all ids are in the vocabulary. `param` is the request field that contains them."""
        ...

    def structure(self, json_schema: dict[str, Any], *, param: str = "response_format") -> Structure:
        """Return the structure of a JSON schema. Raises InvalidRequest if it is invalid or not supported.

        `param` is the request field that contains the schema.
        """
        ...

    def text_or_calls(self, call_schema: dict[str, Any], *, parallel: bool) -> Structure:
        """Return the structure of an answer that is text or tool calls under a JSON schema: several if `parallel`, else one.

        Raises InvalidRequest as `structure` does.
        """
        ...

    def open(
        self,
        prompt: Sequence[int],
        *,
        text: str = "",
        deferred: bool = False,
        scores_of: ScoresOf | None = None,
        top: int = 0,
        cache_salt: str | None = None,
    ) -> StudentSequence:
        """Start to prefill a prompt and `text`, the beginning of the answer. `deferred` waits for guidance or the handover.

        `scores_of` selects the tokens to score, guidance being what follows `text`; each score has `top` alternatives.
        Sequences reuse computed prefixes only of sequences with the same `cache_salt`.

        Raises PromptTooLong, Overloaded if the queue is full, EngineFailed if the engine is dead.
        """
        ...

    def failure(self) -> str | None:
        """Return the reason why the engine is dead, or None while it works."""
        ...

    async def close(self) -> None: ...
