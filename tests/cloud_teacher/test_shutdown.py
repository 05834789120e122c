"""The cloud's process ends in good order, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from shared.errors import StreamBroken
from shared.protocol.guidance import Done, Event, Failure, Guidance
from shared.protocol.sse import decode
from tests.conftest import CLOUD_MODEL
from tests.processes import Process

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("vllm"), pytest.mark.timeout(400)]

Starter = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    processes: list[Process] = []

    def start(**settings: str) -> Process:
        environment = {f"GKT_CLOUD_{name}": value for name, value in {"MODEL": CLOUD_MODEL, **settings}.items()}
        processes.append(Process("cloud_teacher", environment, tmp_path))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


class Reader:
    """Reads a stream in a task of its own. `begun` is set after the teacher's first word."""

    def __init__(self, client: httpx.AsyncClient, budget: int) -> None:
        self.begun = asyncio.Event()
        self.events: list[Event] = []
        question = {"role": "user", "content": "Tell me a story."}
        # So hot that the model hardly ever finds its end.
        self._request = {"messages": [question], "max_guidance_tokens": budget, "temperature": 2, "seed": 1}
        self.task = asyncio.create_task(self._read(client))

    async def _read(self, client: httpx.AsyncClient) -> None:
        async with client.stream("POST", "/v1/guidance", json=self._request) as response:
            async for event in decode(response):
                self.events.append(event)
                if isinstance(event, Guidance):
                    self.begun.set()


async def test_ctrl_c_lets_guidance_end_up_to_a_limit(start: Starter) -> None:
    process = start(SHUTDOWN_GRACE_S="4", KV_CACHE_GIB="0.5")
    process.wait_until_ready()
    async with httpx.AsyncClient(base_url=process.url(), timeout=60) as client:
        short, long = Reader(client, 10), Reader(client, 1000)
        await asyncio.gather(short.begun.wait(), long.begun.wait())
        # To the whole group, as a terminal does it: the engine's processes get it too.
        ending = asyncio.create_task(asyncio.to_thread(process.end, signal.SIGINT, group=True))
        await short.task
        with pytest.raises((StreamBroken, httpx.RemoteProtocolError)):
            await long.task
        assert await ending == 130
    assert isinstance(short.events[-1], Done)
    assert short.events[-1].usage.completion_tokens == 10
    assert process.orphans() == {}


async def test_an_engine_that_is_killed_ends_its_streams_and_the_process(start: Starter) -> None:
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
    assert f"teacher {CLOUD_MODEL} failed" in process.log.read_text()


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
