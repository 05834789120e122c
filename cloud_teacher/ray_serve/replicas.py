"""How many replicas of a cloud there are to be, and which settings make sense for them. Knows nothing of Ray."""

from __future__ import annotations

import re
from typing import NamedTuple

from cloud_teacher.config.settings import CloudSettings
from shared.errors import ConfigurationError


class Replicas(NamedTuple):
    """At least and at most so many at once."""

    least: int
    most: int

    @classmethod
    def parse(cls, text: str) -> Replicas:
        """`2`, or `1:4` to have requests decide. Raises ConfigurationError."""
        found = re.fullmatch(r"(\d{1,4})(?::(\d{1,4}))?", text)
        least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= least <= most:
            raise ConfigurationError(f"replicas {text!r}: it is MIN or MIN:MAX, at least 1")
        return cls(least, most)


def check_fields(settings: CloudSettings, replicas: Replicas, *, machines: bool) -> None:
    """Raises ConfigurationError where a setting cannot do for replicas what it does for one cloud.

    `machines`: they may be on several, behind proxies that a Serve config sets up.
    """
    store = settings.store_url.get_secret_value() if settings.store_url else ""
    if settings.replay_file:
        raise ConfigurationError("replay_file is one cloud's: replicas would write over each other's words")
    if settings.tls_client_ca_file:
        raise ConfigurationError(
            "tls_client_ca_file: Ray Serve's proxy never asks a client for its certificate. "
            "Have a proxy before it ask, or leave Ray away"
        )
    if machines:
        if store.startswith("sqlite"):
            raise ConfigurationError("store_url: replicas on several machines share no file. Use postgresql://")
        for name in ("port_file", "tls_cert_file"):
            if getattr(settings, name):
                raise ConfigurationError(f"{name}: it is Serve's proxy that listens: see http_options in its config")
    elif settings.metrics_port and replicas.most > 1:
        raise ConfigurationError(
            "metrics_port: replicas on one machine would all want it. `/metrics` at the API's port has those of one replica"
        )
