"""The API keys of the settings. `cloud_teacher.store.keyring` adds those of a database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from pydantic import SecretStr

from cloud_teacher.auth.caller import Caller
from shared.server.bearer_keys import Keys

logger = logging.getLogger("gkt.cloud")

RELOAD_INTERVAL_S = 1.0
"""Reload interval. Key changes made elsewhere take effect within it."""


class Keyring:
    """Accepts the keys of the settings; without any, every caller is accepted."""

    def __init__(self, keys: Iterable[SecretStr]) -> None:
        self._keys = Keys(keys)

    def identify(self, authorization: str | None) -> Caller:
        """Return the caller of an Authorization header, in constant time. Raises Unauthorized."""
        return Caller(self._keys.identify(authorization))

    async def read(self) -> None:
        """Load the keys. Raises what the database raises."""

    async def refresh(self) -> None:
        """Reload the keys until cancelled."""
        while True:
            await asyncio.sleep(RELOAD_INTERVAL_S)
            try:
                await self.read()
            except Exception as error:  # noqa: BLE001 - a database may raise anything
                logger.error("the API keys cannot be reloaded: %s", type(error).__name__)
