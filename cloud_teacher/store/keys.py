"""Creates, lists, revokes and rotates the keys in the database.

Clients send `gkt_ID_SECRET`. Only the SHA-256 of the secret is stored. The secret has 256 random bits, too many to guess, so it
does not need the slow hashes that passwords need.
"""

from __future__ import annotations

import hashlib
import re
import secrets as random
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, Engine, RowMapping, select

from cloud_teacher.auth.caller import Allowance, Caller, Role
from cloud_teacher.store.database import now_ms, reading
from cloud_teacher.store.tables import keys, secrets
from shared.errors import ConfigurationError
from shared.server.bearer_keys import ANYONE

PREFIX = "gkt_"
NAME = re.compile(r"[A-Za-z][\w.-]{0,63}", re.ASCII)
RESERVED_NAME = re.compile(rf"[0-9a-f]{{8}}|{ANYONE}")
"""Names of callers whose key is not in the database."""


@dataclass(frozen=True, slots=True)
class Secret:
    """The stored part of a secret. Times are in milliseconds since 1970."""

    id: str
    key: str
    digest: bytes
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None

    def ends_ms(self) -> int | None:
        """Return the time at which the secret stops being valid, or None."""
        ends = [at for at in (self.expires_ms, self.revoked_ms) if at is not None]
        return min(ends, default=None)

    def is_valid(self, at_ms: int) -> bool:
        ends = self.ends_ms()
        return ends is None or at_ms < ends


@dataclass(frozen=True, slots=True)
class Key:
    caller: Caller
    created_ms: int
    secrets: tuple[Secret, ...]
    """Oldest first."""


def split(key: str) -> tuple[str, bytes] | None:
    """Return the id and the digest of a key, or None if it does not have the format."""
    id_, _, _ = key.removeprefix(PREFIX).partition("_")
    return (id_, digest(key)) if key.startswith(PREFIX) and id_ else None


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def create(
    engine: Engine, name: str, allowance: Allowance, *, role: Role = Role.VIEWER, lifetime_ms: int | None = None
) -> str:
    """Create a key and return it. It cannot be read again. Raises ConfigurationError."""
    if not NAME.fullmatch(name) or RESERVED_NAME.fullmatch(name):
        raise ConfigurationError(
            f"invalid key name {name!r}; use a letter, then up to 63 letters, digits, `.`, `_` or `-`"
        )
    with engine.begin() as connection:
        if connection.scalar(select(keys.c.name).where(keys.c.name == name)):
            raise ConfigurationError(f"a key named {name!r} exists or existed before; rotate it, or use another name")
        connection.execute(keys.insert().values(name=name, role=role, created_ms=now_ms(), **asdict(allowance)))
        return _add_secret(connection, name, lifetime_ms)


def rotate(engine: Engine, name: str, *, grace_ms: int, lifetime_ms: int | None = None) -> str:
    """Return a new secret for a key. Its old ones stay valid for `grace_ms`. Raises ConfigurationError."""
    with engine.begin() as connection:
        now = now_ms()
        old = [secret for secret in _secrets(connection, name) if secret.is_valid(now)]
        if not old:
            raise ConfigurationError(f"no valid key named {name!r}")
        for secret in old:
            ends = secret.ends_ms()
            ends = now + grace_ms if ends is None else min(ends, now + grace_ms)
            connection.execute(secrets.update().where(secrets.c.id == secret.id).values(expires_ms=ends))
        return _add_secret(connection, name, lifetime_ms)


def revoke(engine: Engine, name: str, *, secret_id: str | None = None) -> int:
    """Revoke a key, or one of its secrets, and return the number of revoked secrets. Raises ConfigurationError."""
    with engine.begin() as connection:
        now = now_ms()
        found = [secret for secret in _secrets(connection, name) if secret_id in {None, secret.id}]
        if not found:
            raise ConfigurationError(f"no key named {name!r}" + (f" with a secret {secret_id!r}" if secret_id else ""))
        ended = [secret.id for secret in found if secret.is_valid(now)]
        connection.execute(secrets.update().where(secrets.c.id.in_(ended)).values(revoked_ms=now))
        return len(ended)


def list_keys(engine: Engine, *, valid_only: bool = False) -> list[Key]:
    """Return all keys by name, or only valid secrets and the keys that have one."""
    now = now_ms()
    with reading(engine).begin() as connection:
        # In this order, since a key is inserted before its secrets.
        found = connection.execute(select(secrets).order_by(secrets.c.created_ms)).mappings().all()
        rows = connection.execute(select(keys).order_by(keys.c.name)).mappings().all()
    by_name: dict[str, list[Secret]] = {}
    for secret in map(_secret, found):
        if secret.is_valid(now) or not valid_only:
            by_name.setdefault(secret.key, []).append(secret)
    return [
        Key(_caller(row), row["created_ms"], tuple(by_name.get(row["name"], ())))
        for row in rows
        if not valid_only or row["name"] in by_name
    ]


def _add_secret(connection: Connection, name: str, lifetime_ms: int | None) -> str:
    now = now_ms()
    id_ = random.token_hex(6)
    key = f"{PREFIX}{id_}_{random.token_urlsafe(32)}"
    expires = None if lifetime_ms is None else now + lifetime_ms
    connection.execute(
        secrets.insert().values(id=id_, key=name, digest=digest(key), created_ms=now, expires_ms=expires)
    )
    return key


def _secrets(connection: Connection, name: str) -> Sequence[Secret]:
    query = select(secrets).where(secrets.c.key == name).order_by(secrets.c.created_ms).with_for_update()
    return [_secret(row) for row in connection.execute(query).mappings()]


def _secret(row: RowMapping) -> Secret:
    return Secret(**row)


def _caller(row: RowMapping) -> Caller:
    limits = {name: row[name] for name in Allowance.__dataclass_fields__}
    return Caller(row["name"], Role(row["role"]), Allowance(**limits))
