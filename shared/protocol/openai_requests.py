"""Requests to the edge: OpenAI's chat and text completions, extended by the `gkt` object.

Unknown fields are ignored, because clients send many; known fields with wrong values are errors that name the field.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from shared.protocol.gkt import GktOptions
from shared.protocol.guidance import CacheSalt, Text
from shared.protocol.messages import ChatMessage
from shared.protocol.response_format import ResponseFormat
from shared.protocol.sampling import LogitBias, Probability, SamplingParams, Stops
from shared.protocol.tools import ToolChoice, Tools


class OpenAIRequest(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class StreamOptions(OpenAIRequest):
    include_usage: bool = False
    continuous_usage_stats: bool = Field(
        default=False, description="text completions: usage so far in every chunk, as in vLLM"
    )


TokenCount = Annotated[int, Field(ge=1, le=10_000_000)]


class CompletionOptions(OpenAIRequest, SamplingParams):
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
