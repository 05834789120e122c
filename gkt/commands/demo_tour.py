"""The tour of `gkt demo`: an answer over each kind of link, and one whose link is cut in the middle of its guidance."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from gkt.local.edge_client import streamed
from gkt.terminal.transcript import Transcript
from shared.errors import StreamBroken
from shared.protocol.gkt import GktReport, Side, Source
from wan import PROFILES, FaultKind
from wan.control import Control
from wan.link.conditions import Conditions
from wan.table import bandwidth

QUESTIONS = {
    "fibre": "Why is the sky blue? Answer in one sentence.",
    "4g": "What does a compiler do? Answer in one sentence.",
    "train": "Name the four seasons and one thing that people do in each.",
    "satellite": "Why do leaves turn red in autumn? Answer in two sentences.",
    "offline": "What is 17 + 25?",
}
CUT_QUESTION = "Explain in three sentences how rain comes about."
CUT_GUIDANCE_TOKENS = 40
"""Budget of guidance that is large enough for the cut to happen during it."""
TRAIN_SEED = 3


@dataclass(frozen=True)
class TimedAnswer:
    """An answer with its times at the client and its bytes on the link."""

    report: GktReport
    first_word_s: float
    total_s: float
    bytes_up: int
    bytes_down: int

    @property
    def teacher(self) -> Side:
        return self.report.teacher or Side(model="")


@dataclass(frozen=True)
class Stop:
    """A profile, its guided answer, and the teacher's own answer if the link reaches it."""

    profile: str
    guided: TimedAnswer
    alone: TimedAnswer | None


