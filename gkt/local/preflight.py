"""What both sides need before they start: settings that make sense, an engine that is installed, a port that is free."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
from collections.abc import Mapping
from types import FrameType

from shared.errors import ConfigurationError


def override(options: Mapping[str, object | None]) -> None:
    """Put the options that were given into the environment, where the services look for their settings."""
    os.environ.update({name: str(value) for name, value in options.items() if value is not None})


def need_cloud_engine() -> None:
    """Raises ConfigurationError where vLLM is not installed."""
    _need("vllm", "vLLM, the cloud's engine", "pip install 'gkt[cloud]' on a GPU machine, 'gkt[cloud-cpu]' on another")


def need_ray() -> None:
    """Raises ConfigurationError where Ray Serve is not installed."""
    _need("ray", "Ray Serve, which --ray wants", "pip install 'gkt[ray]'")


def need_edge_engine() -> None:
    """Raises ConfigurationError where llama-cpp-python is not installed."""
    _need("llama_cpp", "llama-cpp-python, the edge's engine", "pip install 'gkt[edge]'")


def _need(module: str, what: str, command: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ConfigurationError(f"{what}, is not installed. This installs it: {command}")


def leave_on_sigterm() -> None:
    """SIGTERM ends the command as an exception does, so that what it was about to do is cleaned up.

    Without a handler the first process of a container would not even notice it.
    """
    signal.signal(signal.SIGTERM, _leave)


def _leave(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def free_port(host: str, port: int, *, option: str) -> int:
    """The port itself if it can be listened on, for 0 one that the system chooses.

    Asked before anything is loaded, so that a port in use is not found out a minute later. Raises ConfigurationError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigurationError(
                f"cannot listen on {host}:{port}: {reason}. {option} chooses another port"
            ) from None
        return int(probe.getsockname()[1])


def local_url(host: str, port: int) -> str:
    """How this machine reaches what listens there."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - nothing listens here
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
