"""Bearer keys: how settings say them, and who has one."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from shared.errors import Unauthorized


def _split(value: Any) -> Any:
    return [key.strip() for key in value.split(",") if key.strip()] if isinstance(value, str) else value


def is_sendable(key: str) -> bool:
    """Whether a header can carry the key: printable ASCII without spaces, and not empty."""
    return key.isascii() and key.isprintable() and key != "" and " " not in key


def _sendable(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if not all(is_sendable(key.get_secret_value()) for key in keys):
        raise ValueError("a key is printable ASCII without spaces, and not empty")
    return keys


BearerKeys = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split), AfterValidator(_sendable)]
"""A setting: in the environment with commas between."""

ANYONE = "anyone"
"""Who calls where no keys are set."""


def bearer(authorization: str | None) -> str:
    """The key in an `Authorization` header. Raises Unauthorized where there is none."""
    scheme, _, key = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Unauthorized("a bearer key is needed: `Authorization: Bearer KEY`")
    return key.strip()


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
        given = _digest(bearer(authorization))
        found = [digest for digest in self._digests if hmac.compare_digest(digest, given)]
        if not found:
            raise Unauthorized("the bearer key is not known here")
        return found[0].hex()[:8]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
