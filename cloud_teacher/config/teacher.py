"""One teacher, as a line of settings says it: where it is, how it is asked, what it costs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from shared.errors import ConfigurationError
from shared.prices import Prices

APIS = ("completions", "chat", "vllm")
Continuation = Literal["none", "flags", "prefix", "trailing", "ask"]
Omitted = Literal[
    "temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "logprobs", "response_format",
    "stream_options",
]  # fmt: skip
Seconds = Annotated[float, Field(gt=0, le=3600)]
Price = Annotated[float, Field(ge=0)]


class TeacherEntry(BaseModel):
    """Frozen and strict: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[\w.:/@-]{1,100}$", description="what requests, answers and the ledger call it")
    api: str = Field(
        default="completions",
        description="`completions`: a server that completes token ids, as vLLM's; `chat`: one that takes conversations; "
        "`vllm`: no server, but the engine here, as the service's settings have it; `package.module:function`: a backend of your "
        "own, opened by `function(entry, max_model_len=..., key=...)`",
    )
    url: str | None = Field(default=None, pattern=r"^https?://\S+$", description="base URL, to /v1")
    key_env: str | None = Field(default=None, description="environment variable that has the bearer key")
    key_file: Path | None = Field(default=None, description="file that has it; read as the service starts")
    model: str | None = Field(default=None, description="the model's name there; unset: name")
    tokenizer: str | None = Field(
        default=None,
        description="whose tokenizer it has, as the service's model is named; completions: unset: model; chat: unset: tokens are "
        "counted by the server, and before it has by their letters",
    )
    max_model_len: int | None = Field(
        default=None, ge=128, description="tokens of prompt and guidance together, at most"
    )
    continuation: Continuation = Field(
        default="none",
        description="chat: how it is asked to go on with an answer; `flags`: vLLM's continue_final_message; `prefix`: "
        "`prefix: true` on the last message; `trailing`: a last message of the assistant's is enough; `ask`: by the template "
        "`continue`; `none`: it is not",
    )
    token_limit: Literal["max_completion_tokens", "max_tokens"] = Field(
        default="max_completion_tokens",
        description="chat: the field that bounds the answer; older servers know `max_tokens`",
    )
    extensions: bool = Field(
        default=False, description="chat: send what vLLM knows beyond OpenAI (top_k, min_p, usage in each chunk, ...)"
    )
    omit: tuple[Omitted, ...] = Field(default=(), description="chat: fields that it refuses, and is not sent")
    extra_body: dict[str, Any] = Field(default={}, description="chat: fields that are added to each request")
    connect_s: Seconds = Field(default=5.0, description="to reach it")
    silence_s: Seconds = Field(default=120.0, description="it may be silent for so long: prompts wait there too")
    first_token_s: Seconds | None = Field(
        default=None, description="without a word for so long, it has failed, and the next is asked; unset: silence_s"
    )
    cool_down_s: float = Field(default=5.0, ge=0, le=3600, description="after it could not be reached it is left alone")
    fallbacks: tuple[str, ...] | None = Field(
        default=None, description="names of those asked in its place where it fails; unset: all below it"
    )
    input_usd_per_million: Price | None = Field(
        default=None, description="price of prompt tokens; unset: the service's prices hold"
    )
    cached_input_usd_per_million: Price | None = Field(
        default=None, description="price of prompt tokens that it had cached; unset: as any prompt token"
    )
    output_usd_per_million: Price | None = Field(default=None, description="price of its own tokens, thoughts included")

    @field_validator("api")
    @classmethod
    def _known_or_importable(cls, api: str) -> str:
        if api not in APIS and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", api):
            raise ValueError(f"{api!r} is none of {', '.join(APIS)}, and no package.module:function")
        return api

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.is_custom and (self.api == "vllm") != (self.url is None):
            raise ValueError("url: needed, except with api: vllm" if self.url is None else "url: not with api: vllm")
        if self.key_env and self.key_file:
            raise ValueError("key_env and key_file: one of the two")
        if (self.input_usd_per_million is None) != (self.output_usd_per_million is None):
            raise ValueError("input_usd_per_million and output_usd_per_million are set together or not at all")
        if self.api != "chat":
            only_chat = {"continuation", "token_limit", "extensions", "omit", "extra_body"}
            if odd := sorted(only_chat & self.model_fields_set):
                raise ValueError(f"{', '.join(odd)}: only with api: chat")
        return self

    @property
    def is_custom(self) -> bool:
        """Whether `api` names a function that opens the teacher."""
        return ":" in self.api

    @property
    def upstream_model(self) -> str:
        return self.model or self.name

    @property
    def prices(self) -> Prices | None:
        """Its own; None where the service's hold."""
        return Prices.of(
            self.input_usd_per_million,
            self.output_usd_per_million,
            cached_input_usd=self.cached_input_usd_per_million,
        )

    def key(self) -> str | None:
        """The bearer key. Raises ConfigurationError where it was named and is not there."""
        if self.key_env:
            if not (key := os.environ.get(self.key_env, "").strip()):
                raise ConfigurationError(f"key_env: {self.key_env} is not set")
            return key
        if self.key_file:
            try:
                key = self.key_file.read_text().strip()
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"key_file: {self.key_file} cannot be read") from error
            if not key:
                raise ConfigurationError(f"key_file: {self.key_file} is empty")
            return key
        return None
