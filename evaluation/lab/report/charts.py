"""The report's charts: accuracy against cost and against guidance length, and latency. matplotlib draws them as SVG."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import textalloc
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from evaluation.lab.analysis.arm_summary import ArmSummary, TaskSummary
from evaluation.lab.arm_names import OFF, TEACHER, fixed_length, is_plain
from evaluation.lab.report.formatting import number, percent, percent_in, seconds, shortened, shown

# Okabe and Ito's palette, told apart with any colour vision: https://jfly.uni-koeln.de/color/
BLUE, VERMILION, BLACK, GREY, PALE = "#0072B2", "#D55E00", "#000000", "#767676", "#A8A8A8"
WIDTH_PX, HEIGHT_PX, ROW_PX = 400, 310, 24
NAME_CHARS = 22
CROWD = 12
"""Number of arms above which those that are neither plain nor on the front have numbers in place of names."""
STYLE: dict[Any, Any] = {
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "svg.fonttype": "none",  # text stays text: it can be searched, and is set in the reader's own font
    "svg.hashsalt": "gkt",  # the same rows give the same file
    "text.parse_math": False,  # a name may hold a dollar sign
}
SVG = "http://www.w3.org/2000/svg"


class Chart(NamedTuple):
    title: str
    caption: str
    svg: Markup


class Look(NamedTuple):
    """Marker and colour of an arm, and the ink of its name: a darker colour, to be read."""

    marker: str
    color: str
    ink: str


def look(arm: str) -> Look:
    if arm in {OFF, TEACHER}:
        return Look("D", BLACK, "#222222")
    return Look("o", BLUE, "#005A8C") if is_plain(arm) else Look("s", VERMILION, "#9C4300")


def charts(task: TaskSummary) -> list[Chart]:
    """Return the charts that the task's rows can fill."""
    with mpl.rc_context(STYLE):
        return [*_accuracy_by_cost(task), *_accuracy_by_tokens(task), *_accuracy_by_length(task), *_latency(task)]


def numbered(task: TaskSummary, front: Sequence[str]) -> dict[str, str]:
    """Map the arms that a chart names by a number to that number: their line in the tables.

    These are the arms whose names, cut to a label, are alike; with many arms also those that are neither plain nor on the front.
    """
    alike = Counter(shortened(arm.arm, NAME_CHARS) for arm in task.arms)
    crowded = len(task.arms) > CROWD
    return {
        arm.arm: str(at)
        for at, arm in enumerate(task.arms, 1)
        if alike[shortened(arm.arm, NAME_CHARS)] > 1 or (crowded and not is_plain(arm.arm) and arm.arm not in front)
    }


def _accuracy_by_cost(task: TaskSummary) -> Iterator[Chart]:
    if any(arm.cost_share is not None for arm in task.arms):
        unit = "% of the teacher's cost"
        costs = {arm.arm: arm.cost_share and 100 * arm.cost_share for arm in task.arms}
    else:
        unit = "US dollars for 1,000 questions"
        costs = {arm.arm: arm.cost_usd and 1000 * arm.cost_usd for arm in task.arms}
    svg = _accuracy_against(task, unit, costs, task.front_by_cost, task.hull_by_cost)
    caption = (
        "Bars are 95 % intervals. The grey line joins the arms that no other arm beats at their cost, the dashed line the best "
        f"that mixtures of student, teacher and fixed prefixes can do. {_key(numbered(task, task.front_by_cost))}"
    )
    if svg:
        yield Chart("Accuracy against cost", caption, svg)


def _accuracy_by_tokens(task: TaskSummary) -> Iterator[Chart]:
    front = task.front_by_tokens
    tokens = {arm.arm: arm.teacher_output_tokens for arm in task.arms}
    svg = _accuracy_against(task, "tokens written by the teacher", tokens, front)
    caption = f"The same against the teacher's output tokens for a question. {_key(numbered(task, front))}"
    if svg:
        yield Chart("Accuracy against the teacher's words", caption, svg)


def _key(numbers: dict[str, str]) -> str:
    return ", ".join(f"{number}: {shown(arm)}" for arm, number in numbers.items()) + "." if numbers else ""


