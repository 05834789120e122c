"""The keyring with keys of the database and of the settings."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterable

from pydantic import SecretStr

from cloud_teacher.auth.caller import Caller
from cloud_teacher.auth.keyring import Keyring
from cloud_teacher.store.database import now_ms
from cloud_teacher.store.keys import Key, split
from shared.errors import NotReady, Unauthorized
from shared.server.bearer_keys import bearer

_NO_DIGEST = bytes(32)
_NO_CALLER = Caller("")


class StoredKeyring(Keyring):
    """Keeps all valid keys of a database in memory, beside those of the settings, and reloads them every second.

    Requests therefore need no query, even a flood of them with unknown keys, and known keys stay valid while the database is
    unreachable.
    """

    def __init__(self, keys: Iterable[SecretStr], load: Callable[[], Awaitable[list[Key]]]) -> None:
        keys = tuple(keys)
        super().__init__(keys)
        self._has_own = bool(keys)
        self._load = load
        self._known: dict[str, tuple[bytes, int | None, Caller]] | None = None

    def identify(self, authorization: str | None) -> Caller:
        parts = split(bearer(authorization))
        if parts is not None and self._known is not None:
            id_, digest = parts
            known, ends_ms, caller = self._known.get(id_, (_NO_DIGEST, 0, _NO_CALLER))
            # Compared even for an unknown id, so that the time does not reveal which ids exist.
            if hmac.compare_digest(known, digest) and (ends_ms is None or now_ms() < ends_ms):
                return caller
        if self._has_own:
            return super().identify(authorization)
        if self._known is None:
            raise NotReady("the API keys are still loading", retry_after_s=1)
        raise Unauthorized("invalid or expired API key")

    async def read(self) -> None:
        keys = await self._load()
        self._known = {
            secret.id: (secret.digest, secret.ends_ms(), key.caller) for key in keys for secret in key.secrets
        }
