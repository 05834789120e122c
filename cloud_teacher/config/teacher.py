"""The settings of one teacher: its server, API, deadlines and prices."""

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
    """An entry of the teachers file. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        pattern=r"^[\w.:/@-]{1,100}$", description="name of the teacher in requests, answers and the ledger"
    )
    api: str = Field(
        default="completions",
        description="API of the teacher. `completions`: a server that takes token ids, as vLLM does; `chat`: a server that "
        "takes conversations; `vllm`: the engine in this process, with the service's settings; "
        "`package.module:function`: a backend of your own, opened by `function(entry, max_model_len=..., "
        "key=...)`",
    )
    url: str | None = Field(default=None, pattern=r"^https?://\S+$", description="base URL of the server, to /v1")
    key_env: str | None = Field(default=None, description="environment variable with the bearer key")
    key_file: Path | None = Field(default=None, description="file with the bearer key, read when the service starts")
    model: str | None = Field(default=None, description="name of the model at the server. If unset, `name`")
    tokenizer: str | None = Field(
        default=None,
        description="tokenizer of the model: catalogue name, GGUF path, folder or hub name. If unset, `model` is used with "
        "api `completions`; with api `chat` the server counts tokens, and until it has, they are estimated from "
        "the length of the text",
    )
    max_model_len: int | None = Field(
        default=None,
        ge=128,
        description="limit of prompt and guidance together, in tokens. If unset, the service's `max_model_len`",
    )
    continuation: Continuation = Field(
        default="none",
        description="api `chat`: way to make the model continue an answer. `flags`: vLLM's continue_final_message; `prefix`: "
        "`prefix: true` on the last message; `trailing`: a last message of the assistant is enough; `ask`: with "
        "the template `continue`; `none`: it cannot",
    )
    token_limit: Literal["max_completion_tokens", "max_tokens"] = Field(
        default="max_completion_tokens",
        description="api `chat`: name of the field that limits the answer; older servers use `max_tokens`",
    )
    extensions: bool = Field(
        default=False,
        description="api `chat`: send vLLM's extensions of OpenAI's API (top_k, min_p, usage in each chunk, ...)",
    )
    omit: tuple[Omitted, ...] = Field(
        default=(), description="api `chat`: fields that the server rejects and that are not sent"
    )
    extra_body: dict[str, Any] = Field(default={}, description="api `chat`: fields to add to each request")
    connect_s: Seconds = Field(default=5.0, description="deadline for the connection, in seconds")
    silence_s: Seconds = Field(
        default=120.0,
        description="deadline for the next data of a response, in seconds; includes the wait in the server's queue",
    )
    first_token_s: Seconds | None = Field(
        default=None,
        description="deadline for the first token, in seconds; then the next teacher is tried. If unset, `silence_s`",
    )
    cool_down_s: float = Field(
        default=5.0, ge=0, le=3600, description="seconds for which an unreachable teacher is skipped"
    )
    fallbacks: tuple[str, ...] | None = Field(
        default=None,
        description="names of the teachers to try if this one fails. If unset, all that follow in the file",
    )
    input_usd_per_million: Price | None = Field(
        default=None, description="price of a million prompt tokens in US dollars. If unset, the service's prices apply"
    )
    cached_input_usd_per_million: Price | None = Field(
        default=None,
        description="price of a million prompt tokens that the server had cached. If unset, the price of other prompt tokens",
    )
    output_usd_per_million: Price | None = Field(
        default=None, description="price of a million output tokens, reasoning included"
    )

    @field_validator("api")
    @classmethod
    def _known_or_importable(cls, api: str) -> str:
        if api not in APIS and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", api):
            raise ValueError(f"unknown api {api!r}; use {', '.join(APIS)} or package.module:function")
        return api

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.is_custom and (self.api == "vllm") != (self.url is None):
            raise ValueError(
                "url: required, except with api: vllm" if self.url is None else "url: not allowed with api: vllm"
            )
        if self.key_env and self.key_file:
            raise ValueError("key_env and key_file are both set; set only one of them")
        if (self.input_usd_per_million is None) != (self.output_usd_per_million is None):
            raise ValueError("only one of input_usd_per_million and output_usd_per_million is set; set both or none")
        if self.api != "chat":
            only_chat = {"continuation", "token_limit", "extensions", "omit", "extra_body"}
            if misplaced := sorted(only_chat & self.model_fields_set):
                raise ValueError(f"{', '.join(misplaced)}: only allowed with api: chat")
        return self

    @property
    def is_custom(self) -> bool:
        """True if `api` names a function that opens the teacher."""
        return ":" in self.api

    @property
    def upstream_model(self) -> str:
        return self.model or self.name

    @property
    def prices(self) -> Prices | None:
        """The teacher's prices, or None if the service's prices apply."""
        return Prices.of(
            self.input_usd_per_million,
            self.output_usd_per_million,
            cached_input_usd=self.cached_input_usd_per_million,
        )

    def key(self) -> str | None:
        """Return the bearer key. Raises ConfigurationError if its variable or file is missing."""
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