def _accuracy_against(
    task: TaskSummary,
    unit: str,
    amounts: Mapping[str, float | None],
    front: Sequence[str],
    hull: Sequence[str] = (),
) -> Markup | None:
    """Draw every arm with its interval. A line joins the arms of `front`, a dashed one those of `hull`. None without arms."""
    points = {
        arm.arm: (x, arm.accuracy, arm)
        for arm in task.arms
        if (x := amounts[arm.arm]) is not None and arm.accuracy is not None
    }
    if not points:
        return None
    drawing = _Drawing(f"{task.task}: accuracy against {unit}", unit)
    drawing.accuracy_axis([arm for _, _, arm in points.values()])
    for names, line in ((hull, {"color": BLUE, "linestyle": (0, (4, 3))}), (front, {"color": GREY, "linewidth": 2})):
        joined = [points[name][:2] for name in names if name in points]
        drawing.axes.plot([x for x, _ in joined], [y for _, y in joined], **line)
    for name, (x, y, arm) in points.items():
        tooltip = f"{shortened(name, 60)}: accuracy {percent_in(y, arm.interval)}, {number(x, 1)} {unit}"
        drawing.accuracy(x, arm, filled=name in front, tooltip=tooltip)
    numbers = numbered(task, front)
    drawing.label(
        {numbers.get(name, shortened(name, NAME_CHARS)): (x, y, look(name).ink) for name, (x, y, _) in points.items()}
    )
    return drawing.svg()


def _accuracy_by_length(task: TaskSummary) -> Iterator[Chart]:
    """Draw the fixed prefixes by their length, between student and teacher alone."""
    judged = [arm for arm in task.arms if arm.accuracy is not None]
    prefixes = {length: arm for arm in judged if (length := fixed_length(arm.arm))}
    references = [arm for arm in judged if arm.arm in {OFF, TEACHER}]
    if not prefixes:
        return
    drawing = _Drawing(f"{task.task}: accuracy against guidance length", "tokens of guidance at most (logarithmic)")
    drawing.accuracy_axis([*prefixes.values(), *references])
    axes, lengths = drawing.axes, sorted(prefixes)
    axes.set_xscale("log")
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(lengths[0] / 1.3, lengths[-1] * 1.3)
    for arm in references:
        accuracy = arm.accuracy or 0.0
        axes.axhspan(*(arm.interval or (0, 0)), color="#F0F0F0", zorder=0)
        axes.axhline(accuracy, color=BLACK, linestyle=":", linewidth=1)
        # Short prefixes are near the student: its name goes to the right, where the long ones are above it.
        name, x, side = ("student", 0.98, "right") if arm.arm == OFF else ("teacher", 0.02, "left")
        text = f"{name} alone {percent(accuracy)}"
        axes.text(x, accuracy, text, transform=axes.get_yaxis_transform(), ha=side, va="bottom")
    axes.plot(lengths, [prefixes[length].accuracy or 0 for length in lengths], color=BLUE)
    for length, arm in prefixes.items():
        drawing.accuracy(length, arm, tooltip=f"{arm.arm}: accuracy {percent_in(arm.accuracy, arm.interval)}")
    caption = "Prefixes of fixed length; the dotted lines, in their grey intervals, are student and teacher alone."
    yield Chart("Accuracy against guidance length", caption, drawing.svg())


def _latency(task: TaskSummary) -> Iterator[Chart]:
    """Draw the median until the first token, and the median and the 95th percentile of the whole answer."""
    arms = [arm for arm in task.arms if arm.p50_s is not None and arm.p95_s is not None]
    if not arms:
        return
    drawing = _Drawing(f"{task.task}: latency", "seconds", height_px=ROW_PX * len(arms) + 60)
    axes = drawing.axes
    axes.set_yticks(range(len(arms)), [shortened(arm.arm, NAME_CHARS) for arm in arms])
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines.left.set_visible(False)
    axes.grid(axis="y")
    for row, arm in enumerate(arms):
        name, (marker, color, _) = shortened(arm.arm, 200), look(arm.arm)
        p50, p95 = arm.p50_s or 0.0, arm.p95_s or 0.0
        axes.plot([p50, p95], [row, row], color=color, linewidth=3)
        axes.plot(p95, row, marker="|", markersize=10, markeredgewidth=2, color=color)
        if arm.first_token_p50_s is not None:
            tooltip = f"{name}: first token, median {seconds(arm.first_token_p50_s)}"
            drawing.mark(arm.first_token_p50_s, row, "^", GREY, filled=False, tooltip=tooltip)
        drawing.mark(p50, row, marker, color, tooltip=f"{name}: median {seconds(p50)}, 95 % {seconds(p95)}")
    axes.set_xlim(left=0)
    caption = "Triangle: median until the first token. Mark: median until the end. Line: up to the 95th percentile."
    yield Chart("Latency", caption, drawing.svg())


