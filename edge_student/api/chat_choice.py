"""One choice of a chat completion: accumulates text, tool calls and log-probabilities into chunks or into the whole choice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from edge_student.answering.choice import ChoiceEnded, TextPart
from edge_student.tools.parser import CallArguments, CallStarted, ParserEvent, PlainText
from edge_student.tools.tool_use import ToolUse
from shared.protocol.openai_responses import (
    AnswerEnd,
    AnswerMessage,
    ChatChoice,
    ChatEnd,
    ChunkChoice,
    Delta,
    FunctionDelta,
    Logprobs,
    TokenLogprob,
    ToolCallDelta,
)
from shared.protocol.tools import CalledFunction, ToolCall


@dataclass
class _Call:
    """A tool call, or more arguments of one that an earlier chunk started; those have neither id nor name."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: list[str] = field(default_factory=list)

    def delta(self) -> ToolCallDelta:
        function = FunctionDelta(name=self.name, arguments="".join(self.arguments))
        return ToolCallDelta(index=self.index, id=self.id, type="function" if self.id else None, function=function)

    def whole(self) -> ToolCall:
        function = CalledFunction(name=self.name or "", arguments="".join(self.arguments))
        return ToolCall(id=self.id or "", function=function)


@dataclass
class _Pending:
    """Content of a choice since its last chunk."""

    content: list[str] = field(default_factory=list)
    calls: list[_Call] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    end: ChatEnd | None = None


class ChatChoiceBuilder:
    """Builds one choice from the parts of its answer.

    A streamed answer gives each part to `chunks`, any other one gives all parts to `add` and then calls `assemble`.
    """

    def __init__(self, index: int, tools: ToolUse | None) -> None:
        self._index = index
        self._parser = tools.parser() if tools else None
        self._function_is_given = tools is not None and tools.named
        self._pending = _Pending()

    def chunks(self, part: TextPart | ChoiceEnded) -> Iterator[ChunkChoice]:
        """Add a part, and yield the chunks that it completes. The end of the choice is a chunk of its own, the last one."""
        for _ in self._accumulate(part):
            yield self._chunk()

    def add(self, part: TextPart | ChoiceEnded) -> None:
        """Add a part to the whole choice."""
        for _ in self._accumulate(part):
            pass

    def assemble(self, *, logprobs: bool) -> ChatChoice:
        """Return everything that was added. The end of the choice must be among it."""
        assert self._pending.end is not None  # noqa: S101 - an answer ends all of its choices
        content = "".join(self._pending.content)
        calls = [call.whole() for call in self._pending.calls]
        return ChatChoice(
            index=self._index,
            message=AnswerMessage(content=content if content or not calls else None, tool_calls=calls or None),
            logprobs=Logprobs(content=self._pending.logprobs) if logprobs else None,
            finish_reason=self._pending.end,
        )

    def _accumulate(self, part: TextPart | ChoiceEnded) -> Iterator[None]:
        """Add a part, and yield where a chunk is complete."""
        match part:
            case TextPart(text=text):
                self._pending.logprobs += part.logprobs
                for event in self._parser.push(text) if self._parser else [PlainText(text)]:
                    self._add_event(event)
                    yield
            case ChoiceEnded(reason=reason):
                for event in self._parser.finish() if self._parser else []:
                    self._add_event(event)
                    yield
                if self._pending.logprobs:
                    self._pending.content.append("")
                    yield
                self._pending.end = self._chat_end(reason)
                yield

    def _add_event(self, event: ParserEvent) -> None:
        match event:
            case PlainText(text):
                self._pending.content.append(text)
            case CallStarted(index, identity, name):
                self._pending.calls.append(_Call(index, identity, name))
            case CallArguments(index, text):
                if not self._pending.calls or self._pending.calls[-1].index != index:
                    self._pending.calls.append(_Call(index))
                self._pending.calls[-1].arguments.append(text)

    def _chunk(self) -> ChunkChoice:
        """Return what was added since the last chunk."""
        pending, self._pending = self._pending, _Pending()
        delta = Delta(
            content="".join(pending.content) if pending.content else None,
            tool_calls=[call.delta() for call in pending.calls] or None,
        )
        logprobs = Logprobs(content=pending.logprobs) if pending.logprobs else None
        return ChunkChoice(index=self._index, delta=delta, logprobs=logprobs, finish_reason=pending.end)

    def _chat_end(self, reason: AnswerEnd) -> ChatEnd:
        # OpenAI reports "stop" if the request itself names the function to call.
        called = self._parser is not None and self._parser.called and not self._function_is_given
        return "tool_calls" if called and reason == "stop" else reason
