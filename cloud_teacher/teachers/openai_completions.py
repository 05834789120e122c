"""Another server as the teacher, if it completes token ids over HTTP: a vLLM cluster, or a gkt edge.

It needs `POST /v1/completions` with vLLM's extensions: prompts as token ids, `return_token_ids`, `stop_reason`, usage in every
chunk. A review needs `echo` with `logprobs`. A server with `logprob_start_len`, such as an edge, scores the draft only; one with
`return_tokens_as_token_ids` also returns its own choices. Conversations are rendered here, with the served model's
tokenizer.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from cloud_teacher.config.teacher import TeacherEntry
from cloud_teacher.model_files.tokenizer import FolderTokenizer
from cloud_teacher.teachers.base import (
    DEFAULT_HINTS,
    REPLACEMENT,
    AnswerEnd,
    GenerationParams,
    OutputChunk,
    Prompt,
    Reviewer,
    SchedulingHints,
    Scores,
)
from cloud_teacher.teachers.openai_client import build_client, cached_tokens_of, request_headers, scheduling_fields
from cloud_teacher.teachers.openai_errors import translate_errors
from cloud_teacher.teachers.token_ids import TokenIdTeacher
from shared.errors import EngineFailed

if TYPE_CHECKING:
    from openai.types import Completion


TOKEN_ID = re.compile(r"token_id:(\d+)", re.ASCII)
"""vLLM's format of a token id in place of its text."""


class CompletionsTeacher(TokenIdTeacher):
    """The Teacher protocol over a server's completions API."""

    def __init__(
        self, entry: TeacherEntry, tokenizer: FolderTokenizer, *, max_model_len: int, key: str | None = None
    ) -> None:
        """Raises ConfigurationError if the tokenizer has no chat template."""
        super().__init__(tokenizer, tokenizer.end_id)
        self.model = entry.name
        self.max_model_len = max_model_len
        self.registry = CollectorRegistry()
        self._served_model = entry.upstream_model
        self._client = build_client(entry, key)

    def reviewer(self) -> Reviewer:
        return self

    def check_schema(self, json_schema: dict[str, Any]) -> None:
        """Do nothing: the server rejects schemas that it does not support."""

    async def stream(
        self, request_id: str, prompt: Prompt, params: GenerationParams, hints: SchedulingHints = DEFAULT_HINTS
    ) -> AsyncGenerator[OutputChunk, None]:
        extensions: dict[str, Any] = {
            **params.sampling_options(),
            **scheduling_fields(hints),
            "return_token_ids": True,
            "include_stop_str_in_output": True,
        }
        if params.json_schema is not None:
            extensions["structured_outputs"] = {"json": params.json_schema}
        usage: dict[str, bool] = {"include_usage": True, "continuous_usage_stats": True}
        with translate_errors():
            chunks = await self._client.completions.create(
                model=self._served_model,
                prompt=prompt.ids,
                max_tokens=params.max_tokens,
                logprobs=0 if params.logprobs else None,
                stop=list(params.stop) or None,
                stream=True,
                stream_options=usage,  # type: ignore[call-overload]
                extra_headers=request_headers(request_id, hints),
                extra_body=extensions,
            )
        try:
            with translate_errors(streaming=True):
                ended = False
                async for chunk in chunks:
                    if not chunk.choices:
                        continue  # the final usage, which is counted already
                    output = self._read(chunk)
                    ended = ended or output.end is not None
                    yield output
                if not ended:
                    raise EngineFailed("the upstream ended the answer without a finish reason")
        finally:
            await chunks.close()

    async def score(
        self, request_id: str, ids: list[int], start: int, hints: SchedulingHints = DEFAULT_HINTS
    ) -> Scores:
        with translate_errors():
            answer = await self._client.completions.create(
                model=self._served_model,
                prompt=ids,
                max_tokens=0,
                temperature=0,
                echo=True,
                logprobs=1,
                extra_headers=request_headers(request_id, hints),
                extra_body={
                    "logprob_start_len": start,
                    "return_tokens_as_token_ids": True,
                    **scheduling_fields(hints),
                },
            )
        returned = answer.choices[0].logprobs
        wanted = len(ids) - start
        values, tops = (returned.token_logprobs or [], returned.top_logprobs or []) if returned else ([], [])
        if len(values) < wanted or len(tops) < wanted:
            raise EngineFailed("the upstream returned no log-probabilities of the prompt, which a review needs")
        # Servers without `logprob_start_len` return the whole prompt; some append a token of their own.
        generated = answer.usage.completion_tokens if answer.usage else 0
        last = len(values) - generated
        logprobs = [-math.inf if value is None else value for value in values[last - wanted : last]]
        tops = tops[last - wanted : last]
        return Scores(
            logprobs=logprobs,
            ranks=[_rank(one, top) for one, top in zip(logprobs, tops, strict=True)],
            choices=[_choice(top) for top in tops],
            cached_tokens=cached_tokens_of(answer.usage),
        )

    def check_health(self) -> None:
        """Do nothing: a server may come back at any time, and each request finds out for itself."""

    async def close(self) -> None:
        await self._client.close()

    def _read(self, chunk: Completion) -> OutputChunk:
        choice = chunk.choices[0]
        extra = choice.model_extra or {}
        ids = extra.get("token_ids")
        if ids is None:
            ids = self.encode_answer(choice.text)  # about as many
        logprobs = choice.logprobs.token_logprobs if choice.logprobs else None
        # Some servers write an incomplete character at the budget's end as if it were final.
        text = choice.text.rstrip(REPLACEMENT) if choice.finish_reason == "length" else choice.text
        end: AnswerEnd | None = None
        if choice.finish_reason == "length":
            end = "limit"
        elif choice.finish_reason:
            end = "string" if isinstance(extra.get("stop_reason"), str) else "stop"
        return OutputChunk(
            text=text,
            token_ids=list(ids),
            logprobs=None if logprobs is None else [value or 0.0 for value in logprobs[: len(ids)]],
            end=end,
            cached_tokens=cached_tokens_of(chunk.usage),
        )


def _choice(top: dict[str, float] | None) -> int | None:
    """Return the id of the most probable token, if the server returns ids."""
    named = TOKEN_ID.fullmatch(max(top, key=lambda name: top[name])) if top else None
    return int(named[1]) if named else None


def _rank(logprob: float, top: dict[str, float] | None) -> int:
    """Return 1 if no token is more probable, else 2; the true rank is not known."""
    return 1 if top and logprob >= max(top.values()) else 2
