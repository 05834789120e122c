"""HTTP messages of the edge: OpenAI's chat and text completions, extended by the `gkt` object.

Unknown fields are ignored, because clients send many; known fields with wrong values are errors that name the field.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from shared.protocol.gkt import ChunkSource, GktOptions, GktReport
from shared.protocol.guidance import CacheSalt, Text, Usage
from shared.protocol.messages import ChatMessage
from shared.protocol.response_format import ResponseFormat
from shared.protocol.sampling import LogitBias, Probability, SamplingParams, Stops
from shared.protocol.tools import ToolCall, ToolChoice, Tools


class OpenAIModel(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class StreamOptions(OpenAIModel):
    include_usage: bool = False
    continuous_usage_stats: bool = Field(
        default=False, description="text completions: usage so far in every chunk, as in vLLM"
    )


TokenCount = Annotated[int, Field(ge=1, le=10_000_000)]


class CompletionOptions(OpenAIModel, SamplingParams):
    """Options of both kinds of completion. A sampling option that is null has its default."""

    model: str = Field(default="gkt", max_length=200)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: TokenCount | None = None
    typical_p: Probability | None = Field(default=None, description="locally typical sampling; for the student only")
    logit_bias: LogitBias | None = Field(
        default=None, description="bias by the student's token ids; for the student only"
    )
    n: int | None = Field(default=None, ge=1)
    stop: Stops | None = None
    cache_salt: CacheSalt | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {
            name: value for name, value in data.items() if value is not None or name not in SamplingParams.model_fields
        }

    def sampling_params(self, default_temperature: float) -> SamplingParams:
        """Return the sampling options of the request; the default is for requests that leave the temperature out."""
        given = {name: getattr(self, name) for name in SamplingParams.model_fields if name in self.model_fields_set}
        return SamplingParams(**{"temperature": default_temperature, **given})


class ChatCompletionRequest(CompletionOptions):
    """Body of `POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    max_completion_tokens: TokenCount | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Any] | None = Field(default=None, description="predecessor of `tools`; not supported")
    function_call: Any = Field(default=None, description="predecessor of `tool_choice`; not supported")
    gkt: GktOptions | None = None


class CompletionRequest(CompletionOptions):
    """Body of `POST /v1/completions`: raw text for the student, without template or guidance."""

    prompt: Text | list[Text] | list[int] | list[list[int]]
    max_tokens: Annotated[int, Field(ge=0, le=10_000_000)] | None = 16
    """Upper bound of output tokens; 0 is accepted only with `echo`."""
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool = False
    logprob_start_len: int | None = Field(
        default=None,
        ge=0,
        description="with echo and logprobs: first prompt token with log-probabilities, as in SGLang",
    )
    return_token_ids: bool = Field(default=False, description="return the ids of the answer's tokens, as in vLLM")
    return_tokens_as_token_ids: bool = Field(
        default=False, description="name tokens in log-probabilities `token_id:7`, as in vLLM"
    )
    include_stop_str_in_output: bool = Field(default=False, description="end the text with the stop string, as in vLLM")


class TopLogprob(OpenAIModel):
    token: str
    logprob: float
    bytes: list[int] | None = None
    token_id: int | None = Field(default=None, exclude=True, description="the student's token id")


class TokenLogprob(TopLogprob):
    """A token of the answer. In the teacher's part an entry is one `Guidance` event, mostly one token."""

    top_logprobs: list[TopLogprob] = []


class Logprobs(OpenAIModel):
    content: list[TokenLogprob] = []


class PromptTokensDetails(OpenAIModel):
    cached_tokens: int = 0


class CompletionUsage(OpenAIModel):
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


class AnswerMessage(OpenAIModel):
    role: Literal["assistant"] = "assistant"
    content: str | None
    tool_calls: list[ToolCall] | None = None

    @model_serializer(mode="wrap")
    def _without_calls(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `tool_calls` if there are none, as OpenAI does."""
        fields: dict[str, Any] = handler(self)
        return {key: value for key, value in fields.items() if key != "tool_calls" or value}


class Choice(OpenAIModel):
    index: int
    message: AnswerMessage
    logprobs: Logprobs | None = None
    finish_reason: ChatEnd


class ChatCompletion(OpenAIModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage
    gkt: GktReport


class Sparse(OpenAIModel):
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


class ChunkChoice(OpenAIModel):
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


class TextLogprobs(OpenAIModel):
    """Log-probabilities in columns. The first token of an echoed prompt has none, so its entries are null."""

    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] = []
    text_offset: list[int] = []


class TextChoice(OpenAIModel):
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


class TextCompletion(OpenAIModel):
    """Response of `POST /v1/completions`, and each chunk of its stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage | None = None


class ModelCard(OpenAIModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "gkt"


class ModelList(OpenAIModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]
