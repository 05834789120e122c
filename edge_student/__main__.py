"""`python -m edge_student`: one edge, set up from the environment."""

from __future__ import annotations

import os
import sys

from edge_student.app import create_app
from edge_student.settings import EdgeSettings
from shared.serving import serve


def main() -> int:
    # libgomp reads these when llama.cpp is loaded. By default its threads spin for milliseconds where they wait for each
    # other, which starves whatever shares the cores and, once they are shared, slows the student itself down tenfold.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    settings = EdgeSettings()
    return serve(
        lambda fail: create_app(settings, on_failure=fail),
        host=settings.host,
        port=settings.port,
        port_file=settings.port_file,
        grace_s=settings.shutdown_grace_s,
        log_level=settings.log_level,
    )


if __name__ == "__main__":
    sys.exit(main())