class _Drawing:
    """One set of axes, and the tooltips of its marks."""

    def __init__(self, title: str, x_label: str, height_px: float = HEIGHT_PX) -> None:
        # At 72 dots per inch a point of matplotlib's is a pixel.
        self._figure = Figure(figsize=(WIDTH_PX / 72, height_px / 72), layout="constrained")
        self.axes = self._figure.add_subplot(xlabel=x_label)
        self._title = title
        self._tooltips: dict[str, str] = {}

    def accuracy_axis(self, arms: Sequence[ArmSummary]) -> None:
        bounds = [bound for arm in arms if arm.interval for bound in arm.interval]
        self.axes.set_ylim(max(0.0, min(bounds) - 0.02), min(1.0, max(bounds) + 0.02))
        self.axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
        self.axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        self.axes.set_ylabel("accuracy, %")
        self.axes.grid(axis="y")

    def accuracy(self, x: float, arm: ArmSummary, *, filled: bool = True, tooltip: str) -> None:
        """Draw an arm's accuracy with its interval."""
        if arm.interval:
            self.axes.plot([x, x], arm.interval, color=PALE, linewidth=1.2, marker="_", markersize=6, zorder=1.5)
        self.mark(x, arm.accuracy or 0, *look(arm.arm)[:2], filled=filled, tooltip=tooltip)

    def mark(self, x: float, y: float, marker: str, color: str, *, filled: bool = True, tooltip: str) -> None:
        fill, gid = color if filled else "white", f"mark-{len(self._tooltips)}"
        self.axes.plot(
            x, y, marker, color=color, markerfacecolor=fill, markersize=8, markeredgewidth=1.8, zorder=3, gid=gid
        )
        self._tooltips[gid] = tooltip

    def label(self, labels: dict[str, tuple[float, float, str]]) -> None:
        """Write each label, in its ink, beside its point, so that it covers no other label, no mark and few lines."""
        self._figure.draw_without_rendering()  # the axes have their place now
        self._figure.set_layout_engine("none")
        x, y = [x for x, _, _ in labels.values()], [y for _, y, _ in labels.values()]
        lines = [path for line in self.axes.lines if len(path := np.asarray(line.get_xydata())) > 1]
        textalloc.allocate(
            self.axes,
            x,
            y,
            list(labels),
            x_scatter=x,
            y_scatter=y,
            x_lines=[line[:, 0] for line in lines],
            y_lines=[line[:, 1] for line in lines],
            textsize=STYLE["font.size"],
            textcolor=[ink for _, _, ink in labels.values()],
            linecolor=GREY,
            linewidth=0.7,
            min_distance=0.02,
            margin=0.012,
            avoid_label_lines_overlap=True,
        )

    def svg(self) -> Markup:
        """Return the drawing as an element of a page that is as wide as the page allows."""
        file = io.StringIO()
        self._figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        ET.register_namespace("", SVG)
        ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")
        root = ET.fromstring(file.getvalue())  # noqa: S314 - matplotlib has just written it
        root[:] = [part for part in root if part.tag != f"{{{SVG}}}metadata"]
        del root.attrib["width"], root.attrib["height"]
        root.attrib |= {"class": "chart", "role": "img", "aria-label": self._title}
        for group in root.iter(f"{{{SVG}}}g"):
            # Ids are unique in a page, which has many charts. No group is referred to by its own.
            if tooltip := self._tooltips.get(group.attrib.pop("id", "")):
                title = ET.Element(f"{{{SVG}}}title")
                title.text = tooltip
                group.insert(0, title)
        return Markup(ET.tostring(root, "unicode"))  # noqa: S704 - ElementTree has escaped the text
