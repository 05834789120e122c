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


class CloudSettings(ServiceSettings):
    """Raises ConfigurationError where fields contradict each other, pydantic's ValidationError where one is wrong by itself."""

    model_config = SettingsConfigDict(env_prefix="GKT_CLOUD_")

    host: str = Field(default="127.0.0.1", description="address to listen on; beyond loopback only with a key")
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="port of the same address for metrics alone, without a key; unset: they are at the API's `/metrics` only",
    )
    tls_cert_file: FilePath | None = Field(
        default=None, description="certificate (PEM) to serve HTTPS with; unset: HTTP"
    )
    tls_key_file: FilePath | None = Field(default=None, description="its private key (PEM)")
    tls_client_ca_file: FilePath | None = Field(
        default=None,
        description="authority (PEM) that has signed the certificate of whoever may connect; unset: anyone may",
    )
    keys: BearerKeys = Field(
        default=(), description="bearer keys, any of which lets a caller in; in the environment with commas between"
    )

    store_url: SecretStr | None = Field(
        default=None,
        description="database of keys, budgets and the ledger: `sqlite:////path/to/file` or `postgresql://user@host/name`; "
        "unset: only the keys above, and nothing is written down",
    )

    protected_labels: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas)] = Field(
        default=("production",),
        description="labels of the registry that only operator keys may move; in the environment with commas between",
    )

    model: str = Field(
        default="qwen2.5-coder-1.5b-instruct", description="catalogue name, GGUF path, model folder, or hub name"
    )
    teachers_file: FilePath | None = Field(
        default=None,
        description="YAML list of teachers by name, in the order in which they stand in for each other; unset: there is one, as "
        "the settings below say; an entry's keys are below",
    )
    upstream_url: str | None = Field(
        default=None,
        description="base URL (to /v1) of a server, by default one that completes token ids, as vLLM's does: it is the teacher, "
        "and no engine is started here; model then says whose tokenizer and chat template it has",
    )
    upstream_api: Literal["completions", "chat"] = Field(
        default="completions",
        description="`chat`: it is a server that takes conversations, as OpenAI's does; nothing is known of its tokenizer, and "
        "nothing is reviewed",
    )
    upstream_continuation: Continuation = Field(
        default="none",
        description="how a chat server is asked to go on with an answer: `flags` (vLLM), `prefix`, `trailing`, `ask`; `none`: "
        "such requests are refused; see `continuation` below",
    )
    upstream_key: SecretStr | None = Field(default=None, description="bearer key for upstream_url")
    upstream_model: str | None = Field(default=None, description="the model's name there; unset: model")

    dtype: str = Field(
        default="auto",
        pattern="^(auto|bfloat16|float16|float32)$",
        description="of weights and activations; auto: the model's own, but float32 on an x86 CPU without AVX-512",
    )
    max_model_len: int = Field(default=4096, ge=128, description="tokens of prompt and guidance together, at most")
    kv_cache_gib: float | None = Field(
        default=None, gt=0, description="GiB for the KV cache; unset: 1 on a CPU, what is left of its memory on a GPU"
    )

    engine_nice: int = Field(
        default=0, ge=0, le=19, description="niceness of the engine's processes, for a machine shared with others"
    )

    max_prompt_tokens: int = Field(default=3072, ge=1, description="tokens of a rendered prompt, at most")
    max_guidance_tokens: int = Field(default=1024, ge=1, description="budget a request may ask for, at most")
    max_running: int = Field(default=8, ge=1, le=4096, description="requests in the engine at once; more wait")
    max_queue: int = Field(
        default=16, ge=0, le=100_000, description="requests that may wait, fairly between keys; more get 503"
    )
    queue_deadline_s: float = Field(default=10.0, gt=0, description="they wait so long at most, then get 503")
    max_running_per_key: int | None = Field(
        default=None,
        ge=1,
        description="requests at once with the same key, where that has no limit of its own; more get 429; unset: no limit",
    )
    coalesce: Literal["off", "running", "cache"] = Field(
        default="running",
        description="greedy requests of a key that are alike: `running`: those at the same time are answered by one generation; "
        "`cache`: and later ones from what is kept; `off`: each has its own",
    )
    coalesce_across_keys: bool = Field(
        default=False, description="of different keys too, which so may learn by timing what others have asked"
    )
    response_cache_tokens: int = Field(
        default=100_000, ge=0, description="tokens of guidance kept, least recently used go first"
    )
    response_cache_ttl_s: float = Field(default=300.0, gt=0, description="guidance is kept so long")
    reused_response_price: Literal["free", "cached"] = Field(
        default="free",
        description="what guidance costs that is told again: nothing, or all its tokens as cached prompt tokens",
    )

    replay_file: str | None = Field(
        default=None,
        description="for evaluation: a file in which the teacher's words and scores are kept, and from which they are told again",
    )

    input_usd_per_million: float | None = Field(default=None, ge=0, description="price of prompt tokens")
    cached_input_usd_per_million: float | None = Field(
        default=None, ge=0, description="price of prompt tokens found in the prefix cache; unset: as any prompt token"
    )
    output_usd_per_million: float | None = Field(default=None, ge=0, description="price of the teacher's tokens")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.keys and not self.store_url and not _is_loopback(self.host):
            raise ConfigurationError(
                f"{self.host} can be reached from elsewhere: set GKT_CLOUD_KEYS or GKT_CLOUD_STORE_URL, or listen on 127.0.0.1"
            )
        if self.max_prompt_tokens >= self.max_model_len:
            raise ConfigurationError(
                f"max_prompt_tokens ({self.max_prompt_tokens}) leaves no room for guidance: "
                f"it must be below max_model_len ({self.max_model_len})"
            )
        if self.teachers_file and self.upstream_url:
            raise ConfigurationError("teachers_file and upstream_url: one of the two says where the teacher is")
        if (self.input_usd_per_million is None) != (self.output_usd_per_million is None):
            raise ConfigurationError("input_usd_per_million and output_usd_per_million are set together or not at all")
        if (self.tls_cert_file is None) != (self.tls_key_file is None) or (
            self.tls_client_ca_file and not self.tls_cert_file
        ):
            raise ConfigurationError(
                "tls_cert_file and tls_key_file are set together, and tls_client_ca_file with them"
            )
        if self.tls:
            self.tls.check()
        return self

    @property
    def tls(self) -> ServerTls | None:
        """None: plain HTTP."""
        if self.tls_cert_file is None or self.tls_key_file is None:
            return None
        return ServerTls(self.tls_cert_file, self.tls_key_file, self.tls_client_ca_file)

    @property
    def prices(self) -> Prices | None:
        """The operator's prices; None where there are none."""
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
        return False  # a name that may mean anything
