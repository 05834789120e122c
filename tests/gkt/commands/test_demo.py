"""`gkt demo` as a process, against a real cloud, link and edge with scripted models."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from cloud_teacher.app import create_app as create_cloud
from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.teachers.base import DEFAULT_HINTS, GenerationParams, OutputChunk, Prompt, SchedulingHints
from edge_student.app import create_app as create_edge
from edge_student.settings import EdgeSettings
from gkt.commands.demo_tour import CUT_QUESTION, QUESTIONS
from shared.errors import EngineFailed
from tests.cloud_teacher.fakes import ScriptedTeacher
from tests.edge_student.fakes import ScriptedStudent
from tests.gkt.run_command import gkt
from tests.running import serving
from tests.wan.targets import until
from wan import Link, Wan
from wan.app import create_app as create_wan

KEY = "a-key-for-tests"
WORDS = (" scatters", " more", " where", " it", " is", " blue", " than", " where", " it", " is", " red")


class WaitingTeacher(ScriptedTeacher):
    """Waits for the cut before its second word, in the answer during which the cable is cut."""

    link: Link
    fails_alone = False
    """If set, the engine fails when the teacher should write the whole answer to the first question."""

    async def stream(
        self, request_id: str, prompt: Prompt, params: GenerationParams, hints: SchedulingHints = DEFAULT_HINTS
    ) -> AsyncGenerator[OutputChunk, None]:
        place = 0
        async for piece in super().stream(request_id, prompt, params, hints):
            if place and CUT_QUESTION in self.prompts[-1]:
                await until(lambda: self.link.live == 0)
            if place and self.fails_alone and QUESTIONS["fibre"] in self.prompts[-1] and params.max_tokens > 8:
                raise EngineFailed("the engine has failed")
            place += 1
            yield piece


@dataclass
class Running:
    edge: str
    control: str
    wan: Wan


@asynccontextmanager
async def running(*links: str, fails_alone: bool = False) -> AsyncGenerator[Running]:
    teacher = WaitingTeacher("Light", *WORDS, max_model_len=2000)
    cloud = create_cloud(CloudSettings(keys=(KEY,), max_model_len=2000, max_prompt_tokens=1000), teacher=teacher)
    async with serving(cloud) as cloud_url:
        wan = Wan(dict.fromkeys(links, "127.0.0.1:0"), to=urlsplit(cloud_url).netloc)
        async with serving(create_wan(wan)) as control:
            teacher.link = wan.link(links[0])
            teacher.fails_alone = fails_alone
            settings = EdgeSettings(cloud_url=wan.link(links[0]).url, cloud_key=KEY)
            async with serving(create_edge(settings, student=ScriptedStudent(" and", " so", " on."))) as edge:
                yield Running(edge, control, wan)


async def test_the_tour_shows_every_link_and_the_answer_outlives_the_cable() -> None:
    async with running("edge-a") as r:
        places = ["--edge", r.edge, "--control", r.control]
        outcome = await gkt("demo", *places, "--max-guidance-tokens", "8", environment={"COLUMNS": "150"})
        assert (outcome.status, outcome.err) == (0, "")
        state = r.wan.link("edge-a").state
    shown = outcome.out
    assert re.search(r"^\[teacher\] Light scatters[a-z ]*\[student\]  and so on\.$", shown, re.MULTILINE)
    rows = [row(shown, name) for name in QUESTIONS]
    for name, cells in zip(QUESTIONS, rows, strict=True):
        profile, mode, first, total, up, down, tokens, alone_total, *rest = cells
        assert (profile, mode) == (name, "fixed")
        assert 0 <= seconds(first) <= seconds(total)
        if name == "offline":
            assert (up, down, tokens, alone_total, rest) == ("0", "0", "0", "never", ["unreachable"])
        else:
            assert 2 <= int(tokens) <= 8, "whole words within the budget"
            assert int(up) > 100
            assert int(down.replace(",", "")) > 300
            assert rest[1:] == ["12"], "the teacher alone writes its whole answer, and nothing fell back"
            assert int(rest[0].replace(",", "")) > int(down.replace(",", ""))
    fibre, satellite = rows[0], rows[3]
    assert seconds(satellite[2]) >= 0.6 > 0.008 <= seconds(fibre[2]), "a first word takes a round trip at least"
    cut = shown[shown.index("the cable is cut") :]
    assert "[teacher] Light[student]  and so on." in cut
    assert "1 of at most 40 tokens of guidance had arrived" in cut
    assert "fallback: broken." in cut
    assert re.search(r"the teacher wrote [2-8] tokens of the next answer \(fallback: none\)", cut)
    assert (state.profile, state.fault, state.conditions.latency_ms) == (None, None, 0)


async def test_one_of_several_links_has_to_be_named() -> None:
    async with running("edge-a", "edge-b") as r:
        places = ["--edge", r.edge, "--control", r.control, "--profile", "offline"]
        unnamed = await gkt("demo", *places)
        assert (unnamed.status, unnamed.err) == (1, "gkt: --link: expected one of edge-a, edge-b\n")
        outcome = await gkt("demo", *places, "--link", "edge-a", "--max-guidance-tokens", "8")
        assert (outcome.status, outcome.err) == (0, "")
        assert row(outcome.out, "offline")
        assert not [line for line in outcome.out.splitlines() if line.startswith("satellite")]
        assert r.wan.link("edge-b").opened == 0


async def test_figures_that_are_not_the_teachers_alone_say_so() -> None:
    async with running("edge-a", fails_alone=True) as r:
        places = ["--edge", r.edge, "--control", r.control, "--profile", "fibre"]
        outcome = await gkt("demo", *places, "--max-guidance-tokens", "8")
        assert (outcome.status, outcome.err) == (0, "")
    assert re.fullmatch(r"[\d.]+ s \(failed\)", row(outcome.out, "fibre")[7])


async def test_wrong_usage() -> None:
    assert (await gkt("demo", "--edge", "http://127.0.0.1:9")).status == 2
    assert (await gkt("demo", "--profile", "5g")).status == 2


def row(shown: str, profile: str) -> list[str]:
    """Return the cells of a profile's line in the table."""
    table = shown[shown.index("Guided answers") :].splitlines()
    return re.split(r" {2,}", next(line for line in table if line.startswith(f"{profile} ")).strip())


def seconds(cell: str) -> float:
    return float(cell.removesuffix(" s"))
