"""The cloud on a real Ray: replicas are killed, fail and are replaced while a real edge answers."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import ssl
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from edge_student.app import create_app
from edge_student.echo import EchoSettings, EchoStudent
from shared.echo_text import NONCE_LETTERS, Mark, read_words
from tests.conftest import CLOUD_KEY
from tests.processes import Process
from tests.running import serving

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("vllm"), pytest.mark.timeout(200)]

REPLICA = "ray::ServeReplica"
ENGINE = "VLLM::EngineCore"
POLL_S = 0.05
EDGES = 8
GUIDANCE, TAUGHT, WORDS = 60, 49, 80
"""Tokens of guidance (the end of a line is one), words that a teacher without faults writes, words of an answer."""
TOKEN_MS = 50


@pytest.fixture(scope="module")
def ray_folder() -> Iterator[Path]:
    """Folder of Ray's sockets, whose paths must be short."""
    folder = Path(tempfile.mkdtemp(prefix="gkt-ray-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, Path]:
    authority = trustme.CA()
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return authority, file


@pytest.fixture(scope="module")
def echoes(
    tmp_path_factory: pytest.TempPathFactory, ray_folder: Path, authority: tuple[trustme.CA, Path]
) -> Iterator[Process]:
    """Start two replicas without a model, behind HTTPS. Ctrl-C for the whole group ends them, and no process may be left."""
    folder = tmp_path_factory.mktemp("ray")
    signed = authority[0].issue_cert("127.0.0.1")
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in signed.cert_chain_pems))
    key.write_bytes(signed.private_key_pem.bytes())
    environment = {"GKT_CLOUD_KEYS": CLOUD_KEY, "GKT_CLOUD_TOKEN_MS": str(TOKEN_MS), "GKT_CLOUD_DOOM": str(folder)}
    environment |= {"GKT_CLOUD_MAX_RUNNING": "32", "GKT_CLOUD_COALESCE": "off", "RAY_TMPDIR": str(ray_folder)}
    environment |= {"GKT_CLOUD_TLS_CERT_FILE": str(cert), "GKT_CLOUD_TLS_KEY_FILE": str(key)}
    process = Process("tests.cloud_teacher.ray_serve.echo_on_ray", environment, folder)
    try:
        process.url(within_s=120)  # the port file is written when the replicas are ready
        yield process
        assert process.end(signal.SIGINT, group=True) == 130
        assert process.orphans() == {}
    finally:
        process.kill()


@asynccontextmanager
async def an_edge(cloud: Process, authority: Path | None = None) -> AsyncGenerator[httpx.AsyncClient]:
    """Start a real edge whose student has no model. With an authority it uses TLS."""
    settings = EchoSettings(
        cloud_url=https(cloud) if authority else cloud.url(),
        cloud_ca_file=authority,
        cloud_key=CLOUD_KEY,
        max_guidance_tokens=GUIDANCE,
        connect_deadline_s=60,
        first_token_deadline_s=60,
        next_token_deadline_s=60,
        breaker_failures=100,
        max_sequences=2 * EDGES,
    )
    app = create_app(settings, student=EchoStudent(settings))
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=120) as client:
        yield client


def https(cloud: Process) -> str:
    return cloud.url().replace("http://", "https://")


class Answer:
    """An answer that is being written. `begun` is set after its first word."""

    def __init__(self, client: httpx.AsyncClient, question: str, **body: Any) -> None:
        self.begun = asyncio.Event()
        self.text = ""
        self.finish: str | None = None
        self.fallback: str | None = None
        self._body = {"messages": [{"role": "user", "content": question}], "stream": True, **body}
        self.task = asyncio.create_task(self._read(client))

    async def _read(self, client: httpx.AsyncClient) -> None:
        async with client.stream("POST", "/v1/chat/completions", json=self._body) as response:
            assert response.status_code == 200, await response.aread()
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                self.fallback = chunk.get("gkt", {}).get("fallback") or self.fallback
                for choice in chunk["choices"]:
                    self.text += choice["delta"].get("content") or ""
                    self.finish = choice["finish_reason"] or self.finish
                if self.text:
                    self.begun.set()


class Echoed(Answer):
    """Answer of a teacher and a student whose words name their writer."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.nonce = "".join(secrets.choice("abcdefghijklmnop") for _ in range(NONCE_LETTERS))
        super().__init__(client, f"Say it. {Mark(self.nonce, WORDS)}", max_tokens=1000)

    @property
    def taught(self) -> int:
        """Count the teacher's words. Checks that each word belongs to this answer and stands at the position that it names."""
        words = list(read_words(self.text))
        assert self.finish == "stop"
        assert [word.nonce for word in words] == [self.nonce] * WORDS
        assert [word.claimed_at for word in words] == [word.at for word in words]
        writers = "".join(word.writer for word in words)
        taught = writers.count("t")
        assert writers == "t" * taught + "s" * (WORDS - taught)
        return taught


def replicas(cloud: Process) -> set[int]:
    return {pid for pid, title in cloud.family().items() if title.startswith(REPLICA)}


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(POLL_S)


