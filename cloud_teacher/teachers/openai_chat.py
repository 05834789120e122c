"""A chat API such as OpenAI's as the teacher: `POST /v1/chat/completions`, conversations in, text out.

The API has no token ids, so this teacher cannot review. Its usage is the server's (`usage`, in the last chunk or in each). Until
the server sends it, tokens are counted here, and the count is marked as an estimate. Reasoning (`reasoning_content`, `reasoning`)
is not sent as guidance, but counts, because it is billed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from cloud_teacher.config.teacher import TeacherEntry
from cloud_teacher.teachers.base import (
    DEFAULT_HINTS,
    AnswerEnd,
    GenerationParams,
    OutputChunk,
    Prompt,
    Reviewer,
    SchedulingHints,
    TokenEstimate,
)
from cloud_teacher.teachers.openai_client import (
    build_client,
    cached_tokens_of,
    request_headers,
    scheduling_fields,
    usage_of,
)
from cloud_teacher.teachers.openai_errors import translate_errors
from shared.errors import ContinuationUnsupported, EngineFailed, ReviewUnsupported
from shared.prompting.templates import Template, Templates
from shared.protocol.guidance import Message
from shared.protocol.sampling import BEYOND_OPENAI, SamplingParams

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionChunk
    from openai.types.chat.chat_completion_chunk import Choice

ENDS: dict[str, AnswerEnd] = {"stop": "stop", "length": "limit"}
"""The API's finish reasons that end an answer; others (a content filter, a tool call) are failures."""
BYTES_PER_TOKEN = 4
"""Likely length of a token without a tokenizer; the shortest is 1 byte."""
MESSAGE_OVERHEAD, MAX_MESSAGE_OVERHEAD, MAX_PREAMBLE = 4, 12, 64
"""Tokens that a chat template adds to a message (likely and at most), and at most in front of all messages."""
CONTINUE_TEMPLATE = "continue"
"""Name of the template that asks a model to continue an answer."""


