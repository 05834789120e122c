"""A cloud and an edge for this machine, with a wide-area link between them on request: their settings and services."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from cloud_teacher.config.settings import CloudSettings
from edge_student.settings import EdgeSettings
from gkt.local.preflight import free_port, local_url
from shared.colocation import COLOCATED_CLOUD_ENV, COLOCATED_EDGE_ENV
from shared.errors import ConfigurationError
from shared.home import home
from shared.server.settings import read_settings


@dataclass(frozen=True)
class Service:
    """Command, environment, log and URL of one process."""

    name: str
    arguments: Sequence[str]
    """Arguments of the Python interpreter."""
    environment: Mapping[str, str] = field(repr=False)
    log: Path
    url: str
    grace_s: float


@dataclass(frozen=True)
class Wan:
    """The ports of a wide-area link between the edge and the cloud, on loopback."""

    link: int
    control: int

    @property
    def url(self) -> str:
        """URL of the cloud for the edge."""
        return f"http://127.0.0.1:{self.link}"

    @property
    def control_url(self) -> str:
        return f"http://127.0.0.1:{self.control}"


@dataclass(frozen=True)
class Pair:
    """Checked settings of both sides, and the key that they share."""

    cloud: CloudSettings
    edge: EdgeSettings
    key: str = field(repr=False)
    wan: Wan | None = None

    @classmethod
    def plan(
        cls, *, teacher: str | None, student: str | None, cloud_port: int, edge_port: int, wan_port: int | None = None
    ) -> Pair:
        """Plan a pair from the environment and these options; with a link if `wan_port`, its control API's, is given.

        Raises ConfigurationError if a setting is wrong or a port is in use.
        """
        key = secrets.token_urlsafe(32)
        keys = ",".join(filter(None, [os.environ.get("GKT_CLOUD_KEYS"), key]))
        cloud = read_settings(CloudSettings, keys=keys, port=cloud_port, **({"model": teacher} if teacher else {}))
        if cloud.tls:
            raise ConfigurationError(
                "GKT_CLOUD_TLS_CERT_FILE: gkt up uses plain HTTP on this machine; unset this variable"
            )
        cloud_port = free_port(cloud.host, cloud_port, option="--cloud-port")
        wan = None
        if wan_port is not None:
            control = free_port("127.0.0.1", wan_port, option="--wan-port")
            wan = Wan(link=free_port("127.0.0.1", 0, option="--wan-port"), control=control)
        edge = read_settings(
            EdgeSettings,
            cloud_url=wan.url if wan else local_url(cloud.host, cloud_port),
            cloud_key=key,
            port=edge_port,
            **({"model": student} if student else {}),
        )
        edge_port = free_port(edge.host, edge_port, option="--edge-port")
        cloud, edge = cloud.model_copy(update={"port": cloud_port}), edge.model_copy(update={"port": edge_port})
        return cls(cloud, edge, key, wan)

    @property
    def cloud_url(self) -> str:
        return local_url(self.cloud.host, self.cloud.port)

    @property
    def edge_url(self) -> str:
        return local_url(self.edge.host, self.edge.port)

    @property
    def services(self) -> list[Service]:
        """Services in the order of their start. A log's name has the port, so that two pairs do not share a file."""
        folder = home() / "logs"
        keys = ",".join(key.get_secret_value() for key in self.cloud.keys)
        cloud = {"GKT_CLOUD_MODEL": self.cloud.model, "GKT_CLOUD_PORT": str(self.cloud.port), "GKT_CLOUD_KEYS": keys}
        edge = {
            "GKT_EDGE_MODEL": self.edge.model,
            "GKT_EDGE_PORT": str(self.edge.port),
            "GKT_EDGE_CLOUD_URL": self.wan.url if self.wan else self.cloud_url,
            "GKT_EDGE_CLOUD_KEY": self.key,
        }
        services = [
            Service(
                "cloud",
                ["-m", "cloud_teacher"],
                {**COLOCATED_CLOUD_ENV, **os.environ, **cloud},
                folder / f"cloud-{self.cloud.port}.log",
                self.cloud_url,
                self.cloud.shutdown_grace_s,
            ),
            Service(
                "edge",
                ["-m", "edge_student"],
                {**COLOCATED_EDGE_ENV, **os.environ, **edge},
                folder / f"edge-{self.edge.port}.log",
                self.edge_url,
                self.edge.shutdown_grace_s,
            ),
        ]
        if self.wan:
            options = ["--link", f"edge={self.wan.link}", "--to", urlsplit(self.cloud_url).netloc]
            arguments = ["-m", "gkt", "wan", "serve", *options, "--control", str(self.wan.control)]
            log = folder / f"wan-{self.wan.control}.log"
            services.insert(1, Service("wan", arguments, os.environ, log, self.wan.control_url, 0.0))
        return services