async def answers_under_way(client: httpx.AsyncClient) -> list[Echoed]:
    answers = [Echoed(client) for _ in range(EDGES)]
    await asyncio.gather(*[answer.begun.wait() for answer in answers])
    return answers


async def test_every_answer_ends_where_a_replica_is_killed_under_it(
    echoes: Process, authority: tuple[trustme.CA, Path]
) -> None:
    before = replicas(echoes)
    assert len(before) == 2
    async with an_edge(echoes, authority[1]) as client:
        answers = await answers_under_way(client)
        killed = before.pop()
        os.kill(killed, signal.SIGKILL)
        await asyncio.gather(*[answer.task for answer in answers])
        broken = [answer for answer in answers if answer.fallback]
        assert {answer.fallback for answer in broken} == {"broken"}
        assert 0 < len(broken) < EDGES, "both replicas had answers to begin"
        for answer in answers:
            assert (answer.taught < TAUGHT) == (answer in broken)
            assert answer.taught
        await until(lambda: len(replicas(echoes)) == 2)
        assert replicas(echoes) > before
        again = Echoed(client)
        await again.task
        assert (again.fallback, again.taught) == (None, TAUGHT)


async def test_a_new_version_takes_over_without_an_answer_lost(
    echoes: Process, authority: tuple[trustme.CA, Path]
) -> None:
    await until(lambda: len(replicas(echoes)) == 2)
    old = replicas(echoes)
    answers: list[Echoed] = []

    async def ask_on() -> None:
        while old & replicas(echoes):
            answer = Echoed(client)
            answers.append(answer)
            await answer.task

    async with an_edge(echoes, authority[1]) as client:
        asking = [asyncio.create_task(ask_on()) for _ in range(EDGES)]
        await until(lambda: len(answers) == EDGES)
        await asyncio.gather(*[answer.begun.wait() for answer in answers])
        echoes.signal(signal.SIGUSR1)
        await asyncio.gather(*asking)
    assert len(replicas(echoes)) == 2
    assert [(answer.fallback, answer.taught) for answer in answers] == [(None, TAUGHT)] * len(answers)


async def test_a_replica_whose_teacher_fails_is_replaced(echoes: Process, authority: tuple[trustme.CA, Path]) -> None:
    await until(lambda: len(replicas(echoes)) == 2)
    one, other = replicas(echoes)
    (echoes.log.parent / str(one)).touch()
    await until(lambda: one not in replicas(echoes) and len(replicas(echoes)) == 2)
    assert other in replicas(echoes)
    async with an_edge(echoes, authority[1]) as client:
        answer = Echoed(client)
        await answer.task
        assert (answer.fallback, answer.taught) == (None, TAUGHT)


async def test_what_else_a_cloud_answers_comes_through(echoes: Process, authority: tuple[trustme.CA, Path]) -> None:
    question = {"messages": [{"role": "user", "content": "?"}], "max_guidance_tokens": 1}
    trusting = ssl.create_default_context(cafile=authority[1])
    async with httpx.AsyncClient(base_url=https(echoes), verify=trusting) as client:
        ready = await client.get("/ready", headers={"x-request-id": "mine"})
        assert (ready.status_code, ready.json()["model"]) == (200, "echo-teacher")
        assert ready.headers["x-request-id"] == "mine"
        metrics = await client.get("/metrics")
        assert "gkt_cloud_requests_total" in metrics.text
        refused = await client.post("/v1/guidance", json=question)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.timeout(400)
async def test_an_engine_goes_with_its_replica(tmp_path: Path, ray_folder: Path, small_teacher: str) -> None:
    environment = {"GKT_CLOUD_MODEL": small_teacher, "GKT_CLOUD_KEYS": CLOUD_KEY, "GKT_CLOUD_KV_CACHE_GIB": "0.25"}
    environment |= {"GKT_CLOUD_COALESCE": "off", "RAY_TMPDIR": str(ray_folder)}
    cloud = Process("gkt", environment, tmp_path, "cloud", "--ray", "--replicas", "1")
    # So hot that the model hardly ever finds its end: the replica is killed before the budget is used.
    long: dict[str, Any] = {"temperature": 2, "max_tokens": 1200, "gkt": {"max_guidance_tokens": 1000}}
    try:
        await asyncio.to_thread(cloud.url, 300)
        async with an_edge(cloud) as client:
            answers = [Answer(client, f"Tell me story {number}.", seed=number, **long) for number in range(4)]
            await asyncio.gather(*[answer.begun.wait() for answer in answers])
            engines = {pid for pid, title in cloud.family().items() if title.startswith("VLLM")}
            (killed,) = replicas(cloud)
            theirs = {pid for pid in engines if os.getpgid(pid) == killed}
            os.kill(killed, signal.SIGKILL)
            await asyncio.gather(*[answer.task for answer in answers])
            assert "broken" in {answer.fallback for answer in answers} <= {None, "broken"}
            assert all(answer.finish for answer in answers)
        assert theirs
        await until(lambda: not theirs & cloud.family().keys())
        # Its successor may be anywhere in loading.
        assert await asyncio.to_thread(cloud.end) == 0
        assert cloud.orphans() == {}
    finally:
        cloud.kill()