class Tour:
    """Runs the tour and prints each step. Raises the errors of the clients of edge and link."""

    def __init__(
        self,
        client: httpx.Client,
        control: Control,
        link: str,
        *,
        max_tokens: int,
        max_guidance_tokens: int,
        profiles: list[str],
    ) -> None:
        self._client = client
        self._control = control
        self._link = link
        self._max_tokens = max_tokens
        self._max_guidance_tokens = max_guidance_tokens
        self._profiles = profiles
        console = Console(highlight=False)
        self._console = console if console.is_terminal else Console(highlight=False, width=120)

    def run(self) -> None:
        """Run the whole tour. At the end the link has no profile and no fault."""
        try:
            self._ask(
                "Hello", max_tokens=4
            )  # the first request also loads parts of the engines, which is not the link's latency
            stops = [self._visit(name) for name in self._profiles]
            self._console.print(_table(stops))
            self._cut()
        finally:
            self._control.do(self._link, "resume")
            self._control.set_conditions(self._link, Conditions())

    def _visit(self, name: str) -> Stop:
        state = self._control.do(self._link, "profile", name=name, seed=TRAIN_SEED)
        conditions = state.conditions
        link = "" if state.fault else f", {conditions.latency_ms:g} ms round trip"
        up, down = bandwidth(conditions.up_kbit), bandwidth(conditions.down_kbit)
        link += f", {up} up, {down} down" if up and down else ""
        changing = " at first" if PROFILES[name].kinds else ""
        self._head(f"{name}: {PROFILES[name].summary}{link}{changing}")
        guided = self._show(QUESTIONS[name])
        alone = None
        if not state.fault:
            # The second request: the prompt is in the teacher's cache by now, so this time is a lower bound.
            alone = self._ask(QUESTIONS[name], model="gkt-teacher", gkt=None)
        return Stop(name, guided, alone)

    def _cut(self) -> None:
        self._control.do(self._link, "profile", name="4g")
        self._head("the cable is cut during the guidance")

        def cut() -> None:
            self._control.do(self._link, FaultKind.CUT)

        answer = self._show(CUT_QUESTION, on_teacher=cut, gkt={"max_guidance_tokens": CUT_GUIDANCE_TOKENS})
        segments = answer.report.segments[0]
        arrived, rest = (sum(s.tokens for s in segments if s.source is who) for who in (Source.TEACHER, Source.STUDENT))
        reason = answer.report.fallback
        self._console.print(
            f"{arrived} of at most {CUT_GUIDANCE_TOKENS} tokens of guidance had arrived. They stay, and the student completed "
            f"the answer with {rest} more. Its report gives the reason: fallback: {reason.value if reason else 'none'}.",
            soft_wrap=True,
        )
        self._control.do(self._link, "resume")
        next_answer = self._ask(QUESTIONS["4g"])
        after_repair = next_answer.report.fallback
        self._console.print(
            f"The cable is connected again: the teacher wrote {next_answer.teacher.completion_tokens} tokens of the next answer"
            f" (fallback: {after_repair.value if after_repair else 'none'}).",
            soft_wrap=True,
        )

    def _head(self, text: str) -> None:
        self._console.print(f"\n[bold]{text}[/bold]", soft_wrap=True)

    def _show(self, question: str, **options: Any) -> TimedAnswer:
        self._console.print(f"[dim]{question}[/dim]")
        transcript = Transcript(marks=True)
        try:
            answer = self._ask(question, on_text=transcript.write, **options)
            transcript.figures(answer.report)
        finally:
            transcript.close()
        return answer

    def _ask(
        self,
        question: str,
        *,
        on_text: Callable[[Source, str], None] = lambda source, text: None,
        on_teacher: Callable[[], None] | None = None,
        **body: Any,
    ) -> TimedAnswer:
        """Ask the edge. `on_teacher` is called once, when the first guidance arrives."""
        request = {
            "model": "gkt",
            "messages": [{"role": "user", "content": question}],
            "max_tokens": self._max_tokens,
            "gkt": {"max_guidance_tokens": self._max_guidance_tokens},
            **body,
        }
        before = self._control.link(self._link)
        began = time.perf_counter()
        first: float | None = None
        for item in streamed(self._client, request):
            if isinstance(item, GktReport):
                after = self._control.link(self._link)
                total = time.perf_counter() - began
                return TimedAnswer(
                    item,
                    first_word_s=total if first is None else first,
                    total_s=total,
                    bytes_up=after.bytes_up - before.bytes_up,
                    bytes_down=after.bytes_down - before.bytes_down,
                )
            source, text = item
            if text and first is None:
                first = time.perf_counter() - began
            on_text(source, text)
            if text and source is Source.TEACHER and on_teacher:
                on_teacher()
                on_teacher = None
        raise StreamBroken("the answer ended without its report")


def _table(stops: list[Stop]) -> Table:
    table = Table(title="\nGuided answers, and the teacher alone", title_justify="left", box=None, pad_edge=False)
    table.add_column("profile")
    table.add_column("mode")
    for heading in ("first word", "in all", "bytes up", "down", "teacher's\ntokens"):
        table.add_column(heading, justify="right")
    for heading in ("alone:\nin all", "bytes\ndown", "teacher's\ntokens"):
        table.add_column(heading, justify="right", style="dim")
    table.add_column("fallback")
    for stop in stops:
        guided, alone = stop.guided, stop.alone
        reason = guided.report.fallback
        table.add_row(
            stop.profile,
            guided.report.mode,
            f"{guided.first_word_s:.2f} s",
            f"{guided.total_s:.2f} s",
            f"{guided.bytes_up:,}",
            f"{guided.bytes_down:,}",
            f"{guided.teacher.completion_tokens}",
            _alone_time(alone),
            f"{alone.bytes_down:,}" if alone else "",
            f"{alone.teacher.completion_tokens}" if alone else "",
            reason.value if reason else "",
        )
    return table


def _alone_time(alone: TimedAnswer | None) -> str:
    """Format the time of the teacher alone, with the reason if the student had to answer instead."""
    if alone is None:
        return "never"
    reason = alone.report.fallback
    return f"{alone.total_s:.2f} s" + (f" ({reason.value})" if reason else "")
