"""One choice of `/v1/chat/completions` as it grows: its text, its calls of tools, its log-probabilities."""

from __future__ import annotations

from collections.abc import Iterable

from edge_student.answering.choice import ChoiceEnded, TextPart
from edge_student.tools.parser import CallArguments, CallBegan, Event, Text
from edge_student.tools.tool_use import ToolUse
from shared.protocol.openai_responses import (
    AnswerEnd,
    AnswerMessage,
    ChatEnd,
    Choice,
    ChunkChoice,
    Delta,
    FunctionDelta,
    Logprobs,
    TokenLogprob,
    ToolCallDelta,
)
from shared.protocol.tools import CalledFunction, ToolCall


class GrowingMessage:
    """Makes chunks of each part of an answer. All chunks joined are the whole choice."""

    def __init__(self, index: int, tools: ToolUse | None) -> None:
        self._index = index
        self._reader = tools.reader() if tools else None
        self._named = tools is not None and tools.named
        self._logprobs: list[TokenLogprob] = []
        """Of tokens of which nothing was told yet."""

    def chunks(self, part: TextPart | ChoiceEnded) -> list[ChunkChoice]:
        """What a part adds. The end is a chunk of its own, the last one."""
        match part:
            case TextPart():
                self._logprobs += part.logprobs
                return self._told(self._reader.push(part.text) if self._reader else [Text(part.text)])
            case ChoiceEnded():
                chunks = self._told(self._reader.finish() if self._reader else [])
                if self._logprobs:
                    chunks.append(self._chunk(Delta(content="")))
                return [*chunks, ChunkChoice(index=self._index, delta=Delta(), finish_reason=self._end(part.reason))]

    def _told(self, events: Iterable[Event]) -> list[ChunkChoice]:
        return [self._chunk(_delta(event)) for event in events]

    def _chunk(self, delta: Delta) -> ChunkChoice:
        logprobs, self._logprobs = self._logprobs, []
        return ChunkChoice(index=self._index, delta=delta, logprobs=Logprobs(content=logprobs) if logprobs else None)

    def _end(self, reason: AnswerEnd) -> ChatEnd:
        # As OpenAI has it: whoever names the function knows that it is called.
        called = self._reader is not None and self._reader.called and not self._named
        return "tool_calls" if called and reason == "stop" else reason


def joined(index: int, chunks: Iterable[ChunkChoice], *, logprobs: bool) -> Choice:
    """A whole choice from its chunks."""
    text: list[str] = []
    calls: list[ToolCallDelta] = []
    arguments: list[list[str]] = []
    entries: list[TokenLogprob] = []
    end: ChatEnd | None = None
    for chunk in chunks:
        text.append(chunk.delta.content or "")
        entries += chunk.logprobs.content if chunk.logprobs else []
        end = chunk.finish_reason
        for call in chunk.delta.tool_calls or []:
            if call.id:
                calls.append(call)
                arguments.append([])
            arguments[call.index].append(call.function.arguments)
    assert end is not None  # noqa: S101 - the last chunk of a choice has its end
    content = "".join(text)
    made = [
        ToolCall(
            id=call.id or "", function=CalledFunction(name=call.function.name or "", arguments="".join(arguments[at]))
        )
        for at, call in enumerate(calls)
    ]
    return Choice(
        index=index,
        message=AnswerMessage(content=content if content or not made else None, tool_calls=made or None),
        logprobs=Logprobs(content=entries) if logprobs else None,
        finish_reason=end,
    )


def _delta(event: Event) -> Delta:
    match event:
        case Text(text):
            return Delta(content=text)
        case CallBegan(index, identity, name):
            function = FunctionDelta(name=name, arguments="")
            return Delta(tool_calls=[ToolCallDelta(index=index, id=identity, type="function", function=function)])
        case CallArguments(index, text):
            return Delta(tool_calls=[ToolCallDelta(index=index, function=FunctionDelta(arguments=text))])
