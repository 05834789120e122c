"""`gkt ask` as a process, against a real edge with scripted models."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from edge_student.app import create_app
from edge_student.cloud.client import CloudFailed
from edge_student.settings import EdgeSettings
from shared.protocol.gkt import FallbackReason
from tests.edge_student.fakes import ScriptedCloud, ScriptedStudent
from tests.gkt.run_command import gkt
from tests.running import serving

FIGURES = re.compile(
    r"teacher \(scripted-teacher\) 2 tokens in [\d,]+ ms · student \(scripted-student\) 2 tokens in [\d,]+ ms"
    r" · 50% of cloud tokens saved"
)


@asynccontextmanager
async def edge(
    student: ScriptedStudent | None = None, cloud: ScriptedCloud | None = None, **settings: Any
) -> AsyncGenerator[str]:
    student = student or ScriptedStudent(" are", " 18.")
    cloud = cloud or ScriptedCloud("There", " x")
    app = create_app(EdgeSettings(max_guidance_tokens=2, **settings), student=student, cloud=cloud)
    async with serving(app) as url:
        yield url


async def test_in_a_pipe_the_answer_alone_goes_out_and_the_figures_to_standard_error() -> None:
    async with edge() as url:
        outcome = await gkt("ask", "How many eggs?", "--url", url)
    assert (outcome.status, outcome.out) == (0, "There are 18.\n")
    assert FIGURES.match(outcome.err)
    assert "\x1b" not in outcome.err


@pytest.mark.system
async def test_a_terminal_shows_who_wrote_what_and_the_last_line_is_the_legend() -> None:
    async with edge() as url:
        shown = await on_terminal("ask", "How many eggs?", "--url", url)
    teacher, student = "\x1b[38;2;230;159;0m", "\x1b[38;2;86;180;233m"
    assert f"{teacher}There" in shown
    assert f"{student} are\x1b[0m{student} 18.\x1b[0m" in shown
    last = shown.strip().splitlines()[-1]
    assert f"{teacher}teacher\x1b[0m" in last
    assert f"{student}student\x1b[0m" in last
    assert FIGURES.match(re.sub(r"\x1b\[[\d;]*m", "", last))


@pytest.mark.system
async def test_a_terminal_without_colour_gets_plain_text() -> None:
    async with edge() as url:
        shown = await on_terminal("ask", "How many eggs?", "--url", url, NO_COLOR="1")
    assert "\x1b[38" not in shown
    assert shown.startswith("There are 18.\r\n")


@pytest.mark.system
async def test_what_models_write_cannot_steer_the_terminal() -> None:
    student = ScriptedStudent("\x1b[2J", " [red]are", "\x1b", "[31", "m", " 18.", "\x07")
    async with edge(student, ScriptedCloud("\x1b]0;owned\x07There", " x")) as url:
        outcome = await gkt("ask", "How many eggs?", "--url", url)
        shown = await on_terminal("ask", "How many eggs?", "--url", url)
    assert outcome.out == "]0;ownedThere [red]are 18.\n"
    text = re.sub(r"\x1b\[[\d;]*m", "", shown.replace("\r\n", "\n"))
    assert text.startswith("]0;ownedThere [red]are 18.\n")


async def test_options_reach_the_edge() -> None:
    student, cloud = ScriptedStudent(" are", " 18.", " Or", " 19."), ScriptedCloud("There", " now", " x")
    async with edge(student, cloud) as url:
        options = ["--max-guidance-tokens", "3", "--max-tokens", "5", "--system", "Be brief."]
        outcome = await gkt("ask", "-", "--url", url, *options, stdin="Wie viele Öfen?\n".encode())
        await gkt("ask", "Hi", "--url", url, "--mode", "off")
    assert outcome.out == "There now are 18.\n"
    assert cloud.requests[0].max_guidance_tokens == 3
    assert [(m.role, m.content) for m in cloud.requests[0].messages] == [
        ("system", "Be brief."),
        ("user", "Wie viele Öfen?\n"),
    ]
    assert len(cloud.requests) == 1, "the student alone answers in mode off"


async def test_json_is_the_answer_of_the_edge() -> None:
    async with edge() as url:
        outcome = await gkt("ask", "How many eggs?", "--url", url, "--json")
    answer = json.loads(outcome.out)
    assert answer["choices"][0]["message"]["content"] == "There are 18."
    assert [s["source"] for s in answer["gkt"]["segments"][0]] == ["teacher", "student"]
    assert outcome.err == ""


async def test_a_fallback_is_named() -> None:
    async with edge(cloud=ScriptedCloud("There", " x", ends=CloudFailed(FallbackReason.STALLED))) as url:
        outcome = await gkt("ask", "How many eggs?", "--url", url)
    assert outcome.status == 0
    assert outcome.err.rstrip().endswith("fallback: stalled")


async def test_where_no_edge_is_it_says_how_to_start_one() -> None:
    with socket.socket() as nobody:  # bound and not listening: the port is ours, and refuses
        nobody.bind(("127.0.0.1", 0))
        outcome = await gkt("ask", "Hi", "--url", f"http://127.0.0.1:{nobody.getsockname()[1]}")
    assert (outcome.status, outcome.out) == (1, "")
    assert "gkt up" in outcome.err
    assert outcome.err.count("\n") == 1
    for url in ("127.0.0.1:8081", "http://[", "ftp://127.0.0.1"):
        outcome = await gkt("ask", "Hi", "--url", url)
        assert outcome.status == 1
        assert outcome.err.startswith(f"gkt: no edge at {url}")


async def test_what_the_edge_refuses_is_told() -> None:
    async with edge(ScriptedStudent(context_tokens=5)) as url:
        outcome = await gkt("ask", "How many eggs?", "--url", url)
        assert (outcome.status, outcome.out) == (1, "")
        assert outcome.err.startswith("gkt: the edge rejected the request (400): ")
        outcome = await gkt("ask", "How many eggs?", "--url", url, "--json", "--model", "gpt")
        assert outcome.status == 1
        assert outcome.err.startswith("gkt: the edge rejected the request (404): ")


async def test_an_edge_that_wants_a_key_gets_the_one_in_the_environment() -> None:
    async with edge(api_keys="sesame") as url:
        for key, status in (("", 1), ("wrong", 1), ("sesame", 0), ("two words", 1)):
            for options in ([], ["--json"]):
                environment = {"GKT_EDGE_API_KEY": key}
                outcome = await gkt("ask", "How many eggs?", "--url", url, *options, environment=environment)
                assert outcome.status == status
                assert status == 0 or outcome.err.count("\n") == 1
                assert not key or key == "sesame" or key not in outcome.err
    assert "GKT_EDGE_API_KEY: expected printable ASCII" in outcome.err


async def test_an_answer_that_breaks_off_is_an_error_after_what_had_come() -> None:
    async with edge(ScriptedStudent(" are", " 18.", dies_after=1)) as url:
        outcome = await gkt("ask", "How many eggs?", "--url", url)
    assert (outcome.status, outcome.out) == (1, "There are\n")
    assert outcome.err == "gkt: the engine died\n"


async def test_something_else_at_the_address_is_told_apart() -> None:
    other = FastAPI()
    other.post("/v1/chat/completions", response_class=PlainTextResponse)(lambda: "hello")
    async with serving(other, ready=False) as url:
        for options in ([], ["--json"]):
            outcome = await gkt("ask", "Hi", "--url", url, *options)
            assert outcome.status == 1
            assert outcome.err.startswith("gkt: not an answer of an edge: ")


async def test_an_empty_question_is_wrong_usage() -> None:
    for question in ("", "-"):
        outcome = await gkt("ask", question)
        assert outcome.status == 2
        assert "the question is empty" in outcome.err
    outcome = await gkt("ask", "-", stdin=b"\xff\xfe")
    assert outcome.status == 2
    assert "not valid UTF-8" in outcome.err


async def on_terminal(*arguments: str, **environment: str) -> str:
    """Run `gkt` in a terminal with true colours, and return its output."""
    ours, theirs = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gkt", *arguments),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**inherited, "TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "200", **environment},
        )
    finally:
        os.close(theirs)

    def read() -> bytes:
        seen = b""
        with suppress(OSError):  # a terminal ends like this when its other end is closed
            while piece := os.read(ours, 4096):
                seen += piece
        return seen

    try:
        shown = await asyncio.to_thread(read)
        assert await process.wait() == 0
    finally:
        os.close(ours)
    return shown.decode()
