"""The edge's settings, from the environment (`GKT_EDGE_...`) or code. Frozen once read."""

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

MOST_KEPT = 128
"""Sequences that may be kept for their beginnings."""


class EdgeSettings(PolicyFields, ServiceSettings):
    """Settings of one edge. The policy fields are those of requests and policy files."""

    model_config = SettingsConfigDict(env_prefix="GKT_EDGE_")

    port: int = Field(default=8081, ge=0, le=65535, description="port to listen on; 0 takes a free one")

    api_keys: BearerKeys = Field(
        default=(),
        description="bearer keys, any of which lets a client in, in the environment with commas between; unset: anyone may ask",
    )

    model: str = Field(default="qwen2.5-coder-0.5b-instruct", description="catalogue name, GGUF path, or hub name")
    context_tokens: int = Field(default=4096, ge=128, description="prompt, guidance and answer together, at most")
    kv_cache_tokens: int | None = Field(
        default=None, ge=128, description="tokens of KV cache that all sequences share; unset: as many as one context"
    )
    max_sequences: int = Field(
        default_factory=lambda: min(64, 4 * (os.cpu_count() or 1)),
        ge=1,
        le=128,
        description="answers computed at once; unset: four for each core, 64 at most",
    )
    prefix_cache_sequences: int | None = Field(
        default=None,
        ge=0,
        le=MOST_KEPT,
        description="answers whose computed tokens are kept for prompts that begin the same, least recently used go first; "
        f"0: prompts share nothing; unset: twice as many as are computed at once, {MOST_KEPT} at most",
    )
    max_queue: int = Field(default=64, ge=0, description="answers that may wait beyond those; more get 503")
    batch_tokens: int = Field(default=256, ge=16, le=8192, description="tokens computed in one step, at most")
    prefill_chunk_tokens: int = Field(
        default=128, ge=1, le=8192, description="prompt tokens in a step in which others are decoding"
    )
    threads: int | None = Field(default=None, ge=1, le=512, description="compute threads; unset: as many as cores")
    prefill_after_teacher: bool = Field(
        default=False,
        description="for an edge on the cloud's own machine: leave the cores to the teacher until its first word",
    )
    engine_nice: int = Field(
        default=0, ge=0, le=19, description="niceness of the engine's threads, for a machine shared with others"
    )

    policy_file: str | None = Field(
        default=None,
        description="policy file, as `gkt tune` writes it. Its values apply to the policy settings that are not set here",
    )
    draft_ahead: bool = Field(
        default=True, description="mode `review`: the student writes the next step while the teacher reads the last one"
    )
    teacher_max_tokens: int = Field(
        default=1024,
        ge=1,
        description="the teacher's tokens in mode `teacher` where the request sets no max_tokens; at most what the cloud allows",
    )
    expand_template: str = Field(
        default="expand",
        description="mode `outline`: template that puts the teacher's outline into the student's prompt",
    )
    default_temperature: float = Field(
        default=0.0,
        ge=0,
        le=2,
        description="where a request sets none: 0, so that the same question has the same answer",
    )
    max_choices: int = Field(default=8, ge=1, le=128, description="`n` of a request, at most")

    cloud_url: str | None = Field(default=None, description="base URL of the cloud; unset: the student works alone")
    cloud_key: SecretStr | None = Field(default=None, description="bearer key for the cloud")
    cloud_ca_file: FilePath | None = Field(
        default=None,
        description="authority (PEM) that has signed the cloud's certificate; unset: those the system trusts",
    )
    cloud_cert_file: FilePath | None = Field(
        default=None, description="certificate (PEM) for a cloud that wants one of its clients (mutual TLS)"
    )
    cloud_cert_key_file: FilePath | None = Field(default=None, description="its private key (PEM)")
    connect_deadline_s: float = Field(default=2.0, gt=0, description="to reach the cloud")
    first_token_deadline_s: float = Field(
        default=5.0, gt=0, description="from the request to the teacher's first token; then the student starts alone"
    )
    fallback_prefetch_s: float = Field(
        default=0.5,
        ge=0,
        description="so long before that the student begins to write, unseen, so that its words are there when the deadline "
        "passes; dropped if the teacher's come after all; 0: it waits",
    )
    next_token_deadline_s: float = Field(
        default=2.0, gt=0, description="between two tokens of the teacher; then the student goes on"
    )
    breaker_failures: int = Field(
        default=3,
        ge=1,
        description="failures in a row after which the cloud is left alone; a deadline in which nobody heard of it is enough",
    )
    breaker_open_s: float = Field(default=10.0, gt=0, description="for so long, until one request tries again")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.cloud_tls()
        return self

    @property
    def fallback_prefetch_after_s(self) -> float | None:
        """From a request on. Half of the deadline is the teacher's alone, however short it is."""
        deadline_s = self.first_token_deadline_s
        return max(deadline_s - self.fallback_prefetch_s, deadline_s / 2) if self.fallback_prefetch_s else None

    def cloud_tls(self) -> ssl.SSLContext | None:
        """How the cloud is checked; None: as httpx does it by itself. Raises ConfigurationError."""
        return client_context(self.cloud_ca_file, self.cloud_cert_file, self.cloud_cert_key_file)
