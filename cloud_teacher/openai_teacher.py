"""Another server as the teacher: one that completes token ids over HTTP, such as a vLLM cluster's, or an edge of ours.

What is asked of it is `POST /v1/completions` with vLLM's extensions: prompts as token ids, `return_token_ids`, `stop_reason`,
usage in every chunk. A review needs `echo` with `logprobs`; where the server knows `logprob_start_len`, as an edge does, it
computes and tells the step only. The conversation is rendered here, with the tokenizer of the model that is served there.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from prometheus_client import CollectorRegistry

from cloud_teacher.hf_chat import chat_format
from cloud_teacher.settings import CloudSettings
from cloud_teacher.teacher import ALONE, Piece, Sampling, Scores, Standing
from cloud_teacher.tokenizer import FolderTokenizer
from shared.errors import ConfigurationError, EngineFailed, InvalidRequest, NotReady, Overloaded, TooManyRequests
from shared.wire import Message

if TYPE_CHECKING:
    from collections.abc import Generator

    from openai.types import Completion, CompletionUsage

CONNECT_S = 5.0
SILENCE_S = 120.0
"""The server may be silent for so long: prompts wait there too."""
RETRY_S = 2.0
"""Where the server does not say when to come again."""


class OpenAITeacher:
    """The Teacher protocol over a server's completions API."""

    def __init__(self, settings: CloudSettings, tokenizer: FolderTokenizer) -> None:
        """Raises ConfigurationError where there is no upstream, or the tokenizer has no chat template."""
        from openai import AsyncOpenAI, Timeout

        if settings.upstream_url is None:
            raise ConfigurationError("upstream_url: says where the teacher is; none is set")
        self.model = settings.upstream_model or settings.model
        self.max_model_len = settings.max_model_len
        self.registry = CollectorRegistry()
        self.end_id = tokenizer.end_id
        self._tokenizer = tokenizer
        self._format = chat_format(tokenizer)
        self.fingerprint = self._format.fingerprint
        key = settings.upstream_key.get_secret_value() if settings.upstream_key else "none"
        self._client = AsyncOpenAI(
            base_url=settings.upstream_url,
            api_key=key,
            max_retries=0,  # the edge decides whether to try again
            timeout=Timeout(SILENCE_S, connect=CONNECT_S),
        )

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return self._format.encode(messages)

    def encode_answer(self, text: str) -> list[int]:
        return self._format.encode_plain(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids)

    def check_schema(self, json_schema: dict[str, Any]) -> None:
        """The server refuses what it cannot hold to."""

    async def stream(
        self, request_id: str, prompt_ids: list[int], sampling: Sampling, standing: Standing = ALONE
    ) -> AsyncGenerator[Piece, None]:
        extensions: dict[str, Any] = {
            **_standing(standing),
            "return_token_ids": True,
            "include_stop_str_in_output": True,
            "top_k": max(sampling.top_k, 0),
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
        }
        if sampling.json_schema is not None:
            extensions["structured_outputs"] = {"json": sampling.json_schema}
        usage: dict[str, bool] = {"include_usage": True, "continuous_usage_stats": True}
        with _as_ours():
            chunks = await self._client.completions.create(
                model=self.model,
                prompt=prompt_ids,
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                presence_penalty=sampling.presence_penalty,
                frequency_penalty=sampling.frequency_penalty,
                seed=sampling.seed,
                logprobs=0 if sampling.logprobs else None,
                stop=list(sampling.stop) or None,
                stream=True,
                stream_options=usage,  # type: ignore[call-overload]
                extra_headers={"x-request-id": request_id, **standing.trace},
                extra_body=extensions,
            )
            try:
                ended = False
                async for chunk in chunks:
                    if not chunk.choices:
                        continue  # the usage of all of it, which we have counted
                    piece = self._piece(chunk)
                    ended = ended or piece.end is not None
                    yield piece
                if not ended:
                    raise EngineFailed("the upstream ended its answer without saying why")
            finally:
                await chunks.close()

    async def score(self, request_id: str, ids: list[int], start: int, standing: Standing = ALONE) -> Scores:
        with _as_ours():
            answer = await self._client.completions.create(
                model=self.model,
                prompt=ids,
                max_tokens=0,
                temperature=0,
                echo=True,
                logprobs=1,
                extra_headers={"x-request-id": request_id, **standing.trace},
                extra_body={"logprob_start_len": start, **_standing(standing)},
            )
        told = answer.choices[0].logprobs
        wanted = len(ids) - start
        values, tops = (told.token_logprobs or [], told.top_logprobs or []) if told else ([], [])
        if len(values) < wanted or len(tops) < wanted:
            raise EngineFailed("the upstream tells no log-probabilities of a prompt: a review needs them")
        # A server that does not know where to begin tells all, and one that ends with a token of its own, that too.
        behind = answer.usage.completion_tokens if answer.usage else 0
        last = len(values) - behind
        logprobs = [-math.inf if value is None else value for value in values[last - wanted : last]]
        return Scores(
            logprobs=logprobs,
            ranks=[_rank(one, top) for one, top in zip(logprobs, tops[last - wanted : last], strict=True)],
            cached_tokens=_cached(answer.usage),
        )

    def check_health(self) -> None:
        """A server that is away comes back without us: each request says for itself."""

    async def close(self) -> None:
        await self._client.close()

    def _piece(self, chunk: Completion) -> Piece:
        choice = chunk.choices[0]
        more = choice.model_extra or {}
        ids = more.get("token_ids")
        if ids is None:
            ids = self.encode_answer(choice.text)  # as many, nearly
        logprobs = choice.logprobs.token_logprobs if choice.logprobs else None
        end: Literal["stop", "limit", "string"] | None = None
        if choice.finish_reason == "length":
            end = "limit"
        elif choice.finish_reason:
            end = "string" if isinstance(more.get("stop_reason"), str) else "stop"
        return Piece(
            text=choice.text,
            token_ids=list(ids),
            logprobs=None if logprobs is None else [value or 0.0 for value in logprobs[: len(ids)]],
            end=end,
            cached_tokens=_cached(chunk.usage),
        )


