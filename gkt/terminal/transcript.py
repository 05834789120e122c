"""An answer on the terminal: each writer in its colour, and a last line of figures."""

from __future__ import annotations

import io
import sys

from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style
from rich.text import Text

from gkt.terminal.sanitize import Plain, plain
from shared.protocol.gkt import GktReport, Side, Source

# Orange and sky blue of Okabe and Ito's palette, which people with any colour vision can tell apart.
STYLES = {Source.TEACHER: Style.parse("#e69f00"), Source.STUDENT: Style.parse("#56b4e9")}


class Transcript:
    """Prints an answer while it streams.

    It is in colour if standard output is a terminal with colours and NO_COLOR is not set. Otherwise only the plain answer goes
    to standard output, and the figures go to standard error; with `marks`, each segment begins with its source, and the figures
    follow on standard output.
    """

    def __init__(self, *, marks: bool = False) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # an answer may have characters that the terminal's encoding lacks
        self._console = Console(highlight=False)
        self._colours = self._console.is_terminal and bool(self._console.color_system) and not self._console.no_color
        self._marks = marks and not self._colours
        self._source: Source | None = None
        self._plain = Plain()
        self._line_open = False

    def write(self, source: Source, text: str) -> None:
        text = self._plain.push(text)
        if not text:
            return
        if self._marks and source is not self._source:
            sys.stdout.write(f"[{source}] ")
        self._source = source
        self._line_open = not text.endswith("\n")
        if self._colours:
            self._console.print(Segments([Segment(text, STYLES[source])]), end="", soft_wrap=True)
        else:
            sys.stdout.write(text)
            sys.stdout.flush()

    def close(self) -> None:
        """End the current line, so that the next output begins a new one."""
        if self._line_open:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._line_open = False

    def figures(self, report: GktReport) -> None:
        self.close()
        console = (
            self._console if self._colours or self._marks else Console(stderr=True, highlight=False, no_color=True)
        )
        if self._colours:
            console.print()
        console.print(figures(report), soft_wrap=True)


def figures(report: GktReport) -> Text:
    """Format tokens and time of each side, and the saved tokens: `teacher 40 tokens in 900 ms · student ...`.

    A side's time is what it added to the answer's time. Saved is the student's fraction of all tokens, which a teacher alone
    would have written.
    """
    student = report.student
    teacher = report.teacher or Side(model="")
    teacher_ms = teacher.total_ms or 0.0
    student_ms = max(0.0, (student.total_ms or teacher_ms) - teacher_ms)
    parts = [
        _side(Source.TEACHER, teacher, teacher_ms),
        _side(Source.STUDENT, student, student_ms),
    ]
    written = teacher.completion_tokens + student.completion_tokens
    if written:
        parts.append(Text(f"{student.completion_tokens / written:.0%} of cloud tokens saved"))
    if report.cost_usd is not None:
        parts.append(Text(f"${report.cost_usd:.6f}"))
    if report.fallback:
        parts.append(Text(f"fallback: {report.fallback.value}"))
    return Text(" · ").join(parts)


def _side(source: Source, side: Side, time_ms: float) -> Text:
    model = f" ({plain(side.model)})" if side.model else ""
    return Text.assemble(
        (source.value, STYLES[source]), f"{model} {side.completion_tokens} tokens in {time_ms:,.0f} ms"
    )
