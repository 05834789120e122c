"""Which keys let a caller in: those of the settings. `cloud_teacher.store.keyring` adds those of the database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from pydantic import SecretStr

from cloud_teacher.auth.caller import Caller
from shared.server.bearer_keys import Keys

logger = logging.getLogger("gkt.cloud")

REFRESH_EVERY_S = 1.0
"""So long at most, and the time of a query, does a key that was revoked, made or rotated elsewhere stay unnoticed here."""


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
