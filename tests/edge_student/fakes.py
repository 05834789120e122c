"""A scripted student and a scripted cloud behind the edge's own protocols."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry

from edge_student.cloud.client import CloudFailed, Traffic
from edge_student.student import Alternative, Score, ScoresOf, Structure, StudentSampling, TokenOutput
from shared.errors import EngineFailed, InvalidRequest, Overloaded, PromptTooLong
from shared.protocol.guidance import Done, Event, FinishReason, Guidance, GuidanceRequest, Message, Start, Timing, Usage


class ScriptedStudent:
    """Writes the given words, one in each step. A token is a code point."""

    model = "scripted-student"

    def __init__(self, *words: str, context_tokens: int = 1000, room: int = 100, dies_after: int | None = None) -> None:
        self.words = words
        self.context_tokens = context_tokens
        self.registry = CollectorRegistry()
        self.sequences: list[ScriptedSequence] = []
        self.room = room
        self.dies_after = dies_after
        self.closed = False
        self.gate = asyncio.Event()
        """While this event is clear, the student waits before its next word."""
        self.gate.set()

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return self.tokenize("".join(f"{m.role}:{m.content}\n" for m in messages))

    def tokenize(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    def check_tokens(self, ids: Sequence[int], *, param: str = "prompt") -> None:
        if any(not 0 <= token < 0x110000 for token in ids):
            raise InvalidRequest(f"{param}: not a token", param=param)

    def piece(self, token: int) -> bytes:
        return chr(token).encode()

    def structure(self, json_schema: dict[str, Any], *, param: str = "response_format") -> Structure:
        """Accepts schemas with one valid text: `{"const": VALUE}`, any object as `{}`, and calls with such arguments."""
        grammar = json.dumps(_only_value(json_schema, param), separators=(",", ":"))
        return Structure(json_schema, grammar, partial(ScriptedGate, grammar, or_text=False))

    def text_or_calls(self, call_schema: dict[str, Any], *, parallel: bool) -> Structure:
        """Accepts any text, or one call, depending on the first word."""
        call = self.structure(call_schema, param="tools").grammar
        grammar = f"<tool_call>\n{call}\n</tool_call>"
        return Structure(None, grammar, partial(ScriptedGate, grammar, or_text=True))

    def open(
        self,
        prompt: Sequence[int],
        *,
        text: str = "",
        deferred: bool = False,
        scores_of: ScoresOf | None = None,
        top: int = 0,
        cache_salt: str | None = None,
    ) -> ScriptedSequence:
        if not prompt:
            raise InvalidRequest("the prompt is empty", param="prompt")
        if len(prompt) >= self.context_tokens:
            raise PromptTooLong(f"{len(prompt)} tokens, {self.context_tokens} fit", param="messages")
        if len([s for s in self.sequences if not s.closed]) >= self.room:
            raise Overloaded("full", retry_after_s=1)
        self.sequences.append(ScriptedSequence(self, list(prompt)))
        self.sequences[-1].deferred = deferred
        self.sequences[-1].cache_salt = cache_salt
        self.sequences[-1].guidance = text
        self.sequences[-1].scored = scores_of is not None
        if isinstance(scores_of, int):
            alternatives = tuple(Alternative(b"?", -0.25) for _ in range(top))
            self.sequences[-1].scores = [
                Score(self.piece(token), -0.5, 0, 1.0, alternatives) for token in prompt[scores_of:]
            ]
        return self.sequences[-1]

    def words_behind(self, text: str) -> Sequence[tuple[str, float]]:
        """Return the words that continue the beginning of an answer, each with its log-probability."""
        return [(word, -0.5) for word in self.words]

    def rank_behind(self, text: str, character: str) -> int:
        """Return how many characters were more probable to the student there."""
        return 1

    def failure(self) -> str | None:
        return None

    async def close(self) -> None:
        self.closed = True


def _only_value(schema: dict[str, Any], param: str) -> Any:
    if "anyOf" in schema:
        schema = {**schema["anyOf"][0], "$defs": schema["$defs"]}
    if "$defs" in schema:
        name = schema["properties"]["name"]["const"]
        return {"name": name, "arguments": _only_value(schema["$defs"][name], param)}
    if schema == {"type": "object"}:
        return {}
    if "const" not in schema:
        raise InvalidRequest(f"{param}: not supported", param=param)
    return schema["const"]


class ScriptedGate:
    """Accepts the beginning of one text, and any text that begins differently. That one text is complete."""

    def __init__(self, text: str, *, or_text: bool = False) -> None:
        self._text = text
        self._at = 0
        self._or_text = or_text

    @property
    def complete(self) -> bool:
        return self._or_text or self._at == len(self._text)

    def push(self, text: str) -> str:
        self._or_text = self._or_text and (self._at > 0 or text[:1] != self._text[:1])
        if self._or_text:
            self._at += len(text)
            return text
        due = self._text[self._at :] if self._at >= 0 else ""
        allowed = next(n for n in range(len(text), -1, -1) if due.startswith(text[:n]))
        self._at = self._at + allowed if allowed == len(text) else -1
        return text[:allowed]


class ScriptedSequence:
    def __init__(self, student: ScriptedStudent, prompt: list[int]) -> None:
        self.student = student
        self.prompt = "".join(map(chr, prompt))
        self.guidance = ""
        self.prefilled_ahead: list[str] = []
        self.sampling: StudentSampling | None = None
        self.written = 0
        self.closed = False
        self.deferred = False
        self.cache_salt: str | None = None
        self.cached_tokens = 2
        self.scored = False
        self.scores: list[Score] = []

    def extend(self, text: str) -> None:
        assert self.sampling is None, "guidance after the handover"
        self.guidance += text
        if self.scored:
            before = self.guidance.removesuffix(text)
            self.scores += [
                Score(c.encode(), -0.5, self.student.rank_behind(before + text[:at], c), 2.0)
                for at, c in enumerate(text)
            ]

    def prefill_ahead(self, text: str) -> None:
        assert self.sampling is None, "guidance after the handover"
        self.prefilled_ahead.append(text)

    async def generate(self, sampling: StudentSampling) -> AsyncGenerator[TokenOutput, None]:
        assert self.sampling is None, "handed over twice"
        self.sampling = sampling
        if sampling.max_tokens < 1:
            yield TokenOutput("", end="length")
            return
        for count, (word, probability) in enumerate(self.student.words_behind(self.guidance), start=1):
            logprob = None if sampling.top_logprobs is None else probability
            if self.student.dies_after is not None and count > self.student.dies_after:
                raise EngineFailed("the engine died")
            await self.student.gate.wait()
            await asyncio.sleep(0)
            alternatives = tuple(Alternative(word.encode(), -0.5) for _ in range(sampling.top_logprobs or 0))
            last = count == sampling.max_tokens
            self.written += 1
            yield TokenOutput(word, word.encode(), len(word), logprob, alternatives, end="length" if last else None)
            if last:
                return
        yield TokenOutput("", logprob=None if sampling.top_logprobs is None else -0.5, end="stop")

    def close(self) -> None:
        self.closed = True


class ScriptedCloud:
    """Sends the given pieces, then the given end: `Done` with a reason, or a failure."""

    def __init__(self, *pieces: str, ends: FinishReason | CloudFailed = FinishReason.BUDGET) -> None:
        self.pieces = pieces
        self.ends = ends
        self.requests: list[GuidanceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.closed_early = 0
        self.streams_closed = asyncio.Event()
        self.gate = asyncio.Event()
        """While this event is clear, the teacher waits before its next piece."""
        self.gate.set()

    async def guide(
        self, request: GuidanceRequest, headers: dict[str, str], traffic: Traffic
    ) -> AsyncGenerator[Event, None]:
        self.requests.append(request)
        self.headers.append(headers)
        finished = False
        try:
            yield Start(request_id="r", model="scripted-teacher", template="answer@1#00000000", tokenizer="t")
            for number, piece in enumerate(self.pieces[: request.max_guidance_tokens]):
                await self.gate.wait()
                logprobs = [-0.25] if request.logprobs else None
                yield Guidance(text=piece, token_ids=[number], logprobs=logprobs)
            finished = True
            if isinstance(self.ends, CloudFailed):
                raise self.ends
            written = min(len(self.pieces), request.max_guidance_tokens)
            usage = Usage(prompt_tokens=9, cached_tokens=3, completion_tokens=written)
            yield Done(finish_reason=self.ends, usage=usage, timing=Timing(total_ms=1.0), cost_usd=0.5)
        finally:
            self.closed_early += not finished
            self.streams_closed.set()

    async def close(self) -> None:
        pass
