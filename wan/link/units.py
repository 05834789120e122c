"""Parse latencies, bandwidths and addresses as people write them. Any other text is an error."""

from __future__ import annotations

import re
from typing import NamedTuple

from shared.errors import ConfigurationError

_QUANTITY = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([a-z]+)", re.ASCII)
_MILLISECONDS = {"ms": 1.0, "s": 1000.0}
_KILOBITS = {"kbit": 1.0, "mbit": 1000.0, "gbit": 1_000_000.0}
UNLIMITED = "unlimited"
MAX_LATENCY_MS = 60_000.0
MAX_KBIT = 100_000_000.0


class BadUnit(ConfigurationError):
    code = "bad_unit"


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def milliseconds(text: str) -> float:
    """Parse a time such as `80ms` or `0.6s`. Raises BadUnit."""
    value = _parsed(text, _MILLISECONDS, "a time", "80ms or 0.6s")
    if value > MAX_LATENCY_MS:
        raise BadUnit(f"{text}: expected at most {MAX_LATENCY_MS / 1000:.0f}s")
    return value


def kilobits(text: str) -> float | None:
    """Parse a bandwidth per second: `500kbit`, `2mbit`, `1gbit`; `unlimited` is None. Raises BadUnit."""
    if text == UNLIMITED:
        return None
    value = _parsed(text, _KILOBITS, "a bandwidth", f"500kbit, 2mbit, 1gbit or {UNLIMITED}")
    if not 0 < value <= MAX_KBIT:
        raise BadUnit(
            f"{text}: expected a bandwidth above 0 and at most {MAX_KBIT / 1e6:.0f}gbit; `stall` stops all bytes"
        )
    return value


def address(text: str) -> Address:
    """Parse `HOST:PORT`, `[::1]:PORT`, or `PORT` on loopback. Raises BadUnit."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if (
        not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII)
        or int(port) > 65535
        or (":" in text and not host)
        or (":" in host) != bracketed
        or re.search(r"[\s/\[\]]", host)
    ):
        raise BadUnit(f"{text}: expected HOST:PORT, such as 127.0.0.1:8080, or a port alone, which is on 127.0.0.1")
    return Address(host or "127.0.0.1", int(port))


def _parsed(text: str, units: dict[str, float], what: str, examples: str) -> float:
    found = _QUANTITY.fullmatch(text)
    if not found or found[2] not in units:
        raise BadUnit(f"{text}: expected {what} as a number with its unit and no space, such as {examples}")
    return float(found[1]) * units[found[2]]
