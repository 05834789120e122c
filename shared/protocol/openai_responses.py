"""Responses of the edge: OpenAI's chat and text completions, extended by the `gkt` object, and its list of models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from shared.protocol.gkt import ChunkSource, GktReport
from shared.protocol.guidance import Usage
from shared.protocol.tools import ToolCall


class OpenAIResponse(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class TopLogprob(OpenAIResponse):
    token: str
    logprob: float
    bytes: list[int] | None = None
    token_id: int | None = Field(default=None, exclude=True, description="the student's token id")


class TokenLogprob(TopLogprob):
    """A token of the answer. In the teacher's part an entry is one `Guidance` event, mostly one token."""

    top_logprobs: list[TopLogprob] = []


class Logprobs(OpenAIResponse):
    content: list[TokenLogprob] = []


class PromptTokensDetails(OpenAIResponse):
    cached_tokens: int = 0


class CompletionUsage(OpenAIResponse):
    """Prompt tokens in the student's count; completion tokens of both sides, each in its own vocabulary."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails = PromptTokensDetails()

    @classmethod
    def of(cls, usage: Usage) -> CompletionUsage:
        return cls(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
        )


AnswerEnd = Literal["stop", "length"]
ChatEnd = Literal["stop", "length", "tool_calls"]


class AnswerMessage(OpenAIResponse):
    role: Literal["assistant"] = "assistant"
    content: str | None
    tool_calls: list[ToolCall] | None = None

    @model_serializer(mode="wrap")
    def _without_calls(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `tool_calls` if there are none, as OpenAI does."""
        fields: dict[str, Any] = handler(self)
        return {key: value for key, value in fields.items() if key != "tool_calls" or value}


class ChatChoice(OpenAIResponse):
    index: int
    message: AnswerMessage
    logprobs: Logprobs | None = None
    finish_reason: ChatEnd


class ChatCompletion(OpenAIResponse):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    gkt: GktReport


class Sparse(OpenAIResponse):
    """Base of messages without null fields. In other messages OpenAI's clients expect explicit nulls."""

    @model_serializer(mode="wrap")
    def _without_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


class FunctionDelta(Sparse):
    name: str | None = None
    arguments: str


class ToolCallDelta(Sparse):
    """Start of a call, with its id and name, or more arguments of the call with the same index."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class Delta(Sparse):
    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(OpenAIResponse):
    index: int
    delta: Delta
    logprobs: Logprobs | None = None
    finish_reason: ChatEnd | None = None


class ChatCompletionChunk(Sparse):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None
    gkt: ChunkSource | GktReport | None = None


class TextLogprobs(OpenAIResponse):
    """Log-probabilities in columns. The first token of an echoed prompt has none, so its entries are null."""

    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] = []
    text_offset: list[int] = []


class TextChoice(OpenAIResponse):
    """A choice of a text completion. `stop_reason` is the stop string that ended it; both it and `token_ids` are vLLM's."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: AnswerEnd | None
    stop_reason: str | None = None
    token_ids: list[int] | None = None

    @model_serializer(mode="wrap")
    def _without_ids(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        return {key: value for key, value in fields.items() if key != "token_ids" or value is not None}


class TextCompletion(OpenAIResponse):
    """Response of `POST /v1/completions`, and each chunk of its stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage | None = None


class ModelCard(OpenAIResponse):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "gkt"


class ModelList(OpenAIResponse):
    object: Literal["list"] = "list"
    data: list[ModelCard]
