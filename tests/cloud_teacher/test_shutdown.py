"""The cloud's process ends in good order, and leaves nothing behind. Ctrl-C ends the cloud of the test run (conftest.py)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from shared.protocol.guidance import Failure
from tests.cloud_teacher.stream_reader import Reader
from tests.processes import Process

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("vllm"), pytest.mark.timeout(400)]

Starter = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path, small_teacher: str) -> Iterator[Starter]:
    processes: list[Process] = []

    def start(**settings: str) -> Process:
        environment = {f"GKT_CLOUD_{name}": value for name, value in {"MODEL": small_teacher, **settings}.items()}
        processes.append(Process("cloud_teacher", environment, tmp_path))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


async def test_an_engine_that_is_killed_ends_its_streams_and_the_process(start: Starter, small_teacher: str) -> None:
    process = start(KV_CACHE_GIB="0.5")
    process.wait_until_ready()
    async with httpx.AsyncClient(base_url=process.url(), timeout=60) as client:
        reader = Reader(client, 1000)
        await reader.begun.wait()
        os.kill(process.wait_for_child("VLLM::EngineCore"), signal.SIGKILL)
        await reader.task
    failure = reader.events[-1]
    assert isinstance(failure, Failure)
    assert failure.code == "engine_failed"
    assert await asyncio.to_thread(process.wait) == 1
    assert process.orphans() == {}
    assert f"teacher {small_teacher} failed" in process.log.read_text()


@pytest.mark.parametrize("child", [None, "spawn_main"])
def test_sigterm_while_the_model_loads(start: Starter, child: str | None) -> None:
    """SIGTERM arrives before the engine has a process, or just after it has one."""
    process = start()
    assert httpx.get(f"{process.url()}/ready").json()["status"] == "loading"
    if child:
        process.wait_for_child(child)
    assert process.end(within_s=15) == 0
    assert process.orphans() == {}


def test_a_model_that_cannot_be_loaded_ends_the_process(start: Starter) -> None:
    process = start(MODEL="no-such-model")
    assert process.wait() == 1
    assert "teacher no-such-model failed" in process.log.read_text()
    assert "Traceback" not in process.log.read_text()


def test_wrong_settings_end_it_at_once(start: Starter) -> None:
    process = start(HOST="0.0.0.0")
    assert process.wait() == 2
    assert "GKT_CLOUD_KEYS" in process.log.read_text()
