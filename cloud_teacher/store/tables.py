"""The tables. Money is in whole billionths of a dollar, so sums are exact. Times are milliseconds since 1970; days are UTC."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
)

metadata = MetaData()

keys = Table(
    "keys",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("weight", Float, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("max_running", Integer),
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", BigInteger),
    Column("daily_tokens", BigInteger),
    Column("daily_nano_usd", BigInteger),
    Column("created_ms", BigInteger, nullable=False),
)
"""Keys and their limits. A revoked key keeps its row, so that its name is never given to another caller."""

secrets = Table(
    "secrets",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("key", String(64), ForeignKey("keys.name"), nullable=False, index=True),
    Column("digest", LargeBinary(32), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),
    Column("revoked_ms", BigInteger),
)
"""Hashed secrets. A key has two while it is rotated."""

ledger = Table(
    "ledger",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("request_id", String(128), nullable=False),
    Column("key", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("model", String(255), nullable=False),
    Column("template", String(255), nullable=False),
    Column("day", Date, nullable=False),
    Column("arrived_ms", BigInteger, nullable=False),
    Column("queue_ms", Float),
    Column("first_token_ms", Float),
    Column("total_ms", Float, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("reused_tokens", Integer, nullable=False),
    Column("finish_reason", String(64), nullable=False),
    Column("reused", String(16)),
    Column("cost_nano_usd", BigInteger, nullable=False),
    Column("estimated", Boolean, nullable=False, server_default=false()),
    Index("ix_ledger_key_day", "key", "day"),
)
"""One row per request. For a reused response `reused` is its kind, and the request's own tokens are 0. `estimated` is set if the
upstream server sent no count of the tokens."""

days = Table(
    "days",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("day", Date, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("reused_requests", BigInteger, nullable=False),
    Column("reused_tokens", BigInteger, nullable=False),
    Column("cost_nano_usd", BigInteger, nullable=False),
)
"""Daily sums of the ledger, updated in the same transactions, so that budgets and reports do not add up all rows of a day."""

reservations = Table(
    "reservations",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("key", String(64), nullable=False),
    Column("day", Date, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("nano_usd", BigInteger, nullable=False),
    Column("replica", String(32), nullable=False, index=True),
    Column("expires_ms", BigInteger, nullable=False),
    Index("ix_reservations_key_day", "key", "day"),
)
"""Upper bounds of running requests whose keys have a daily budget. Those of a replica that was killed expire."""

registry_versions = Table(
    "registry_versions",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("content", Text, nullable=False),
    Column("author", String(64), nullable=False),
    Column("message", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
"""Templates and policies. A row never changes."""

registry_moves = Table(
    "registry_moves",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),
    Column("name", String(64), nullable=False),
    Column("label", String(36), nullable=False),
    Column("from_version", Integer),
    Column("to_version", Integer),
    Column("author", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("moved_ms", BigInteger, nullable=False),
    Index("ix_registry_moves_label", "kind", "name", "label"),
)
"""Moves of labels, appended only. A label points to the target of its newest move; without a target it is removed."""

registry_revision = Table(
    "registry_revision",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
)
"""One row, whose number grows with each change, so that replicas see a change with one cheap query."""
