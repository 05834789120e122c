"""Digest of a request's body (RFC 9530, `Content-Digest`), because a link without TLS can flip bits."""

from __future__ import annotations

import base64
import hashlib

from shared.errors import BodyDamaged

HEADER = "content-digest"


def content_digest(body: bytes) -> str:
    """Return the value of the header."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def check_digest(value: str | None, body: bytes) -> None:
    """Raise BodyDamaged if the header does not match. A request without the header is accepted."""
    if value is not None and value != content_digest(body):
        raise BodyDamaged("the body does not match its Content-Digest")
