"""Charts are well-formed and escaped, and their labels do not overlap."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from evaluation.lab.analysis.arm_summary import TaskSummary, summarise
from evaluation.lab.report import charts
from evaluation.lab.report.label_layout import Box, placed
from evaluation.lab.report.svg import CHAR_PX, FONT_PX, Picture, Scale, fitting, ticks
from evaluation.lab.results.rows import Row
from shared.prices import Prices
from shared.protocol.gkt import Segment, Source
from tests.evaluation.lab import made_up

PRICES = Prices(1, 0.1, 4)
SVG = "{http://www.w3.org/2000/svg}"


def _task(rows: list[Row] | None = None) -> TaskSummary:
    return summarise(rows or list(made_up.rows(40)), PRICES)[0]


def _against_tokens(task: TaskSummary) -> Picture | None:
    return charts.accuracy_against(
        task, lambda arm: arm.teacher_output_tokens, task.front_by_tokens, (), title="tokens", unit=""
    )


def _texts(picture: Picture | None) -> list[str]:
    assert picture
    return [text.text or "" for text in ET.fromstring(picture.render()).iter(f"{SVG}text")]


def test_every_arm_has_its_name_and_its_mark() -> None:
    picture = _against_tokens(_task())
    texts = _texts(picture)
    assert {"off", "fixed:40", "review:0.1/hand-back=3", "teacher", "tokens"} <= set(texts)
    assert picture
    notes = [title.text or "" for title in ET.fromstring(picture.render()).iter(f"{SVG}title")]
    assert len(notes) == len(made_up.ARMS)
    assert any(note.startswith("fixed:40: accuracy") for note in notes)


def test_in_a_crowd_only_the_plain_and_the_best_have_their_names() -> None:
    rows = [row for row in made_up.rows(40) if row.task == "gsm8k"]
    poor = [row.model_copy(update={"arm": f"poor:{at}"}) for at in range(6) for row in rows if row.arm == "off"]
    dear = [row.model_copy(update={"teacher": row.teacher.model_copy(update={"output": 500})}) for row in poor]
    task = _task(rows + dear)
    texts = _texts(_against_tokens(task))

    numbers = charts.numbered(task, task.front_by_tokens)
    assert [arm.arm for arm in task.arms].index("poor:2") + 1 == int(numbers["poor:2"])
    assert {"off", "fixed:40", "teacher", *numbers.values()} <= set(texts)
    assert "poor:2" not in texts
    assert charts.numbered(_task(), ()) == {}


def test_pictures_stay_within_their_frame() -> None:
    task = _task()
    for picture in (_against_tokens(task), charts.accuracy_by_length(task), charts.latency(task)):
        assert picture
        for text in ET.fromstring(picture.render()).iter(f"{SVG}text"):
            width = len(text.text or "") * CHAR_PX
            x = float(text.get("x", "nan"))
            left = x - {"start": 0, "middle": width / 2, "end": width}[text.get("text-anchor", "start")]
            if "transform" not in text.attrib:
                assert left > -2
                assert left + width < picture.width + 12


def test_lengths_are_ticks_and_references_lines() -> None:
    texts = _texts(charts.accuracy_by_length(_task()))
    assert {"10", "20", "40", "80"} <= set(texts)
    assert any(text.startswith("teacher alone") for text in texts)


def test_where_there_is_nothing_to_draw_there_is_no_picture() -> None:
    task = _task([Row(task="t", question_id="1", arm="off", correct=None)])
    assert _against_tokens(task) is None
    assert charts.accuracy_by_length(task) is None
    assert charts.latency(task) is None


def test_one_arm_with_one_question_can_be_drawn() -> None:
    task = _task([Row(task="t", question_id="1", arm="fixed:40", correct=True, total_s=0.0)])
    assert "fixed:40" in _texts(_against_tokens(task))
    assert "40" in _texts(charts.accuracy_by_length(task))
    assert "fixed:40" in _texts(charts.latency(task))


def test_strips_are_as_long_as_what_was_written() -> None:
    segments = (Segment(source=Source.TEACHER, chars=10, tokens=3), Segment(source=Source.STUDENT, chars=30, tokens=9))
    row = Row(task="t", question_id="1", arm="a<b>", correct=True, output="x" * 40, segments=segments)
    picture = ET.fromstring(charts.strips({"a<b>": row, "none": row.model_copy(update={"output": ""})}, "key").render())

    widths = [float(box.get("width", "nan")) for box in picture.findall(f"{SVG}rect")]
    assert widths[1] == pytest.approx(3 * widths[0], abs=0.05)
    assert [text.text for text in picture.iter(f"{SVG}text")] == ["a<b>", "✓", "none", "✓"]


def test_names_cover_neither_each_other_nor_the_points() -> None:
    points = [(100 + 9 * at, 100 + 4 * (at % 3), f"review:0.{at}") for at in range(9)]
    boxes = []
    for label in placed(points, Box(0, 0, 440, 300)):
        width = len(label.text) * CHAR_PX
        left = label.x - {"start": 0, "middle": width / 2, "end": width}[label.anchor]
        middle = label.y - 0.35 * FONT_PX
        boxes.append(Box(left, middle - FONT_PX / 2, left + width, middle + FONT_PX / 2))
    for at, box in enumerate(boxes):
        assert not any(box.shared(other) for other in boxes[at + 1 :])
        assert not any(box.left < x < box.right and box.top < y < box.bottom for x, y, _ in points)


def test_ticks_are_round() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0.11, 0.63) == [0.2, 0.4, 0.6]
    assert ticks(0, 4.7) == [0, 1, 2, 3, 4]
    assert ticks(0, 0.00031) == pytest.approx([0, 0.0001, 0.0002, 0.0003])


def test_scales() -> None:
    assert Scale(0, 10, 100, 200)(5) == 150
    assert Scale(10, 1000, 0, 100, log=True)(100) == pytest.approx(50)
    assert fitting("abcdef", 7 * CHAR_PX) == "abcdef"
    assert fitting("abcdefghij", 5 * CHAR_PX) == "abcd…"
