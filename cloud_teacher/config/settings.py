"""The cloud's settings, from the environment (`GKT_CLOUD_...`) or code. Frozen once read."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, FilePath, SecretStr, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from cloud_teacher.config.teacher import Continuation
from shared.errors import ConfigurationError
from shared.prices import Prices
from shared.server.bearer_keys import BearerKeys, split_commas
from shared.server.settings import ServiceSettings
from shared.server.tls import ServerTls


class TeacherSettings(ServiceSettings):
    """The teacher of a cloud: its model and engine, or the server that it is."""

    model_config = SettingsConfigDict(env_prefix="GKT_CLOUD_")

    model: str = Field(
        default="qwen2.5-coder-1.5b-instruct",
        description="model of the teacher: catalogue name, GGUF path, model folder, or hub name",
    )
    teachers_file: FilePath | None = Field(
        default=None,
        description="YAML list of teachers, in the order in which they stand in for each other; the keys of an entry are "
        "below. If unset, the settings below describe the only teacher",
    )
    upstream_url: str | None = Field(
        default=None,
        description="base URL (to /v1) of a server that is the teacher instead of an engine in this process; `model` then "
        "names the tokenizer and chat template",
    )
    upstream_api: Literal["completions", "chat"] = Field(
        default="completions",
        description="API of the upstream server. `completions`: takes token ids, as vLLM does; `chat`: takes conversations, "
        "as OpenAI does, and cannot review",
    )
    upstream_continuation: Continuation = Field(
        default="none",
        description="way to make a chat server continue an answer: `flags` (vLLM), `prefix`, `trailing` or `ask`, described "
        "at `continuation` below. With `none` such requests are rejected",
    )
    upstream_key: SecretStr | None = Field(default=None, description="bearer key for the upstream server")
    upstream_model: str | None = Field(
        default=None, description="name of the model at the upstream server. If unset, `model`"
    )

    dtype: str = Field(
        default="auto",
        pattern="^(auto|bfloat16|float16|float32)$",
        description="data type of weights and activations; `auto` is the model's own, or float32 on an x86 CPU without "
        "AVX-512",
    )
    max_model_len: int = Field(default=4096, ge=128, description="limit of prompt and guidance together, in tokens")
    kv_cache_gib: float | None = Field(
        default=None, gt=0, description="size of the KV cache in GiB. If unset, 1 on a CPU and the free memory on a GPU"
    )

    engine_nice: int = Field(
        default=0, ge=0, le=19, description="niceness of the engine's processes, for a machine shared with other work"
    )


class CloudSettings(TeacherSettings):
    """The settings of one cloud.

    Raises pydantic's ValidationError if a field is invalid, ConfigurationError if fields contradict each other.
    """

    host: str = Field(default="127.0.0.1", description="address to listen on; addresses beyond loopback need a key")
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="port of a second server for `/metrics` alone, at the same address and without a key. If unset, only the "
        "API's port has `/metrics`",
    )
    tls_cert_file: FilePath | None = Field(
        default=None, description="certificate (PEM) of the HTTPS server. If unset, plain HTTP"
    )
    tls_key_file: FilePath | None = Field(default=None, description="private key (PEM) of the certificate")
    tls_client_ca_file: FilePath | None = Field(
        default=None,
        description="certificate authority (PEM) that signs client certificates, which are then required (mutual TLS). If "
        "unset, clients need no certificate",
    )
    keys: BearerKeys = Field(
        default=(), description="bearer keys that are accepted, separated by commas in the environment"
    )

    store_url: SecretStr | None = Field(
        default=None,
        description="database of keys, budgets and the ledger: `sqlite:////path/to/file` or `postgresql://user@host/name`. If "
        "unset, only GKT_CLOUD_KEYS are accepted and usage is not recorded",
    )

    protected_labels: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas)] = Field(
        default=("production",),
        description="labels of the registry that only operator keys may move; in the environment with commas between",
    )

    max_prompt_tokens: int = Field(default=3072, ge=1, description="limit of a rendered prompt, in tokens")
    max_guidance_tokens: int = Field(default=1024, ge=1, description="limit of the guidance of a request, in tokens")
    max_running: int = Field(
        default=8, ge=1, le=4096, description="number of requests in the engine at once; further ones wait"
    )
    max_queue: int = Field(
        default=16,
        ge=0,
        le=100_000,
        description="number of requests that may wait, fairly between keys; further ones get status 503",
    )
    queue_deadline_s: float = Field(
        default=10.0, gt=0, description="seconds that a request may wait before it gets status 503"
    )
    max_running_per_key: int | None = Field(
        default=None,
        ge=1,
        description="number of open requests with the same key, for keys without a limit of their own; further ones get "
        "status 429. If unset, no limit",
    )
    coalesce: Literal["off", "running", "cache"] = Field(
        default="running",
        description="reuse of responses for identical greedy requests of one key. `running`: identical requests at the same "
        "time share one generation; `cache`: later ones read it from a cache too; `off`: each has its own",
    )
    coalesce_across_keys: bool = Field(
        default=False,
        description="reuse responses across keys too; clients can then learn by timing what others have asked",
    )
    response_cache_tokens: int = Field(
        default=100_000,
        ge=0,
        description="size of the response cache in tokens; the least recently used responses are dropped first",
    )
    response_cache_ttl_s: float = Field(
        default=300.0, gt=0, description="seconds after which a cached response expires"
    )
    reused_response_price: Literal["free", "cached"] = Field(
        default="free",
        description="price of a reused response: free, or billed as cached input tokens",
    )

    replay_file: str | None = Field(
        default=None,
        description="file that records the teacher's output and scores and replays them, for evaluation",
    )

    input_usd_per_million: float | None = Field(
        default=None, ge=0, description="price of a million prompt tokens in US dollars"
    )
    cached_input_usd_per_million: float | None = Field(
        default=None,
        ge=0,
        description="price of a million prompt tokens found in the prefix cache. If unset, the price of other prompt tokens",
    )
    output_usd_per_million: float | None = Field(default=None, ge=0, description="price of a million output tokens")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.keys and not self.store_url and not _is_loopback(self.host):
            raise ConfigurationError(
                f"host {self.host} is not a loopback address; set GKT_CLOUD_KEYS or GKT_CLOUD_STORE_URL, or listen on 127.0.0.1"
            )
        if self.max_prompt_tokens >= self.max_model_len:
            raise ConfigurationError(
                f"max_prompt_tokens is {self.max_prompt_tokens}; it must be below max_model_len, which is {self.max_model_len}"
            )
        if self.teachers_file and self.upstream_url:
            raise ConfigurationError("teachers_file and upstream_url are both set; set only one of them")
        if (self.input_usd_per_million is None) != (self.output_usd_per_million is None):
            raise ConfigurationError(
                "only one of input_usd_per_million and output_usd_per_million is set; set both or none"
            )
        if (self.tls_cert_file is None) != (self.tls_key_file is None) or (
            self.tls_client_ca_file and not self.tls_cert_file
        ):
            raise ConfigurationError(
                "tls_cert_file and tls_key_file must be set together, and tls_client_ca_file only with them"
            )
        if self.tls:
            self.tls.check()
        return self

    @property
    def tls(self) -> ServerTls | None:
        """Files of the HTTPS server, or None for plain HTTP."""
        if self.tls_cert_file is None or self.tls_key_file is None:
            return None
        return ServerTls(self.tls_cert_file, self.tls_key_file, self.tls_client_ca_file)

    @property
    def prices(self) -> Prices | None:
        """The operator's prices, or None if they are unset."""
        return Prices.of(
            self.input_usd_per_million,
            self.output_usd_per_million,
            cached_input_usd=self.cached_input_usd_per_million,
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name may resolve to any address
