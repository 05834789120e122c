"""The report's charts: accuracy against cost and against guidance length, latency, and who wrote what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from evaluation.lab.analysis.arm_summary import ArmSummary, TaskSummary
from evaluation.lab.analysis.disagreements import pieces
from evaluation.lab.arm_names import OFF, TEACHER, fixed_length, is_plain
from evaluation.lab.report import label_layout
from evaluation.lab.report.formatting import number, percent, percent_in, seconds, shortened
from evaluation.lab.report.svg import (
    BLACK,
    BLUE,
    CHAR_PX,
    FONT_PX,
    GREY,
    INK,
    ORANGE,
    PALE,
    SKY,
    VERMILION,
    WHITE,
    Picture,
    Scale,
    Shape,
    fitting,
    ticks,
)
from evaluation.lab.results.rows import Row
from shared.protocol.gkt import Source

_WIDTH, _HEIGHT = 400, 310
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 14, 12, 46
_NAMES_PX = 170
"""At most, for the names left of a chart."""
_NAME_CHARS = 22


_CROWD = 12
"""Arms, above which those that are neither plain nor on the front have numbers in place of names."""


class Look(NamedTuple):
    shape: Shape
    color: str
    ink: str
    """Of its name: darker, to be read."""


REFERENCE = Look(Shape.DIAMOND, BLACK, INK)
PREFIX = Look(Shape.CIRCLE, BLUE, "#005A8C")
POLICY = Look(Shape.SQUARE, VERMILION, "#9C4300")


def look(arm: str) -> Look:
    if arm in {OFF, TEACHER}:
        return REFERENCE
    return PREFIX if is_plain(arm) else POLICY


def numbered(task: TaskSummary, front: Sequence[str]) -> dict[str, str]:
    """Arms that a chart names by their number, which is their line in the tables.

    Those whose names, cut to a label, are alike; and in a crowd those that are neither plain nor on the front.
    """
    alike = Counter(shortened(arm.arm, _NAME_CHARS) for arm in task.arms)
    crowded = len(task.arms) > _CROWD
    return {
        arm.arm: str(at)
        for at, arm in enumerate(task.arms, 1)
        if alike[shortened(arm.arm, _NAME_CHARS)] > 1 or (crowded and not is_plain(arm.arm) and arm.arm not in front)
    }


def accuracy_against(
    task: TaskSummary,
    amount: Callable[[ArmSummary], float | None],
    front: Sequence[str],
    hull: Sequence[str],
    *,
    title: str,
    unit: str = "",
) -> Picture | None:
    """Every arm with its interval, and the front. `hull` are the arms that a dashed line joins. None where no arm has both."""
    known = {
        arm.arm: (x, arm.accuracy, arm)
        for arm in task.arms
        if (x := amount(arm)) is not None and arm.accuracy is not None and arm.interval
    }
    if not known:
        return None
    picture = Picture(_WIDTH, _HEIGHT, f"{task.task}: accuracy against {title}")
    top = max(x for x, _, _ in known.values()) or 1.0
    across = Scale(-0.03 * top, 1.06 * top, _LEFT, _WIDTH - _RIGHT)
    up = _accuracy_axis(picture, [arm for _, _, arm in known.values()])
    _x_axis(picture, across, ticks(0, top), title, unit)
    at = {name: (across(x), up(y)) for name, (x, y, _) in known.items()}
    bars = [
        ((at[name][0], up(arm.interval.low)), (at[name][0], up(arm.interval.high)))
        for name, (_, _, arm) in known.items()
        if arm.interval
    ]
    for (x, low), (_, high) in bars:
        _interval(picture, x, low, high)
    lines = [[at[name] for name in names if name in at] for names in (hull, front)]
    picture.way(lines[0], color=BLUE, dash="5 4")
    picture.way(lines[1], color=GREY, width=2)
    numbers = numbered(task, front)
    within = label_layout.Box(_LEFT + 2, _TOP - 6, _WIDTH - 2, _HEIGHT - _BOTTOM)
    found = label_layout.placed(
        [(*at[name], numbers.get(name, shortened(name, _NAME_CHARS))) for name in known], within, [*lines, *bars]
    )
    for label, name in zip(found, known, strict=True):
        if label.leader:
            picture.line(*at[name], *label.leader, color=GREY, width=0.7)
    for name, (x, y, arm) in known.items():
        note = f"{shortened(name, 60)}: accuracy {percent_in(y, arm.interval)}, {title} {number(x, 1)}{unit}"
        picture.mark(*at[name], *look(name)[:2], filled=name in front, note=note)
    for label, name in zip(found, known, strict=True):
        picture.text(label.x, label.y, label.text, anchor=label.anchor, color=look(name).ink)
    return picture


def accuracy_by_length(task: TaskSummary) -> Picture | None:
    """The fixed prefixes by their length, between the two references. None where there are no prefixes."""
    prefixes = {
        length: arm
        for arm in task.arms
        if (length := fixed_length(arm.arm)) and arm.accuracy is not None and arm.interval
    }
    references = [arm for arm in task.arms if arm.arm in {OFF, TEACHER} and arm.accuracy is not None]
    if not prefixes:
        return None
    picture = Picture(_WIDTH, _HEIGHT, f"{task.task}: accuracy against guidance length")
    lengths = sorted(prefixes)
    across = Scale(lengths[0] / 1.3, lengths[-1] * 1.3, _LEFT, _WIDTH - _RIGHT, log=True)
    up = _accuracy_axis(picture, [*prefixes.values(), *references])
    _x_axis(picture, across, lengths, "tokens of guidance at most (logarithmic)", "")
    for arm in references:
        if arm.accuracy is None or not arm.interval:
            continue
        height = up(arm.interval.low) - up(arm.interval.high)
        picture.box(_LEFT, up(arm.interval.high), _WIDTH - _LEFT - _RIGHT, height, fill="#F0F0F0")
    for arm in references:
        if arm.accuracy is not None:
            picture.line(_LEFT, up(arm.accuracy), _WIDTH - _RIGHT, up(arm.accuracy), color=BLACK, dash="2 3")
    points = [(across(length), up(prefixes[length].accuracy or 0)) for length in lengths]
    picture.way(points, color=BLUE)
    for (x, y), length in zip(points, lengths, strict=True):
        arm = prefixes[length]
        if arm.interval:
            _interval(picture, x, up(arm.interval.low), up(arm.interval.high))
        picture.mark(x, y, *PREFIX[:2], note=f"{arm.arm}: accuracy {percent_in(arm.accuracy, arm.interval)}")
    for arm in references:
        said = f"{'student' if arm.arm == OFF else 'teacher'} alone {percent(arm.accuracy)}"
        if arm.arm == OFF:  # short prefixes are near the student: its name goes where the long ones are above it
            picture.text(_WIDTH - _RIGHT - 4, up(arm.accuracy or 0) - 4, said, anchor="end")
        else:
            picture.text(_LEFT + 6, up(arm.accuracy or 0) - 4, said)
    return picture


def latency(task: TaskSummary) -> Picture | None:
    """Of each arm the first token's median, the whole answer's median and its 95th percentile. None without times."""
    arms = [arm for arm in task.arms if arm.p50_s is not None and arm.p95_s is not None]
    if not arms:
        return None
    row = 24
    height = _TOP + row * len(arms) + _BOTTOM
    picture = Picture(_WIDTH, height, f"{task.task}: latency")
    top = max(arm.p95_s or 0 for arm in arms) or 1.0
    names = _names_px(arm.arm for arm in arms)
    across = Scale(0, 1.03 * top, names + 8, _WIDTH - _RIGHT)
    _x_axis(picture, across, ticks(0, top), "seconds", "", height=height, left=names + 8)
    for at, arm in enumerate(arms):
        y = _TOP + row * (at + 0.5)
        p50, p95 = arm.p50_s or 0.0, arm.p95_s or 0.0
        color = look(arm.arm).color
        name = shortened(arm.arm, 200)
        picture.text(names, y + FONT_PX * 0.35, fitting(name, names), anchor="end")
        picture.line(names + 8, y, _WIDTH - _RIGHT, y, color=PALE)
        picture.line(across(p50), y, across(p95), y, color=color, width=3)
        picture.line(across(p95), y - 5, across(p95), y + 5, color=color, width=2)
        if arm.first_token_p50_s is not None:
            note = f"{name}: first token, median {seconds(arm.first_token_p50_s)}"
            picture.mark(across(arm.first_token_p50_s), y, Shape.TRIANGLE, GREY, filled=False, note=note)
        picture.mark(across(p50), y, *look(arm.arm)[:2], note=f"{name}: median {seconds(p50)}, 95 % {seconds(p95)}")
    return picture


def strips(rows: Mapping[str, Row], name: str) -> Picture:
    """One question's answers, an arm a line: who wrote which part of it. `name` makes the pattern's own name on the page."""
    row = 19
    longest = max((len(answer.output) for answer in rows.values()), default=0) or 1
    names = _names_px(rows)
    across = Scale(0, longest, names + 8, _WIDTH - _RIGHT - 16)
    picture = Picture(_WIDTH, row * len(rows) + 4, "who wrote which part of the answers, an arm a line")
    picture.raw(hatching(name))
    for at, (arm, answer) in enumerate(rows.items()):
        y = 2 + row * at
        picture.text(names, y + row * 0.68, fitting(shortened(arm, 200), names), anchor="end")
        begun = 0
        for piece in pieces(answer):
            fill = {Source.TEACHER: f"url(#{name})", Source.STUDENT: SKY, None: WHITE}[piece.source]
            x = across(begun)
            begun += len(piece.text)
            picture.box(x, y + 3, across(begun) - x, row - 6, fill=fill, stroke=INK if piece.source is None else "none")
        verdict = {True: "✓", False: "✗", None: "?"}[answer.correct]
        picture.text(across(begun) + 5, y + row * 0.68, verdict)
    return picture


def hatching(name: str) -> str:
    """The teacher's texture, which a printer without colours shows too."""
    return (
        f'<defs><pattern id="{name}" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        f'<rect width="5" height="5" fill="{ORANGE}"/><line x1="0" y1="0" x2="0" y2="5" stroke="#5C3B00" stroke-width="2"/>'
        "</pattern></defs>"
    )


