"""The control API and the commands, on a link that runs as a process."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from shared.errors import GktError
from tests.gkt.run_command import gkt, gkt_process
from tests.wan.serving import served
from tests.wan.targets import echo, target
from wan.commands import app as commands

pytestmark = pytest.mark.system

METRICS = {
    'gkt_wan_bytes_total{direction="up",link="edge-a"}': 5.0,
    'gkt_wan_bytes_total{direction="down",link="edge-a"}': 5.0,
    'gkt_wan_connections_total{link="edge-a"}': 1.0,
    'gkt_wan_connections_total{link="edge-b"}': 0.0,
    'gkt_wan_live_connections{link="edge-a"}': 1.0,
    'gkt_wan_faults_total{kind="stall",link="edge-a"}': 1.0,
    'gkt_wan_under_way_bytes{link="edge-a"}': 0.0,
}


async def test_the_control_api_while_bytes_pass(tmp_path: Path) -> None:
    async with (
        target(echo) as address,
        served(
            tmp_path, "--link", "edge-a=0", "--link", "edge-b=127.0.0.1:0", "--to", address, "--profile", "fibre"
        ) as wan,
    ):
        assert (await wan.http.get("/health")).json()["status"] == "ok"
        links = (await wan.http.get("/v1/links")).json()["links"]
        assert [(link["name"], link["profile"], link["to"]) for link in links] == [
            ("edge-a", "fibre", address),
            ("edge-b", "fibre", address),
        ]
        reader, writer = await asyncio.open_connection(*await wan.address("edge-a"))
        put = await wan.http.put("/v1/links/edge-a", json={"latency_ms": 1, "up_kbit": 8000})
        assert put.json()["conditions"] == {"latency_ms": 1.0, "jitter_ms": 0.0, "up_kbit": 8000.0, "down_kbit": None}
        assert put.json()["profile"] is None
        stalled = (await wan.http.post("/v1/links/edge-a/stall", json={"direction": "down"})).json()
        assert (stalled["stalled"], stalled["fault"]["kind"], stalled["live"]) == (True, "stall", 1)
        writer.write(b"hello")
        while (await wan.http.get("/v1/links/edge-a")).json()["bytes_up"] < 5:
            await asyncio.sleep(0.005)
        assert (await wan.http.post("/v1/links/edge-a/resume")).json()["fault"] is None
        assert await reader.readexactly(5) == b"hello"
        lines = (await wan.http.get("/metrics")).text.splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        assert {name: float(values[name]) for name in METRICS} == METRICS
        cut = (await wan.http.post("/v1/links/edge-a/cut")).json()
        assert (cut["live"], cut["faults"]) == (0, {"stall": 1, "cut": 1})
        assert await reader.read() == b""
        writer.close()
        reader, writer = await asyncio.open_connection(*await wan.address("edge-b"))
        writer.write(b"x")
        await reader.readexactly(1)
        assert await wan.stop() == 0
        assert await reader.read() == b"", "connections that live are closed"
        writer.close()


WRONG: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("PUT", "edge", {"latency_ms": "80ms"}, 400, "latency_ms"),
    ("PUT", "edge", {"latency": 80}, 400, "latency"),
    ("PUT", "edge", {"latency_ms": -1}, 400, "latency_ms"),
    ("PUT", "edge", {"up_kbit": 0}, 400, "up_kbit"),
    ("POST", "edge/cut", {"after_bytes": 1.5}, 400, "after_bytes"),
    ("POST", "edge/stall", {"direction": "sideways"}, 400, "direction"),
    ("POST", "edge/corrupt", {"rate": 2}, 400, "rate"),
    ("POST", "edge/profile", {"name": "5g"}, 404, "profile '5g' not found"),
    ("POST", "nowhere/cut", {}, 404, "link 'nowhere' not found"),
    ("POST", "edge/explode", {}, 404, "no endpoint at"),
]


async def test_what_the_control_api_does_not_take(tmp_path: Path) -> None:
    async with served(tmp_path, "--link", "edge=0", "--to", "1") as wan:
        for method, path, body, status, message in WRONG:
            response = await wan.http.request(method, f"/v1/links/{path}", json=body)
            assert response.status_code == status, path
            assert message in response.json()["error"]["message"]
        assert await wan.stop(signal.SIGINT) == 130


async def asked(control: str, *arguments: str) -> Result:
    """Run a command in this process, in a thread of its own."""
    environment = {"GKT_WAN_CONTROL": control, "COLUMNS": "200", "TERM": "dumb"}
    return await asyncio.to_thread(CliRunner().invoke, commands, arguments, env=environment)


async def test_the_commands(tmp_path: Path) -> None:
    async def wanted(*arguments: str) -> str:
        outcome = await asked(wan.control, *arguments)
        assert outcome.exception is None, arguments
        return outcome.stdout

    async def shown(link: str) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(await wanted("show", link, "--json"))["links"][0]
        return state

    async with served(tmp_path, "--link", "edge-a=0", "--link", "edge-b=0", "--to", "1") as wan:
        await wanted("set", "--latency", "80ms", "--bandwidth", "2mbit")
        await wanted("set", "--up", "500kbit", "--jitter", "0.01s", "edge-a")
        a, b = await shown("edge-a"), await shown("edge-b")
        assert a["conditions"] == {"latency_ms": 80, "jitter_ms": 10, "up_kbit": 500, "down_kbit": 2000}
        assert b["conditions"] == {"latency_ms": 80, "jitter_ms": 0, "up_kbit": 2000, "down_kbit": 2000}
        await wanted("cut", "edge-a")
        await wanted("stall", "edge-b", "--direction", "down", "--after", "1000")
        table = await wanted("show")
        assert [line for line in table.splitlines() if "edge-a" in line and "cut" in line and "80 +10 ms" in line]
        assert [line for line in table.splitlines() if "edge-b" in line and "stall in 1,000 bytes" in line]
        await wanted("resume")
        await wanted("reset")
        await wanted("refuse", "edge-a")
        await wanted("corrupt", "edge-b", "--rate", "0.5", "--seed", "3")
        assert (await shown("edge-a"))["fault"]["kind"] == "refuse"
        fault = (await shown("edge-b"))["fault"]
        assert (fault["kind"], fault["rate"], fault["seed"]) == ("corrupt", 0.5, 3)
        await wanted("profile", "train", "--seed", "4")
        a, b = await shown("edge-a"), await shown("edge-b")
        assert (a["profile"], a["fault"], b["profile"], b["fault"]) == ("train", None, "train", None)


WRONG_COMMANDS = [
    (["set", "--latency", "80"], "80: expected a time as a number with its unit and no space, such as 80ms or 0.6s"),
    (["cut", "nowhere"], "link 'nowhere' not found; available links: edge"),
    (["profile", "5g"], "profile '5g' not found; available profiles: fibre, 4g, satellite, offline, train"),
    (["corrupt", "--rate", "7"], "rate: Input should be less than or equal to 1"),
    (["show", "--control", "http://127.0.0.1:9"], "no control API of a wide-area link at http://127.0.0.1:9"),
    (["serve", "--link", "a", "--to", "1"], "--link a: expected NAME=HOST:PORT"),
    (["serve", "--link", "a=1", "--link", "a=2", "--to", "1"], "--link a=2: two links have the name a"),
    (["serve", "--link", "a=x:y", "--to", "1"], "x:y: expected HOST:PORT"),
    (["serve", "--link", "a=0", "--to", "0"], "--to 0: expected HOST:PORT with a port above 0"),
    (["serve", "--link", "a=0", "--to", "1", "--profile", "5g"], "profile '5g' not found"),
]


async def test_wrong_commands_say_what_would_be_right(tmp_path: Path) -> None:
    async with served(tmp_path, "--link", "edge=0", "--to", "1") as wan:
        for arguments, message in WRONG_COMMANDS:
            error = (await asked(wan.control, *arguments)).exception
            assert isinstance(error, GktError), arguments
            assert error.message.startswith(message)
        outcome = await gkt("wan", "cut", "nowhere", environment={"GKT_WAN_CONTROL": wan.control})
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err == "gkt: link 'nowhere' not found; available links: edge\n"


async def test_a_port_in_use_ends_it_with_1_and_says_so(tmp_path: Path) -> None:
    async with served(tmp_path, "--link", "edge=0", "--to", "1") as wan:
        host, port = await wan.address("edge")
        outcome = await gkt_process("wan", "serve", "--control", "0", "--link", f"edge={host}:{port}", "--to", "1")
    assert outcome.status == 1
    assert f"edge cannot listen on {host}:{port}: Address already in use" in outcome.err
    assert "Traceback" not in outcome.err
