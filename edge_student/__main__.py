"""`python -m edge_student`: one edge, set up from the environment."""

from __future__ import annotations

import sys

from edge_student.app import create_app
from edge_student.settings import EdgeSettings
from shared.serving import serve


def main() -> int:
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
