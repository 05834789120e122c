"""`python -m edge_student`: one edge, set up from the environment. Ends with status 0 after SIGTERM, once answers have ended."""

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
    # uvicorn raises the signal again once it is done, and by default SIGTERM would then end us before the status is known.
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
    """What libgomp reads when llama.cpp is loaded; whatever the environment says already stays."""
    # By default its threads spin for milliseconds where they wait for each other, which starves whatever shares the cores
    # and, once they are shared, slows the student itself down tenfold.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # Where a thread of the event loop wakes on one's core, the kernel now and then moves it to the other's until it balances
    # its load. With fewer threads than cores another process might be bound to the same ones.
    if all_cores and not os.environ.keys() & {"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY"}:
        os.environ.update(OMP_PROC_BIND="true", OMP_PLACES="cores")


if __name__ == "__main__":
    sys.exit(main())
