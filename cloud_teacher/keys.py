"""Bearer keys."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from pydantic import SecretStr

from shared.errors import Unauthorized

ANYONE = "anyone"
"""Who calls where no keys are set."""


class Keys:
    """The keys that let a caller in. Without any, everyone may."""

    def __init__(self, keys: Iterable[SecretStr]) -> None:
        self._digests = [_digest(key.get_secret_value()) for key in keys]

    def identify(self, authorization: str | None) -> str:
        """Who this is: a short name of the key, fit for logs. Takes equally long whichever key it is, or none.

        Raises Unauthorized.
        """
        if not self._digests:
            return ANYONE
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise Unauthorized("a bearer key is needed: `Authorization: Bearer KEY`")
        given = _digest(key.strip())
        found = [digest for digest in self._digests if hmac.compare_digest(digest, given)]
        if not found:
            raise Unauthorized("the bearer key is not known here")
        return found[0].hex()[:8]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
