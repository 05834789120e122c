"""Number of replicas of a cloud, and checks of their settings. Does not import Ray."""

from __future__ import annotations

import re
from typing import NamedTuple

from cloud_teacher.config.settings import CloudSettings
from shared.errors import ConfigurationError


class Replicas(NamedTuple):
    """Minimum and maximum number of replicas."""

    minimum: int
    maximum: int

    @classmethod
    def parse(cls, text: str) -> Replicas:
        """Parse `2`, or `1:4` to scale with the requests. Raises ConfigurationError."""
        found = re.fullmatch(r"(\d{1,4})(?::(\d{1,4}))?", text)
        minimum, maximum = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= minimum <= maximum:
            raise ConfigurationError(f"invalid number of replicas {text!r}; use MIN or MIN:MAX, at least 1")
        return cls(minimum, maximum)


def check_fields(settings: CloudSettings, replicas: Replicas, *, machines: bool) -> None:
    """Raises ConfigurationError if a setting works for a single cloud only.

    `machines` is set if replicas may run on several machines, behind the proxies of a Serve config.
    """
    store = settings.store_url.get_secret_value() if settings.store_url else ""
    if settings.replay_file:
        raise ConfigurationError("replay_file cannot be used with replicas, which would overwrite each other's entries")
    if settings.tls_client_ca_file:
        raise ConfigurationError(
            "tls_client_ca_file cannot be used with Ray Serve, whose proxy never requests client certificates; "
            "check them in a proxy in front of it, or run the cloud without Ray"
        )
    if machines:
        if store.startswith("sqlite"):
            raise ConfigurationError(
                "store_url: replicas on several machines cannot share an SQLite file; use postgresql://"
            )
        for name in ("port_file", "tls_cert_file"):
            if getattr(settings, name):
                raise ConfigurationError(
                    f"{name} must not be set, because Serve's proxy listens; use http_options in Serve's config"
                )
    elif settings.metrics_port and replicas.maximum > 1:
        raise ConfigurationError(
            "metrics_port cannot be used by several replicas on one machine; use `/metrics` at the API's port, which shows "
            "one replica"
        )
