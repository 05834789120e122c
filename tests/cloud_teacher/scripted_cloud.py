"""A cloud with a scripted teacher: as a process (`python -m tests.cloud_teacher.scripted_cloud`), set up from the environment."""

from __future__ import annotations

import os
import sys

from cloud_teacher.app import create_app
from cloud_teacher.settings import CloudSettings
from shared.serving import serve
from shared.telemetry import telemetry_from
from tests.cloud_teacher.fakes import ScriptedTeacher

WORDS = 5


def main() -> int:
    settings = CloudSettings(max_running=1000)
    teacher = ScriptedTeacher(*[" word"] * WORDS, max_model_len=4000)
    return serve(
        lambda fail: create_app(
            settings,
            teacher=teacher,
            telemetry=telemetry_from(os.environ, "gkt-cloud", content=settings.trace_content),
            on_failure=fail,
        ),
        host=settings.host,
        port=settings.port,
        port_file=settings.port_file,
        tls=settings.tls,
        grace_s=settings.shutdown_grace_s,
        log_level=os.environ.get("GKT_CLOUD_LOG_LEVEL", "warning"),
        log_format=settings.log_format,
    )


if __name__ == "__main__":
    sys.exit(main())
