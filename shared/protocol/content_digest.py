"""Whether a request's body arrived as it was sent: RFC 9530's `Content-Digest`. A link without TLS may flip bits unnoticed."""

from __future__ import annotations

import base64
import hashlib

from shared.errors import BodyDamaged

HEADER = "content-digest"


def content_digest(body: bytes) -> str:
    """The header's value."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def check_digest(value: str | None, body: bytes) -> None:
    """Raises BodyDamaged. A request without the header is taken as it is."""
    if value is not None and value != content_digest(body):
        raise BodyDamaged("the body is not the one that its Content-Digest is of")
