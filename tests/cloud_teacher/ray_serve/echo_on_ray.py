"""Two replicas of a cloud whose teacher has no model, on a Ray of their own.

`python -m tests.cloud_teacher.ray_serve.echo_on_ray` runs it.

SIGUSR1 deploys it anew with another time a token, while it serves. A file named by a replica's process id, in the folder that
GKT_CLOUD_DOOM names, has the replica's teacher fail.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI
from pydantic import Field
from ray import serve

from cloud_teacher.app import create_app
from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.echo import EchoSettings, EchoTeacher
from cloud_teacher.ray_serve.app import NAME, FixedSettings, application
from cloud_teacher.ray_serve.replicas import Replicas
from gkt.local.ray_cluster import serve_here
from shared.errors import EngineFailed

TWO = Replicas(2, 2)


class Settings(EchoSettings):
    doom: str = Field(description="folder")


class MortalTeacher(EchoTeacher):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._doom = Path(settings.doom) / str(os.getpid())

    def check_health(self) -> None:
        if self._doom.exists():
            raise EngineFailed("it was its time")


def echo_app(settings: CloudSettings, on_ready: Callable[[], None], on_failure: Callable[[], None]) -> FastAPI:
    assert isinstance(settings, Settings)
    return create_app(settings, teacher=MortalTeacher(settings), on_ready=on_ready, on_failure=on_failure)


def main() -> int:
    settings = Settings()

    def update(signum: int, frame: object) -> None:
        changed = settings.model_copy(update={"token_ms": settings.token_ms + 1})
        serve.run(application(changed, TWO, read=FixedSettings(changed), gpus=0, make_app=echo_app), name=NAME)

    signal.signal(signal.SIGUSR1, update)
    return serve_here(settings, TWO, make_app=echo_app)


if __name__ == "__main__":
    sys.exit(main())