class ChatTeacher:
    """The Teacher protocol over a chat API. `count` returns the tokens of a text, if the tokenizer is known."""

    def __init__(
        self,
        entry: TeacherEntry,
        *,
        max_model_len: int,
        key: str | None = None,
        count: Callable[[str], int] | None = None,
    ) -> None:
        self.model = entry.name
        self.max_model_len = max_model_len
        self.fingerprint = ""
        self.registry = CollectorRegistry()
        self._entry = entry
        self._count = count
        self._continue: Template | None = (
            Templates.load().get(CONTINUE_TEMPLATE) if entry.continuation == "ask" else None
        )
        self._client = build_client(entry, key)

    def encode(self, messages: Sequence[Message], answer: str = "") -> Prompt:
        if answer and self._entry.continuation == "none":
            raise ContinuationUnsupported(
                f"teacher {self.model!r} cannot continue an answer; answer must be empty", param="answer"
            )
        texts = [*(message.content for message in messages), answer]
        if self._count:
            likely = at_most = sum(map(self._count, texts))
        else:
            at_most = sum(len(text.encode()) for text in texts)
            likely = -(-at_most // BYTES_PER_TOKEN)
        estimate = TokenEstimate(
            likely + MESSAGE_OVERHEAD * len(texts), at_most + MAX_MESSAGE_OVERHEAD * len(texts) + MAX_PREAMBLE
        )
        return Prompt(messages, answer, estimated_tokens=estimate)

    def reviewer(self) -> Reviewer:
        raise ReviewUnsupported(
            f"teacher {self.model!r} cannot review: its API returns no probabilities of a given text"
        )

    def check_schema(self, json_schema: dict[str, Any]) -> None:
        """Do nothing: the server rejects schemas that it does not support."""

    async def stream(
        self, request_id: str, prompt: Prompt, params: GenerationParams, hints: SchedulingHints = DEFAULT_HINTS
    ) -> AsyncGenerator[OutputChunk, None]:
        body = self._body(prompt, params, hints)
        with translate_errors():
            chunks = await self._client.chat.completions.create(
                model=self._entry.upstream_model,
                stream=True,
                messages=[],  # `body` has them, with fields that are no part of the client's types
                extra_body=body,
                extra_headers=request_headers(request_id, hints),
            )
        stop = _StopStrings(params.stop)
        last = OutputChunk(text="", token_ids=(), tokens=0)
        end: AnswerEnd | None = None
        try:
            with translate_errors(streaming=True):
                async for chunk in chunks:
                    output, ended = self._read(chunk, params)
                    end = end or ended
                    if output.usage:
                        last = OutputChunk("", (), tokens=0, usage=output.usage, cached_tokens=output.cached_tokens)
                    kept = stop.cut(output.text)
                    if kept is not None:
                        yield replace(output, text=kept, end="string")
                        return  # the stream is closed before its usage comes, which remains an estimate
                    if output.count or output.text:
                        yield output
                if end is None:
                    raise EngineFailed("the upstream ended the answer without a finish reason")
        finally:
            await chunks.close()
        yield replace(last, end=end)

    def check_health(self) -> None:
        """Do nothing: a server may come back at any time, and each request finds out for itself."""

    async def close(self) -> None:
        await self._client.close()

    def _body(self, prompt: Prompt, params: GenerationParams, hints: SchedulingHints) -> dict[str, Any]:
        """Build the request body. Options at the API's default are left out, since some models reject them."""
        entry = self._entry
        body: dict[str, Any] = {
            "messages": self._messages(prompt),
            entry.token_limit: params.max_tokens,
            "stream_options": {"include_usage": True},
        }
        options, defaults = params.sampling_options(), SamplingParams().sampling_options()
        body |= {
            name: value
            for name, value in options.items()
            if (value != defaults[name] or name == "temperature") and (entry.extensions or name not in BEYOND_OPENAI)
        }
        if entry.extensions:
            body["stream_options"]["continuous_usage_stats"] = True
            body |= scheduling_fields(hints)
        if params.logprobs:
            body["logprobs"] = True
        if params.json_schema is not None:
            schema = {"name": "answer", "strict": True, "schema": params.json_schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if prompt.text and entry.continuation == "flags":
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        return {name: value for name, value in body.items() if name not in entry.omit} | entry.extra_body

    def _messages(self, prompt: Prompt) -> list[dict[str, Any]]:
        conversation = prompt.messages
        if prompt.text and self._continue:
            conversation = self._continue.apply(conversation, answer=prompt.text)
        messages: list[dict[str, Any]] = [
            {"role": message.role, "content": message.content} for message in conversation
        ]
        if prompt.text and self._continue is None:
            answer: dict[str, Any] = {"role": "assistant", "content": prompt.text}
            messages.append(answer | ({"prefix": True} if self._entry.continuation == "prefix" else {}))
        return messages

    def _read(self, chunk: ChatCompletionChunk, params: GenerationParams) -> tuple[OutputChunk, AnswerEnd | None]:
        """Return the output of a chunk, and how the answer ends if it does. Its usage may come in a later chunk."""
        usage, cached = usage_of(chunk.usage), cached_tokens_of(chunk.usage)
        if not chunk.choices:
            return OutputChunk("", (), tokens=0, usage=usage, cached_tokens=cached), None
        choice = chunk.choices[0]
        text = choice.delta.content or ""
        content = choice.logprobs.content if choice.logprobs else None
        logprobs = [token.logprob for token in content] if content and params.logprobs else None
        tokens = len(content) if content else self._tokens(text or _reasoning(choice))
        output = OutputChunk(text, (), logprobs=logprobs, tokens=tokens, usage=usage, cached_tokens=cached)
        if choice.finish_reason and choice.finish_reason not in ENDS:
            raise EngineFailed("the upstream ended the answer with an unexpected finish reason")
        return output, ENDS[choice.finish_reason] if choice.finish_reason else None

    def _tokens(self, text: str) -> int:
        """Return the tokens of a chunk: counted by the tokenizer, or else 1."""
        return self._count(text) if self._count and text else int(bool(text))


class _StopStrings:
    """Searches for the strings that end an answer and are part of it.

    They are not sent to the server: it would cut them off, and use the same finish reason for the model's own end.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = strings
        self._before = ""
        self._kept = max(map(len, strings), default=1) - 1

    def cut(self, text: str) -> str | None:
        """Return the text up to the end of the first stop string, or None if there is none."""
        whole = self._before + text
        ends = [at + len(string) for string in self._strings if (at := whole.find(string)) >= 0]
        if ends:
            return text[: min(ends) - len(self._before)]
        self._before = whole[len(whole) - self._kept :] if self._kept else ""
        return None


def _reasoning(choice: Choice) -> str:
    """Return the reasoning in a chunk, under either of the names that servers use."""
    extra = choice.delta.model_extra or {}
    reasoning = extra.get("reasoning_content") or extra.get("reasoning")
    return reasoning if isinstance(reasoning, str) else ""
