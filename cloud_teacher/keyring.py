"""Which keys let a caller in: those of the settings, and those of the database."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from pydantic import SecretStr

from cloud_teacher.caller import Caller
from shared.errors import NotReady, Unauthorized
from shared.keys import Keys, bearer

if TYPE_CHECKING:
    from cloud_teacher.store.keys import Key

logger = logging.getLogger("gkt.cloud")

REFRESH_EVERY_S = 1.0
"""So long at most, and the time of a query, does a key that was revoked, made or rotated elsewhere stay unnoticed here."""

_NO_DIGEST = bytes(32)
NOBODY = Caller("")


class Keyring:
    """The keys of the settings alone; with none of them, everyone may call."""

    def __init__(self, keys: Iterable[SecretStr]) -> None:
        self._keys = Keys(keys)

    def identify(self, authorization: str | None) -> Caller:
        """Who this is. Takes equally long whichever key it is, or none. Raises Unauthorized."""
        return Caller(self._keys.identify(authorization))

    async def read(self) -> None:
        """Learn which keys there are now. Raises what the database raises."""

    async def refresh(self) -> None:
        """Keep up with changes until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_EVERY_S)
            try:
                await self.read()
            except Exception as error:  # noqa: BLE001 - whatever a database can say
                logger.error("the keys cannot be read again: %s", type(error).__name__)


class StoredKeyring(Keyring):
    """Keys of a database beside those of the settings: all that work are kept here, and read again each second.

    So a request asks no database, a flood of unknown keys neither, and while the database is away those who were let in
    still are.
    """

    def __init__(self, keys: Iterable[SecretStr], load: Callable[[], Awaitable[list[Key]]]) -> None:
        keys = tuple(keys)
        super().__init__(keys)
        self._has_own = bool(keys)
        self._load = load
        self._known: dict[str, tuple[bytes, int | None, Caller]] | None = None

    def identify(self, authorization: str | None) -> Caller:
        from cloud_teacher.store.database import now_ms
        from cloud_teacher.store.keys import split

        parts = split(bearer(authorization))
        if parts is not None and self._known is not None:
            id_, digest = parts
            known, ends_ms, caller = self._known.get(id_, (_NO_DIGEST, 0, NOBODY))
            # Compared even where there is no such id, so that the time tells nothing about which ids there are.
            if hmac.compare_digest(known, digest) and (ends_ms is None or now_ms() < ends_ms):
                return caller
        if self._has_own:
            return super().identify(authorization)
        if self._known is None:
            raise NotReady("the keys are being read", retry_after_s=1)
        raise Unauthorized("the bearer key is not known here, or works no more")

    async def read(self) -> None:
        keys = await self._load()
        self._known = {
            secret.id: (secret.digest, secret.ends_ms(), key.caller) for key in keys for secret in key.secrets
        }
