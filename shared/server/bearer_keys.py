"""Bearer keys: their type in settings, and their check."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from shared.errors import Unauthorized


def split_commas(value: Any) -> Any:
    return [key.strip() for key in value.split(",") if key.strip()] if isinstance(value, str) else value


def is_sendable(key: str) -> bool:
    """Return True if a header can carry the key: printable ASCII without spaces, and not empty."""
    return key.isascii() and key.isprintable() and key != "" and " " not in key


def _sendable(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if not all(is_sendable(key.get_secret_value()) for key in keys):
        raise ValueError("expected keys of printable ASCII without spaces, separated by commas")
    return keys


BearerKeys = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(split_commas), AfterValidator(_sendable)]
"""Type of a setting with keys, which are separated by commas in the environment."""

ANYONE = "anyone"
"""Name of all callers if no keys are set."""


def bearer(authorization: str | None) -> str:
    """Return the key in an `Authorization` header. Raises Unauthorized if there is none."""
    scheme, _, key = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise Unauthorized("missing API key; expected the header `Authorization: Bearer KEY`")
    return key.strip()


class Keys:
    """The accepted keys. Without any, every caller is accepted."""

    def __init__(self, keys: Iterable[SecretStr]) -> None:
        self._digests = [_digest(key.get_secret_value()) for key in keys]

    def identify(self, authorization: str | None) -> str:
        """Return a short name of the caller's key for logs, in constant time. Raises Unauthorized."""
        if not self._digests:
            return ANYONE
        given = _digest(bearer(authorization))
        found = [digest for digest in self._digests if hmac.compare_digest(digest, given)]
        if not found:
            raise Unauthorized("invalid API key")
        return found[0].hex()[:8]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
