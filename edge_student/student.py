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
    """Lets text of somebody else through as long as it is of a structure."""

    @property
    def complete(self) -> bool:
        """Whether what came through is a whole answer: nothing has to follow."""
        ...

    def push(self, text: str) -> str:
        """The beginning of a text that may come next. Where that is not all of it, nothing comes through any more."""
        ...


@dataclass(frozen=True)
class Structure:
    """What an answer must look like, understood: the schema for the teacher, and the student's own grammar for it.

    Where the answer need not be JSON there is no schema: the teacher writes as it likes, as long as it is of the grammar.
    """

    json_schema: dict[str, Any] | None
    grammar: str
    gate: Callable[[], Gate] = field(compare=False, repr=False)
    """A new one for each answer."""


class StudentSampling(SamplingParams):
    """How the student chooses its tokens.

    At temperature 0, penalties and bias apply, but not what cuts off improbable tokens (`top_k`, `top_p`, `min_p`,
    `typical_p`). Presence and frequency penalties count the answer's tokens, guidance included; the repetition penalty (CTRL,
    arXiv 1909.05858) counts those of the prompt too.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    max_tokens: int
    typical_p: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Pairs of a token id and the number that is added to its logit."""
    structure: SkipValidation[Structure | None] = None
    """The whole answer is of this structure, guidance included, unless it ends by its length."""
    top_logprobs: int | None = None
    """Alternatives whose log-probabilities come with each token's own. None asks for no log-probabilities."""


@dataclass(frozen=True)
class Alternative:
    token: bytes
    logprob: float
    token_id: int | None = None


@dataclass(frozen=True)
class TokenOutput:
    """One token of the student. `text` is empty where the token ends inside a character; `end` is set on the last one only."""

    text: str
    token: bytes = b""
    token_id: int | None = None
    logprob: float | None = None
    alternatives: tuple[Alternative, ...] = ()
    end: Literal["stop", "length"] | None = None
    """None, or why the student stops after this: `length`, or `stop` (its own end: no token is counted, and the log-probability
    is that of the end)."""


@dataclass(frozen=True)
class Score:
    """How probable a token, that somebody else has written, was to the student at its place."""

    token: bytes
    logprob: float
    rank: int
    """How many tokens were more probable: 0 where the student would have written the same, greedily."""
    entropy: float
    """Of the student's whole distribution there, in nats."""
    alternatives: tuple[Alternative, ...] = ()
    token_id: int | None = None


ScoresOf = int | Literal["guidance"]
"""Which tokens' scores are wanted: of the prompt from a position on, at least 1, or of the guidance."""


class StudentSequence(Protocol):
    """One answer in the making: opened on a prompt, fed with guidance, then handed over to the student."""

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that were found computed already. Known once `generate` has yielded."""
        ...

    @property
    def scores(self) -> Sequence[Score]:
        """Of the tokens that were asked for, as far as they are computed: all, once `generate` has yielded."""
        ...

    def extend(self, text: str) -> None:
        """Take in more guidance. Returns at once; the prefill happens beside."""
        ...

    def prefill_ahead(self, text: str) -> None:
        """Prepare for text that will probably come next. It is no guidance until `extend` says so. Returns at once."""
        ...

    def generate(self, sampling: StudentSampling) -> AsyncGenerator[TokenOutput, None]:
        """Write on from the exact end of prompt and guidance. Once only. Of no tokens at all it waits for the scores, if wanted.

        Raises EngineFailed where the engine cannot go on. Closing the generator leaves the engine's batch at its next step.
        """
        ...

    def close(self) -> None:
        """Leave the engine, whatever is under way. May be called again."""
        ...


class Student(Protocol):
    @property
    def model(self) -> str: ...

    @property
    def context_tokens(self) -> int:
        """Tokens that prompt, guidance and answer may have together."""
        ...

    @property
    def registry(self) -> CollectorRegistry:
        """The engine's own metrics."""
        ...

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation up to where the answer begins. Raises InvalidRequest where the template refuses it."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text without any template."""
        ...

    def piece(self, token: int) -> bytes:
        """Bytes of a token, which may be a part of a character; none for a control token."""
        ...

    def check_tokens(self, ids: Sequence[int], *, param: str = "prompt") -> None:
        """Raises InvalidRequest unless all are tokens of the vocabulary. `param` is the request's field that has them."""
        ...

    def structure(self, json_schema: dict[str, Any], *, param: str = "response_format") -> Structure:
        """Understand a JSON schema. Raises InvalidRequest where it is wrong, or says what the student cannot hold to.

        `param` is the request's field that has it.
        """
        ...

    def text_or_calls(self, call_schema: dict[str, Any], *, parallel: bool) -> Structure:
        """An answer of any text, or of calls of tools under a JSON schema: several, or one where they are not `parallel`.

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
        """Begin to prefill a prompt and what is written of the answer already: at once, or `deferred` until there is guidance or
        the hand-over.

        Scores are of the prompt from a position on, or of the guidance behind the text. `top` is how many alternatives each has.
        What was computed of a prompt is used again by sequences of the same `cache_salt` only.

        Raises PromptTooLong, Overloaded where the queue is full, EngineFailed where the engine is dead.
        """
        ...

    def failure(self) -> str | None:
        """Why the engine is dead, or None while it lives."""
        ...

    async def close(self) -> None: ...
