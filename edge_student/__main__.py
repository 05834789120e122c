"""`python -m edge_student`: one edge, configured by the environment. SIGTERM lets answers finish, then ends with status 0."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from edge_student.answering.strategies import STRATEGIES
from edge_student.app import create_app
from edge_student.policy import PolicyResolver
from edge_student.settings import EdgeSettings
from shared.errors import ConfigurationError
from shared.observability.telemetry import Telemetry, telemetry_from
from shared.server.run import serve_as
from shared.server.settings import read_settings


def main() -> int:
    try:
        settings = read_settings(EdgeSettings)
        PolicyResolver.from_settings(settings, STRATEGIES)
    except ConfigurationError as error:
        sys.stderr.write(f"gkt edge: {error.message}\n")
        return 1
    # uvicorn raises the signal again when it is done. By default SIGTERM would then end the process with another status.
    signal.signal(signal.SIGTERM, _leave)
    _set_openmp(all_cores=settings.threads in {None, os.cpu_count()})
    return serve_as(
        settings,
        lambda fail: create_app(settings, telemetry=_telemetry(settings), on_failure=fail),
    )


def _telemetry(settings: EdgeSettings) -> Telemetry:
    return telemetry_from(os.environ, "gkt-edge", content=settings.trace_content)


def _leave(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def _set_openmp(*, all_cores: bool) -> None:
    """Set the variables that libgomp reads when llama.cpp is loaded, unless they are set already."""
    # By default its threads spin for milliseconds while they wait for each other. That starves other processes on the cores,
    # and slows the student itself tenfold if the cores are shared.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # If a thread of the event loop wakes up on the core of a compute thread, the kernel sometimes moves that one to the core of
    # another compute thread until it balances the load. With fewer threads than cores, binding could pick the same cores as
    # another process.
    if all_cores and not os.environ.keys() & {"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY"}:
        os.environ.update(OMP_PROC_BIND="true", OMP_PLACES="cores")


if __name__ == "__main__":
    sys.exit(main())
