"""`gkt up` with real models on both sides. One start: it takes vLLM most of a minute."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
import uuid
from pathlib import Path

import httpx
import pytest

from shared.home import home
from tests.gkt.run_command import gkt, gkt_process

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("vllm")]

SMALL = "smollm2-135m-instruct"


@pytest.fixture
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a GKT_HOME with the models of the real one and logs of its own."""
    for name in ("models", "converted"):
        folder = home() / name
        folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(folder)
    monkeypatch.setenv("GKT_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.timeout(400)
async def test_up_starts_both_answers_and_leaves_nothing_behind(own_home: Path) -> None:
    mark = uuid.uuid4().hex
    environment = {
        "GKT_CLOUD_KV_CACHE_GIB": "0.25",
        "GKT_CLOUD_MAX_MODEL_LEN": "1024",
        "GKT_CLOUD_MAX_PROMPT_TOKENS": "512",
        "GKT_EDGE_FIRST_TOKEN_DEADLINE_S": "60",  # the first request to a teacher that was just loaded, on a busy machine
        "GKT_EDGE_NEXT_TOKEN_DEADLINE_S": "60",
    }
    options = [
        "--teacher",
        SMALL,
        "--student",
        SMALL,
        "--cloud-port",
        "0",
        "--edge-port",
        "0",
        "--wan",
        "--wan-port",
        "0",
    ]
    up = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gkt", "up", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment, "GKT_TEST_MARK": mark},
        start_new_session=True,
    )
    assert up.stdout is not None
    assert up.stderr is not None
    complaints = asyncio.create_task(up.stderr.read())
    try:
        line = (await up.stdout.readline()).decode()
        assert line, (await complaints).decode()
        family = marked(mark)
        assert len(family) >= 4, "gkt up itself, the cloud, the link and the edge at least"

        curl = shlex.split(line)
        assert curl[:2] == ["curl", "-s"]
        url, body = curl[2], curl[curl.index("-d") + 1]
        async with httpx.AsyncClient(timeout=120) as client:
            answer = (await client.post(url, content=body, headers={"content-type": "application/json"})).json()
        assert answer["gkt"]["segments"][0][0]["source"] == "teacher"
        assert answer["gkt"]["teacher"]["completion_tokens"] > 0
        assert answer["gkt"]["fallback"] is None

        edge = url.removesuffix("/v1/chat/completions")
        asked = await gkt("ask", "What is the capital of France?", "--url", edge, "--max-tokens", "20")
        assert asked.status == 0, asked.err
        assert "of cloud tokens saved" in asked.err

        control = next(re.search(r"--control (\d+)", title) for title in family.values() if "wan serve" in title)
        assert control
        link = f"http://127.0.0.1:{control[1]}"
        async with httpx.AsyncClient(base_url=link) as client:
            state = (await client.post("/v1/links/edge/cut")).json()
        assert state["bytes_down"] > 0, "guidance came over the link"
        asked = await gkt("ask", "What is the capital of France?", "--url", edge, "--max-tokens", "20")
        assert "fallback: unreachable" in asked.err

        up.send_signal(signal.SIGINT)
        assert await up.wait() == 0
    finally:
        if up.returncode is None:
            up.kill()
        told = (await complaints).decode()
    assert await up.stdout.read() == b"", "the curl line is the only one on standard output"
    assert marked(mark) == {}
    assert f"logs: {own_home / 'logs'}" in told
    assert "cloud: ready, wan: ready, edge: ready" in told
    assert f"the link is controlled at {link}: GKT_WAN_CONTROL={link} gkt wan profile 4g" in told
    assert "both stopped" in told
    for arguments in family.values():
        assert "GKT_CLOUD_KEYS" not in arguments
        assert "cloud_key" not in arguments


async def test_where_one_side_fails_the_other_is_stopped_and_the_reason_shown(own_home: Path) -> None:
    mark = uuid.uuid4().hex
    broken = own_home / "broken.gguf"
    broken.write_bytes(b"GGUF and nothing else")
    options = ["--teacher", SMALL, "--student", str(broken), "--cloud-port", "0", "--edge-port", "0"]
    # The teacher is elsewhere, so no engine begins to load.
    elsewhere = {"GKT_CLOUD_UPSTREAM_URL": "http://127.0.0.1:9/v1", "GKT_CLOUD_UPSTREAM_API": "chat"}
    outcome = await gkt_process("up", *options, environment={"GKT_TEST_MARK": mark, **elsewhere})
    assert outcome.status == 1
    assert outcome.out == ""
    assert "cannot load broken.gguf" in outcome.err, "the end of the edge's log"
    assert outcome.err.splitlines()[-1].startswith("gkt: the edge ended unexpectedly")
    assert marked(mark) == {}


def marked(mark: str) -> dict[int, str]:
    """Return the command lines of all processes that inherited our mark, by process id."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found
