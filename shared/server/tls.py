"""TLS of servers and clients. Files are checked when settings are read, not at the first connection."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from shared.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Certificate of a server. With `client_ca_file`, clients need a certificate too (mutual TLS)."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None

    def check(self) -> None:
        """Raise ConfigurationError if a file is not valid."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _load_chain(context, self.cert_file, self.key_file)
        if self.client_ca_file:
            _load_ca(context, self.client_ca_file)


def client_context(ca_file: Path | None, cert_file: Path | None, key_file: Path | None) -> ssl.SSLContext | None:
    """Return a client's context, with its certificate if it has one; None if no file is set. Raises ConfigurationError."""
    if not (ca_file or cert_file or key_file):
        return None
    context = ssl.create_default_context()
    if ca_file:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts only this authority
        _load_ca(context, ca_file)
    if bool(cert_file) != bool(key_file):
        raise ConfigurationError("expected both a client's certificate and its key, or neither")
    if cert_file and key_file:
        _load_chain(context, cert_file, key_file)
    return context


def _load_chain(context: ssl.SSLContext, cert_file: Path, key_file: Path) -> None:
    try:
        context.load_cert_chain(cert_file, key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"{cert_file} and {key_file} are not a certificate and its key: {error}") from error


def _load_ca(context: ssl.SSLContext, ca_file: Path) -> None:
    try:
        context.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"{ca_file} does not hold a certificate authority: {error}") from error
