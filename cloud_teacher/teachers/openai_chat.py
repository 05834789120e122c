"""A chat API as the teacher, such as OpenAI's: `POST /v1/chat/completions`, conversations in, text out.

It takes no token ids and tells none, so it reviews nothing, and what is used is what the server says (`usage`, in the last chunk
or in each). Before that, and where the server says nothing, tokens are counted here, and the count says that it is an estimate.
What a model thinks before it answers (`reasoning_content`, `reasoning`) is no guidance, but counts, since it is paid for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from prometheus_client import CollectorRegistry

from cloud_teacher.config.teacher import TeacherEntry
from cloud_teacher.teachers.base import (
    DEFAULT_HINTS,
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

End = Literal["stop", "limit", "string"]
ENDS: dict[str, End] = {"stop": "stop", "length": "limit"}
"""Its finish reasons; the others (a filter, a call of a tool) are no end of an answer."""
LETTERS = 4
"""Of a token, in bytes, where there is no tokenizer; it has one at least."""
AROUND, AROUND_MOST, HEAD_MOST = 4, 12, 64
"""Tokens that a chat template writes around a message, about and at most, and what it may write in front of all."""
CONTINUE = "continue"
"""The template by which a model is asked to go on."""


class ChatTeacher:
    """The Teacher protocol over a chat API. `count` counts a text's tokens, where that can be known."""

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
        self._continue: Template | None = Templates.load().get(CONTINUE) if entry.continuation == "ask" else None
        self._client = build_client(entry, key)

    def encode(self, messages: Sequence[Message], answer: str = "") -> Prompt:
        if answer and self._entry.continuation == "none":
            raise ContinuationUnsupported(
                f"teacher {self.model!r} begins answers only; it cannot go on with one", param="answer"
            )
        texts = [*(message.content for message in messages), answer]
        if self._count:
            about = most = sum(map(self._count, texts))
        else:
            most = sum(len(text.encode()) for text in texts)
            about = -(-most // LETTERS)
        estimate = TokenEstimate(about + AROUND * len(texts), most + AROUND_MOST * len(texts) + HEAD_MOST)
        return Prompt(messages, answer, estimated_tokens=estimate)

    def reviewer(self) -> Reviewer:
        raise ReviewUnsupported(f"teacher {self.model!r} cannot say how probable a text is: it reviews nothing")

    def check_schema(self, json_schema: dict[str, Any]) -> None:
        """The server refuses what it cannot hold to."""

    async def stream(
        self, request_id: str, prompt: Prompt, params: GenerationParams, hints: SchedulingHints = DEFAULT_HINTS
    ) -> AsyncGenerator[OutputChunk, None]:
        body = self._body(prompt, params, hints)
        with translate_errors():
            chunks = await self._client.chat.completions.create(
                model=self._entry.upstream_model,
                stream=True,
                messages=[],  # the body has them all, with what only some servers know
                extra_body=body,
                extra_headers=request_headers(request_id, hints),
            )
        stop = _Stop(params.stop)
        last = OutputChunk(text="", token_ids=(), tokens=0)
        end: End | None = None
        try:
            with translate_errors(begun=True):
                async for chunk in chunks:
                    piece, ended = self._piece(chunk, params)
                    end = end or ended
                    if piece.usage:
                        last = OutputChunk("", (), tokens=0, usage=piece.usage, cached_tokens=piece.cached_tokens)
                    kept = stop.cut(piece.text)
                    if kept is not None:
                        yield replace(piece, text=kept, end="string")
                        return  # which closes the stream: what was used remains an estimate
                    if piece.count or piece.text:
                        yield piece
                if end is None:
                    raise EngineFailed("the upstream ended its answer without saying why")
        finally:
            await chunks.close()
        yield replace(last, end=end)

    def check_health(self) -> None:
        """A server that is away comes back without us: each request says for itself."""

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
        asked = prompt.messages
        if prompt.text and self._continue:
            asked = self._continue.apply(asked, answer=prompt.text)
        messages: list[dict[str, Any]] = [{"role": message.role, "content": message.content} for message in asked]
        if prompt.text and self._continue is None:
            begun: dict[str, Any] = {"role": "assistant", "content": prompt.text}
            messages.append(begun | ({"prefix": True} if self._entry.continuation == "prefix" else {}))
        return messages

    def _piece(self, chunk: ChatCompletionChunk, params: GenerationParams) -> tuple[OutputChunk, End | None]:
        """What a chunk adds, and whether the answer ends with it. Its usage may come in a later chunk."""
        usage, cached = usage_of(chunk.usage), cached_tokens_of(chunk.usage)
        if not chunk.choices:
            return OutputChunk("", (), tokens=0, usage=usage, cached_tokens=cached), None
        choice = chunk.choices[0]
        text = choice.delta.content or ""
        told = choice.logprobs.content if choice.logprobs else None
        logprobs = [one.logprob for one in told] if told and params.logprobs else None
        tokens = len(told) if told else self._tokens(text or _thought(choice))
        piece = OutputChunk(text, (), logprobs=logprobs, tokens=tokens, usage=usage, cached_tokens=cached)
        if choice.finish_reason and choice.finish_reason not in ENDS:
            raise EngineFailed("the upstream ended its answer for a reason that is no end of one")
        return piece, ENDS[choice.finish_reason] if choice.finish_reason else None

    def _tokens(self, text: str) -> int:
        """Of a chunk: as the tokenizer has it, else one."""
        return self._count(text) if self._count and text else int(bool(text))


class _Stop:
    """Looks for the strings that are to end an answer, and are part of it.

    The server is not told of them: it would leave them out, and its `stop` means the model's own end as well.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = strings
        self._before = ""
        self._kept = max(map(len, strings), default=1) - 1

    def cut(self, text: str) -> str | None:
        """The text up to the end of the first of them; None where there is none."""
        whole = self._before + text
        ends = [at + len(one) for one in self._strings if (at := whole.find(one)) >= 0]
        if ends:
            return text[: min(ends) - len(self._before)]
        self._before = whole[len(whole) - self._kept :] if self._kept else ""
        return None


def _thought(choice: Choice) -> str:
    """What the model thinks, by the two names that servers have for it."""
    more = choice.delta.model_extra or {}
    thought = more.get("reasoning_content") or more.get("reasoning")
    return thought if isinstance(thought, str) else ""
