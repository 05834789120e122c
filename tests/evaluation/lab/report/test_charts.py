"""Charts are well-formed and escaped, and their labels do not overlap."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import combinations, product
from typing import NamedTuple

import pytest

from evaluation.lab.analysis.arm_summary import TaskSummary, summarise
from evaluation.lab.report import charts
from evaluation.lab.report.pages import page, strips
from evaluation.lab.results.rows import Row
from shared.prices import Prices
from shared.protocol.gkt import Segment, Source
from tests.evaluation.lab import made_up

PRICES = Prices(1, 0.1, 4)
SVG = "{http://www.w3.org/2000/svg}"
CHAR_PX, FONT_PX = 6.6, 12


class Box(NamedTuple):
    """The place of a text in a chart."""

    text: str
    left: float
    top: float
    right: float
    bottom: float

    def covers(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def _task(rows: list[Row] | None = None) -> TaskSummary:
    return summarise(rows or list(made_up.rows(40)), PRICES)[0]


@pytest.fixture(scope="module")
def drawn() -> dict[str, ET.Element]:
    return _drawn(_task())


def _drawn(task: TaskSummary) -> dict[str, ET.Element]:
    return {chart.title: ET.fromstring(chart.svg) for chart in charts.charts(task)}


def _texts(chart: ET.Element) -> list[str]:
    return [text.text or "" for text in chart.iter(f"{SVG}text")]


def _boxes(chart: ET.Element) -> list[Box]:
    """The texts that are not turned."""
    boxes = []
    for text in chart.iter(f"{SVG}text"):
        words, style = text.text or "", text.get("style", "")
        if "rotate(-90" in text.get("transform", ""):
            continue
        x, y, width = float(text.get("x", "nan")), float(text.get("y", "nan")), len(words) * CHAR_PX
        anchor = (re.search(r"text-anchor: (\w+)", style) or ["", "start"])[1]
        left = x - {"start": 0, "middle": width / 2, "end": width}[anchor]
        boxes.append(Box(words, left, y - 0.75 * FONT_PX, left + width, y))
    return boxes


def _marks(chart: ET.Element) -> list[tuple[float, float]]:
    """Centres of the marks that have a tooltip."""
    groups = [group for group in chart.iter(f"{SVG}g") if group.find(f"{SVG}title") is not None]
    return [(float(use.get("x", "nan")), float(use.get("y", "nan"))) for g in groups for use in g.iter(f"{SVG}use")]


def test_every_arm_has_its_name_and_its_mark(drawn: dict[str, ET.Element]) -> None:
    chart = drawn["Accuracy against the teacher's words"]

    assert {"off", "fixed:40", "review:0.1/hand-back=3", "teacher"} <= set(_texts(chart))
    assert "tokens written by the teacher" in _texts(chart)
    tooltips = [title.text or "" for title in chart.iter(f"{SVG}title")]
    assert len(tooltips) == len(made_up.ARMS)
    assert any(tooltip.startswith("fixed:40: accuracy") for tooltip in tooltips)
    assert chart.get("aria-label") == "gsm8k: accuracy against tokens written by the teacher"


def test_in_a_crowd_only_the_plain_and_the_best_have_their_names() -> None:
    rows = [row for row in made_up.rows(40) if row.task == "gsm8k"]
    poor = [row.model_copy(update={"arm": f"poor:{at}"}) for at in range(6) for row in rows if row.arm == "off"]
    dear = [row.model_copy(update={"teacher": row.teacher.model_copy(update={"output": 500})}) for row in poor]
    task = _task(rows + dear)
    texts = _texts(_drawn(task)["Accuracy against the teacher's words"])

    numbers = charts.numbered(task, task.front_by_tokens)
    assert [arm.arm for arm in task.arms].index("poor:2") + 1 == int(numbers["poor:2"])
    assert {"off", "fixed:40", "teacher", *numbers.values()} <= set(texts)
    assert "poor:2" not in texts
    assert charts.numbered(_task(), ()) == {}


def test_texts_stay_within_their_frame_and_cover_neither_each_other_nor_the_marks(
    drawn: dict[str, ET.Element],
) -> None:
    for title, chart in drawn.items():
        width, height = (float(size) for size in chart.get("viewBox", "").split()[2:])
        boxes = _boxes(chart)
        for box in boxes:
            assert -2 < box.left < box.right < width + 12, (title, box)
            assert 0 < box.top < box.bottom < height, (title, box)
        marks = [Box("", x - 2, y - 2, x + 2, y + 2) for x, y in _marks(chart)]
        for one, other in [*combinations(boxes, 2), *product(boxes, marks)]:
            assert not one.covers(other), (title, one, other)


def test_the_same_rows_give_the_same_charts(drawn: dict[str, ET.Element]) -> None:
    again = _drawn(_task())
    assert {title: ET.tostring(chart) for title, chart in drawn.items()} == {
        t: ET.tostring(c) for t, c in again.items()
    }


def test_lengths_are_ticks_and_references_lines(drawn: dict[str, ET.Element]) -> None:
    texts = _texts(drawn["Accuracy against guidance length"])
    assert {"10", "20", "40", "80"} <= set(texts)
    assert any(text.startswith("teacher alone") for text in texts)


def test_where_there_is_nothing_to_draw_there_is_no_chart() -> None:
    assert charts.charts(_task([Row(task="t", question_id="1", arm="off", correct=None)])) == []


def test_one_arm_with_one_question_can_be_drawn() -> None:
    drawn = _drawn(_task([Row(task="t", question_id="1", arm="fixed:40", correct=True, total_s=0.0)]))
    assert "fixed:40" in _texts(drawn["Accuracy against the teacher's words"])
    assert "40" in _texts(drawn["Accuracy against guidance length"])
    assert "fixed:40" in _texts(drawn["Latency"])


def test_a_name_is_no_markup_of_any_kind() -> None:
    name = "review:$a<b>_c$"
    rows = [row.model_copy(update={"arm": name}) if row.arm == "review:0.1" else row for row in made_up.rows(40)]
    assert name in _texts(_drawn(_task(rows))["Latency"])


def test_strips_are_as_long_as_the_text_they_stand_for() -> None:
    segments = (Segment(source=Source.TEACHER, chars=10, tokens=3), Segment(source=Source.STUDENT, chars=30, tokens=9))
    row = Row(task="t", question_id="1", arm="a<b>", correct=True, output="x" * 40, segments=segments)
    short = row.model_copy(update={"arm": "short", "output": "x" * 20, "correct": False})
    task = _task([row, short, row.model_copy(update={"arm": "none", "output": ""})])

    (strip,) = strips(task)
    assert list(strip.rows) == ["a<b>", "short"]
    html = page([task], title="", about="")
    widths = [float(width) for width in re.findall(r'<div style="width: ([\d.]+)%', html)]
    assert widths[0] == pytest.approx(2 * widths[1])
    assert re.findall(r'<i class="(\w+)" style="flex-grow: (\d+)"', html)[:2] == [("teacher", "10"), ("student", "30")]
    assert re.findall(r"<b>([✓✗?])</b>", html) == ["✓", "✗"]
    assert "a&lt;b&gt;" in html
