"""Checks before a service starts: its settings, its engine, its port."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
from collections.abc import Mapping
from types import FrameType

from shared.errors import ConfigurationError


def override(options: Mapping[str, object | None]) -> None:
    """Set the environment variables of the given options; the services read their settings there."""
    os.environ.update({name: str(value) for name, value in options.items() if value is not None})


def need_cloud_engine() -> None:
    """Raise ConfigurationError if vLLM is not installed."""
    _need("vllm", "vLLM, the cloud's engine", "pip install 'gkt[cloud]' on a GPU machine, 'gkt[cloud-cpu]' on another")


def need_ray() -> None:
    """Raise ConfigurationError if Ray Serve is not installed."""
    _need("ray", "Ray Serve, which --ray requires", "pip install 'gkt[ray]'")


def need_edge_engine() -> None:
    """Raise ConfigurationError if llama-cpp-python is not installed."""
    _need("llama_cpp", "llama-cpp-python, the edge's engine", "pip install 'gkt[edge]'")


def _need(module: str, what: str, command: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ConfigurationError(f"{what}, is not installed. Install it with: {command}")


def leave_on_sigterm() -> None:
    """End the command on SIGTERM by an exception, so that it cleans up.

    Without a handler, the first process of a container would ignore the signal.
    """
    signal.signal(signal.SIGTERM, _leave)


def _leave(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def free_port(host: str, port: int, *, option: str) -> int:
    """Return the port if it is free, or for 0 a free one. Raises ConfigurationError.

    Checked before a model is loaded, because a port in use should be reported at once.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigurationError(
                f"cannot listen on {host}:{port}: {reason}. Choose another port with {option}"
            ) from None
        return int(probe.getsockname()[1])


def local_url(host: str, port: int) -> str:
    """Return the URL at which this machine reaches a service that listens there."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - nothing listens here
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
