"""Keys in the database: made, listed, revoked, rotated.

What a caller sends is `gkt_ID_SECRET`. Of the secret only its SHA-256 is kept: it has 256 random bits, which nobody can try
out, so the slow hashes that passwords need would only cost time at each request.
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

START = "gkt_"
NAME = re.compile(r"[A-Za-z][\w.-]{0,63}", re.ASCII)
TAKEN = re.compile(rf"[0-9a-f]{{8}}|{ANYONE}")
"""What callers without a key of their own here are called."""


@dataclass(frozen=True, slots=True)
class Secret:
    """What may be known of a secret once it was shown. Instants are milliseconds since 1970."""

    id: str
    key: str
    digest: bytes
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None

    def ends_ms(self) -> int | None:
        """When it stops, or stopped, to let anybody in; None: never."""
        ends = [at for at in (self.expires_ms, self.revoked_ms) if at is not None]
        return min(ends, default=None)

    def works(self, at_ms: int) -> bool:
        ends = self.ends_ms()
        return ends is None or at_ms < ends


@dataclass(frozen=True, slots=True)
class Key:
    caller: Caller
    created_ms: int
    secrets: tuple[Secret, ...]
    """Oldest first."""


def split(key: str) -> tuple[str, bytes] | None:
    """The id and the digest of what a caller sent; None where it is not one of ours."""
    id_, _, _ = key.removeprefix(START).partition("_")
    return (id_, digest(key)) if key.startswith(START) and id_ else None


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def create(
    engine: Engine, name: str, allowance: Allowance, *, role: Role = Role.VIEWER, lasts_ms: int | None = None
) -> str:
    """Make a key; what its caller has to send is returned, and kept nowhere. Raises ConfigurationError."""
    if not NAME.fullmatch(name) or TAKEN.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot be a key's name: a letter, then up to 63 letters, digits, `.`, `_`, `-`"
        )
    with engine.begin() as connection:
        if connection.scalar(select(keys.c.name).where(keys.c.name == name)):
            raise ConfigurationError(f"there is, or was, a key {name}: rotate it, or take another name")
        connection.execute(keys.insert().values(name=name, role=role, created_ms=now_ms(), **asdict(allowance)))
        return _add_secret(connection, name, lasts_ms)


def rotate(engine: Engine, name: str, *, overlap_ms: int, lasts_ms: int | None = None) -> str:
    """A new secret for a key, whose old ones end after `overlap_ms`. Raises ConfigurationError."""
    with engine.begin() as connection:
        now = now_ms()
        old = [secret for secret in _secrets(connection, name) if secret.works(now)]
        if not old:
            raise ConfigurationError(f"there is no key {name} that works")
        for secret in old:
            ends = secret.ends_ms()
            ends = now + overlap_ms if ends is None else min(ends, now + overlap_ms)
            connection.execute(secrets.update().where(secrets.c.id == secret.id).values(expires_ms=ends))
        return _add_secret(connection, name, lasts_ms)


def revoke(engine: Engine, name: str, *, secret_id: str | None = None) -> int:
    """End a key, or one secret of it, now. How many secrets that ended. Raises ConfigurationError where there is none such."""
    with engine.begin() as connection:
        now = now_ms()
        found = [secret for secret in _secrets(connection, name) if secret_id in {None, secret.id}]
        if not found:
            raise ConfigurationError(f"there is no key {name}" + (f" with a secret {secret_id}" if secret_id else ""))
        ended = [secret.id for secret in found if secret.works(now)]
        connection.execute(secrets.update().where(secrets.c.id.in_(ended)).values(revoked_ms=now))
        return len(ended)


def every(engine: Engine, *, working: bool = False) -> list[Key]:
    """All keys by name; `working`: only the secrets that let somebody in now, and the keys that have one."""
    now = now_ms()
    with reading(engine).begin() as connection:
        # In this order: a key is there before its secrets are.
        found = connection.execute(select(secrets).order_by(secrets.c.created_ms)).mappings().all()
        rows = connection.execute(select(keys).order_by(keys.c.name)).mappings().all()
    by_name: dict[str, list[Secret]] = {}
    for secret in map(_secret, found):
        if secret.works(now) or not working:
            by_name.setdefault(secret.key, []).append(secret)
    return [
        Key(_caller(row), row["created_ms"], tuple(by_name.get(row["name"], ())))
        for row in rows
        if not working or row["name"] in by_name
    ]


def _add_secret(connection: Connection, name: str, lasts_ms: int | None) -> str:
    now = now_ms()
    id_ = random.token_hex(6)
    key = f"{START}{id_}_{random.token_urlsafe(32)}"
    expires = None if lasts_ms is None else now + lasts_ms
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
