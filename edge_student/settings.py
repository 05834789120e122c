"""The edge's settings, from the environment (`GKT_EDGE_...`) or from code. Instances are frozen."""

from __future__ import annotations

import os
import ssl
from typing import Self

from pydantic import Field, FilePath, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from shared.protocol.gkt import PolicyFields
from shared.server.bearer_keys import BearerKeys
from shared.server.settings import ServiceSettings
from shared.server.tls import client_context

MAX_CACHED_SEQUENCES = 128
"""Most sequences whose tokens stay in the prefix cache."""


class EdgeSettings(PolicyFields, ServiceSettings):
    """Settings of one edge. The policy fields are those of requests and policy files."""

    model_config = SettingsConfigDict(env_prefix="GKT_EDGE_")

    port: int = Field(default=8081, ge=0, le=65535, description="port to listen on. At 0 the system chooses a free one")

    api_keys: BearerKeys = Field(
        default=(),
        description="bearer keys of clients; in the environment, separated by commas. If unset, no key is required",
    )

    model: str = Field(
        default="qwen2.5-coder-0.5b-instruct", description="student: a catalogue name, GGUF path or hub name"
    )
    context_tokens: int = Field(default=4096, ge=128, description="most tokens of prompt, guidance and answer together")
    kv_cache_tokens: int | None = Field(
        default=None,
        ge=128,
        description="tokens of KV cache that all sequences share. If unset, as many as `context_tokens`",
    )
    max_sequences: int = Field(
        default_factory=lambda: min(64, 4 * (os.cpu_count() or 1)),
        ge=1,
        le=128,
        description="most answers computed at once. If unset, four for each core, up to 64",
    )
    prefix_cache_sequences: int | None = Field(
        default=None,
        ge=0,
        le=MAX_CACHED_SEQUENCES,
        description="finished answers whose tokens stay in the KV cache for prompts with the same prefix, least recently used "
        f"evicted first. 0 disables prefix reuse. If unset, twice `max_sequences`, up to {MAX_CACHED_SEQUENCES}",
    )
    max_queue: int = Field(
        default=64, ge=0, description="most answers that wait beyond `max_sequences`. Further requests get status 503"
    )
    batch_tokens: int = Field(default=256, ge=16, le=8192, description="most tokens computed in one step")
    prefill_chunk_tokens: int = Field(
        default=128, ge=1, le=8192, description="most prompt tokens in a step in which other sequences decode"
    )
    threads: int | None = Field(
        default=None, ge=1, le=512, description="compute threads. If unset, the number of cores"
    )
    prefill_after_teacher: bool = Field(
        default=False,
        description="start the student's prefill only after the teacher's first token: leaves the cores to the teacher if edge "
        "and cloud share a machine",
    )
    engine_nice: int = Field(
        default=0, ge=0, le=19, description="niceness of the engine's threads, for a machine shared with others"
    )

    policy_file: str | None = Field(
        default=None,
        description="policy file, as `gkt tune` writes it. Its values apply to the policy settings that are not set here",
    )
    draft_ahead: bool = Field(
        default=True, description="mode `review`: write the next draft while the teacher reads the last one"
    )
    teacher_max_tokens: int = Field(
        default=1024,
        ge=1,
        description="most teacher tokens in mode `teacher` if the request sets no `max_tokens`. The cloud has a limit of its own",
    )
    expand_template: str = Field(
        default="expand",
        description="mode `outline`: template that puts the teacher's outline into the student's prompt",
    )
    default_temperature: float = Field(
        default=0.0,
        ge=0,
        le=2,
        description="temperature of requests that set none. At 0 the same question gets the same answer",
    )
    max_choices: int = Field(default=8, ge=1, le=128, description="largest `n` that a request may set")

    cloud_url: str | None = Field(
        default=None, description="base URL of the cloud. If unset, the student answers alone"
    )
    cloud_key: SecretStr | None = Field(default=None, description="bearer key for the cloud")
    cloud_ca_file: FilePath | None = Field(
        default=None,
        description="certificate authority (PEM) of the cloud's certificate. If unset, the system's authorities",
    )
    cloud_cert_file: FilePath | None = Field(
        default=None, description="client certificate (PEM) for a cloud that requires one (mutual TLS)"
    )
    cloud_cert_key_file: FilePath | None = Field(default=None, description="private key (PEM) of `cloud_cert_file`")
    connect_deadline_s: float = Field(default=2.0, gt=0, description="deadline of connecting to the cloud")
    first_token_deadline_s: float = Field(
        default=5.0,
        gt=0,
        description="deadline from the request to the teacher's first token. When it passes, the student answers alone",
    )
    fallback_prefetch_s: float = Field(
        default=0.5,
        ge=0,
        description="start decoding locally this many seconds before that deadline; discarded if guidance arrives. 0 disables",
    )
    next_token_deadline_s: float = Field(
        default=2.0,
        gt=0,
        description="deadline between two teacher tokens. When it passes, the student continues the answer",
    )
    breaker_failures: int = Field(
        default=3,
        ge=1,
        description="consecutive failures that open the circuit breaker. A first-token deadline without a byte from the cloud "
        "opens it at once",
    )
    breaker_open_s: float = Field(
        default=10.0, gt=0, description="time for which the breaker stays open before one request tries the cloud again"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.cloud_tls()
        return self

    @property
    def cached_sequences(self) -> int:
        """`prefix_cache_sequences`, or its default."""
        if self.prefix_cache_sequences is None:
            return min(MAX_CACHED_SEQUENCES, 2 * self.max_sequences)
        return self.prefix_cache_sequences

    @property
    def fallback_prefetch_after_s(self) -> float | None:
        """Seconds from a request to the start of local decoding, at least half of the deadline. None disables it."""
        deadline_s = self.first_token_deadline_s
        return max(deadline_s - self.fallback_prefetch_s, deadline_s / 2) if self.fallback_prefetch_s else None

    def cloud_tls(self) -> ssl.SSLContext | None:
        """Return the TLS context for the cloud, or None for httpx's default. Raises ConfigurationError."""
        return client_context(self.cloud_ca_file, self.cloud_cert_file, self.cloud_cert_key_file)
