"""A cloud with a scripted teacher, as a process that reads its settings from the environment."""

from __future__ import annotations

import os
import sys

from cloud_teacher.app import create_app
from cloud_teacher.config.settings import CloudSettings
from shared.observability.telemetry import telemetry_from
from shared.server.run import serve_as
from tests.cloud_teacher.fakes import ScriptedTeacher

WORDS = 5


def main() -> int:
    settings = CloudSettings(max_running=1000, log_level=os.environ.get("GKT_CLOUD_LOG_LEVEL", "warning"))
    teacher = ScriptedTeacher(*[" word"] * WORDS, max_model_len=4000)
    return serve_as(
        settings,
        lambda fail: create_app(
            settings,
            teacher=teacher,
            telemetry=telemetry_from(os.environ, "gkt-cloud", content=settings.trace_content),
            on_failure=fail,
        ),
        tls=settings.tls,
    )


if __name__ == "__main__":
    sys.exit(main())
