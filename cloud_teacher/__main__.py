"""`python -m cloud_teacher`: one cloud, configured by environment variables.

The exit status is 0 after SIGTERM, 130 after SIGINT, 1 if the teacher cannot be loaded or dies, 2 if the settings are invalid.
All engine processes end with it, except after SIGKILL, since vLLM's engine does not watch its parent.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import FrameType

from cloud_teacher.app import create_app
from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.teachers.processes import adopt_orphans, end_descendants
from shared.errors import ConfigurationError
from shared.observability.telemetry import Telemetry, telemetry_from
from shared.server.run import serve_as
from shared.server.settings import read_settings


def main() -> int:
    try:
        settings = read_settings(CloudSettings)
    except ConfigurationError as error:
        sys.stderr.write(f"the settings are wrong: {error}\n")
        return 2
    # uvicorn raises the signal again when it is done. By default SIGTERM would then skip the `finally` below.
    signal.signal(signal.SIGTERM, _exit)
    adopt_orphans()
    try:
        return serve_as(
            settings,
            lambda fail: create_app(settings, telemetry=_telemetry(settings), on_failure=fail),
            tls=settings.tls,
        )
    except ConfigurationError as error:
        sys.stderr.write(f"the settings are wrong: {error}\n")
        return 2
    finally:
        # The app ends its engine itself, unless a second Ctrl-C made uvicorn skip that, or the engine died first.
        end_descendants()


def _telemetry(settings: CloudSettings) -> Telemetry:
    return telemetry_from(os.environ, "gkt-cloud", content=settings.trace_content)


def _exit(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def run() -> None:
    """Run `main` and exit without Python's clean-up, which would crash if a thread is still importing torch."""
    try:
        status: object = main()
    except SystemExit as stop:
        status = stop.code
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    run()