def glyph(look: Look, *, filled: bool = True) -> str:
    """A mark for a legend."""
    picture = Picture(14, 14, "")
    picture.mark(7, 7, *look[:2], filled=filled)
    return picture.render(css_class="glyph")


def _names_px(arms: Iterable[str]) -> float:
    """The room for the names of arms."""
    return min(_NAMES_PX, max(len(arm) for arm in arms) * CHAR_PX + 2)


def _interval(picture: Picture, x: float, low: float, high: float) -> None:
    picture.line(x, low, x, high, color="#A8A8A8", width=1.2)
    for end in (low, high):
        picture.line(x - 3, end, x + 3, end, color="#A8A8A8", width=1.2)


def _accuracy_axis(picture: Picture, arms: Sequence[ArmSummary]) -> Scale:
    bounds = [bound for arm in arms if arm.interval for bound in arm.interval]
    low, high = max(0.0, min(bounds) - 0.02), min(1.0, max(bounds) + 0.02)
    up = Scale(low, high, _HEIGHT - _BOTTOM, _TOP)
    for value in ticks(low, high):
        picture.line(_LEFT, up(value), _WIDTH - _RIGHT, up(value), color="#E6E6E6")
        picture.text(_LEFT - 6, up(value) + FONT_PX * 0.35, f"{100 * value:.10g}", anchor="end")
    picture.text(12, (_TOP + _HEIGHT - _BOTTOM) / 2, "accuracy, %", anchor="middle", turned=True)
    return up


def _x_axis(
    picture: Picture,
    across: Scale,
    at: Sequence[float],
    title: str,
    unit: str,
    *,
    height: float = _HEIGHT,
    left: float = _LEFT,
) -> None:
    """A value whose text would run into the one before it has only its line."""
    bottom = height - _BOTTOM
    picture.line(left, bottom, _WIDTH - _RIGHT, bottom)
    ended = 0.0
    for value in at:
        x, text = across(value), f"{value:,.10g}{unit}"
        picture.line(x, bottom, x, bottom + 4)
        half = len(text) * 3.4
        if x - half > ended:
            picture.text(x, bottom + 17, text, anchor="middle")
            ended = x + half + 4
    picture.text((left + _WIDTH - _RIGHT) / 2, height - 8, title, anchor="middle")