def _standing(standing: Standing) -> dict[str, Any]:
    """As vLLM's server takes it: a priority only where there is one, as a server without priorities refuses it."""
    salt = {} if standing.cache_salt is None else {"cache_salt": standing.cache_salt}
    return salt | ({"priority": standing.priority} if standing.priority else {})


def _rank(logprob: float, top: dict[str, float] | None) -> int:
    """1 where nothing is more probable; of the others it is not known how many there are."""
    return 1 if top and logprob >= max(top.values()) else 2


def _cached(usage: CompletionUsage | None) -> int:
    details = usage.prompt_tokens_details if usage else None
    return (details.cached_tokens or 0) if details else 0


@contextmanager
def _as_ours() -> Generator[None]:
    """What goes wrong with the server, as an error of ours. Its own message is not for the edge: it may hold text."""
    from openai import APIConnectionError, APIError, APIStatusError

    try:
        yield
    except APIStatusError as error:
        match error.status_code:
            case 429:
                raise TooManyRequests("the upstream has enough of us", retry_after_s=_wait_s(error)) from error
            case 503:
                raise Overloaded("the upstream has no room", retry_after_s=_wait_s(error)) from error
            case 400 | 422:
                raise InvalidRequest("the upstream refuses the request") from error
        raise EngineFailed(f"the upstream answers with status {error.status_code}") from error
    except APIConnectionError as error:
        raise NotReady("the upstream cannot be reached", retry_after_s=RETRY_S) from error
    except APIError as error:
        raise EngineFailed(f"the upstream broke off: {type(error).__name__}") from error


def _wait_s(error: Any) -> float:
    try:
        return max(0.0, float(error.response.headers.get("retry-after", RETRY_S)))
    except ValueError:
        return RETRY_S
