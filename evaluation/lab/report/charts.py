"""The report's charts: accuracy against cost and against guidance length, and latency. matplotlib draws them as SVG."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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
    "svg.fonttype": "none",  # text stays text: it is searched, and set in the reader's own font
    "svg.hashsalt": "gkt",  # the same rows give the same file
    "text.parse_math": False,  # a name may hold a dollar sign
}
SVG = "http://www.w3.org/2000/svg"


class Chart(NamedTuple):
    title: str
    caption: str
    svg: Markup


class Look(NamedTuple):
    """How an arm's mark is drawn."""

    marker: str
    color: str
    ink: str
    """Colour of its name: darker, to be read."""


def look(arm: str) -> Look:
    if arm in {OFF, TEACHER}:
        return Look("D", BLACK, "#222222")
    return Look("o", BLUE, "#005A8C") if is_plain(arm) else Look("s", VERMILION, "#9C4300")


def charts(task: TaskSummary) -> list[Chart]:
    """Return the charts that the task's rows can fill."""
    with mpl.rc_context(STYLE):
        return list(_charts(task))


def _charts(task: TaskSummary) -> Iterator[Chart]:
    priced = any(arm.cost_share is not None for arm in task.arms)

    def cost(arm: ArmSummary) -> float | None:
        if priced:
            return None if arm.cost_share is None else 100 * arm.cost_share
        return None if arm.cost_usd is None else 1000 * arm.cost_usd

    yield from accuracy_against(
        task,
        cost,
        "% of the teacher's cost" if priced else "US dollars for 1,000 questions",
        front=task.front_by_cost,
        hull=task.hull_by_cost,
        title="Accuracy against cost",
        caption="Bars are 95 % intervals. The grey line joins the arms that no other arm beats at their cost, the dashed "
        "line the best that mixtures of student, teacher and fixed prefixes can do.",
    )
    yield from accuracy_against(
        task,
        lambda arm: arm.teacher_output_tokens,
        "tokens written by the teacher",
        front=task.front_by_tokens,
        title="Accuracy against the teacher's words",
        caption="The same against the teacher's output tokens for a question.",
    )
    yield from accuracy_by_length(task)
    yield from latency(task)


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


def accuracy_against(
    task: TaskSummary,
    amount: Callable[[ArmSummary], float | None],
    unit: str,
    *,
    front: Sequence[str],
    hull: Sequence[str] = (),
    title: str,
    caption: str,
) -> Iterator[Chart]:
    """Every arm with its interval; a line joins the arms of `front`, a dashed one those of `hull`. Nothing without such arms."""
    known = {arm.arm: (x, arm) for arm in task.arms if (x := amount(arm)) is not None and arm.accuracy is not None}
    if not known:
        return
    drawing = _Drawing(f"{task.task}: accuracy against {unit}")
    axes = drawing.axes
    _accuracy_axis(drawing, [arm for _, arm in known.values()])
    axes.set_xlabel(unit)
    for names, line in ((hull, {"color": BLUE, "linestyle": (0, (4, 3))}), (front, {"color": GREY, "linewidth": 2})):
        joined = [known[name] for name in names if name in known]
        axes.plot([x for x, _ in joined], [arm.accuracy or 0 for _, arm in joined], **line)
    numbers = numbered(task, front)
    for name, (x, arm) in known.items():
        tooltip = f"{shortened(name, 60)}: accuracy {percent_in(arm.accuracy, arm.interval)}, {number(x, 1)} {unit}"
        drawing.mark(x, arm, filled=name in front, tooltip=tooltip)
    drawing.label(
        [(x, arm.accuracy or 0.0) for x, arm in known.values()],
        [numbers.get(name, shortened(name, NAME_CHARS)) for name in known],
        [look(name).ink for name in known],
    )
    if numbers:
        caption += " " + ", ".join(f"{number}: {shown(arm)}" for arm, number in numbers.items()) + "."
    yield Chart(title, caption, drawing.svg())


def accuracy_by_length(task: TaskSummary) -> Iterator[Chart]:
    """The fixed prefixes by their length, between student and teacher alone. Nothing without prefixes."""
    prefixes = {length: arm for arm in task.arms if (length := fixed_length(arm.arm)) and arm.accuracy is not None}
    if not prefixes:
        return
    drawing = _Drawing(f"{task.task}: accuracy against guidance length")
    axes = drawing.axes
    references = [arm for arm in task.arms if arm.arm in {OFF, TEACHER} and arm.accuracy is not None]
    _accuracy_axis(drawing, [*prefixes.values(), *references])
    axes.set_xscale("log")
    axes.set_xticks(sorted(prefixes), [str(length) for length in sorted(prefixes)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(min(prefixes) / 1.3, max(prefixes) * 1.3)
    axes.set_xlabel("tokens of guidance at most (logarithmic)")
    for arm in references:
        axes.axhspan(*(arm.interval or (0, 0)), color="#F0F0F0", zorder=0)
        axes.axhline(arm.accuracy or 0, color=BLACK, linestyle=":", linewidth=1)
        # Short prefixes are near the student: its name goes to the right, where the long ones are above it.
        right = arm.arm == OFF
        axes.text(
            0.98 if right else 0.02,
            arm.accuracy or 0,
            f"{'student' if right else 'teacher'} alone {percent(arm.accuracy)}",
            transform=axes.get_yaxis_transform(),
            ha="right" if right else "left",
            va="bottom",
        )
    axes.plot(sorted(prefixes), [prefixes[length].accuracy or 0 for length in sorted(prefixes)], color=BLUE)
    for length, arm in prefixes.items():
        drawing.mark(length, arm, tooltip=f"{arm.arm}: accuracy {percent_in(arm.accuracy, arm.interval)}")
    yield Chart(
        "Accuracy against guidance length",
        "Prefixes of fixed length; the dotted lines, in their grey intervals, are student and teacher alone.",
        drawing.svg(),
    )


def latency(task: TaskSummary) -> Iterator[Chart]:
    """The median until the first token, and the median and the 95th percentile of the whole answer. Nothing without times."""
    arms = [arm for arm in task.arms if arm.p50_s is not None and arm.p95_s is not None]
    if not arms:
        return
    drawing = _Drawing(f"{task.task}: latency", height_px=ROW_PX * len(arms) + 60)
    axes = drawing.axes
    axes.set_yticks(range(len(arms)), [shortened(arm.arm, NAME_CHARS) for arm in arms])
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines.left.set_visible(False)
    axes.grid(axis="y")
    axes.set_xlabel("seconds")
    for row, arm in enumerate(arms):
        name, style = shortened(arm.arm, 200), look(arm.arm)
        median, p95 = arm.p50_s or 0.0, arm.p95_s or 0.0
        axes.plot([median, p95], [row, row], color=style.color, linewidth=3)
        axes.plot(p95, row, marker="|", markersize=10, markeredgewidth=2, color=style.color)
        if arm.first_token_p50_s is not None:
            tooltip = f"{name}: first token, median {seconds(arm.first_token_p50_s)}"
            drawing.point(arm.first_token_p50_s, row, "^", GREY, filled=False, tooltip=tooltip)
        tooltip = f"{name}: median {seconds(median)}, 95 % {seconds(p95)}"
        drawing.point(median, row, style.marker, style.color, tooltip=tooltip)
    axes.set_xlim(left=0)
    yield Chart(
        "Latency",
        "Triangle: median until the first token. Mark: median until the end. Line: up to the 95th percentile.",
        drawing.svg(),
    )


class _Drawing:
    """One set of axes, and the tooltips of its marks."""

    def __init__(self, title: str, height_px: float = HEIGHT_PX) -> None:
        # At 72 dots per inch a point of matplotlib's is a pixel.
        self.figure = Figure(figsize=(WIDTH_PX / 72, height_px / 72), layout="constrained")
        self.axes = self.figure.add_subplot()
        self._title = title
        self._tooltips: dict[str, str] = {}

    def mark(self, x: float, arm: ArmSummary, *, filled: bool = True, tooltip: str) -> None:
        """Draw an arm's accuracy with its interval."""
        if arm.interval:
            self.axes.plot([x, x], arm.interval, color=PALE, linewidth=1.2, marker="_", markersize=6, zorder=1.5)
        self.point(x, arm.accuracy or 0, *look(arm.arm)[:2], filled=filled, tooltip=tooltip)

    def point(self, x: float, y: float, marker: str, color: str, *, filled: bool = True, tooltip: str) -> None:
        fill = color if filled else "white"
        gid = f"mark-{len(self._tooltips)}"
        self.axes.plot(
            x, y, marker, color=color, markerfacecolor=fill, markersize=8, markeredgewidth=1.8, zorder=3, gid=gid
        )
        self._tooltips[gid] = tooltip

    def label(self, points: Sequence[tuple[float, float]], names: Sequence[str], inks: Sequence[str]) -> None:
        """Write a name beside each point, so that it covers no other name, no mark and as few lines as can be."""
        self.figure.draw_without_rendering()  # the axes have their place now
        self.figure.set_layout_engine("none")
        x, y = [point[0] for point in points], [point[1] for point in points]
        lines = [path for line in self.axes.lines if len(path := np.asarray(line.get_xydata())) > 1]
        textalloc.allocate(
            self.axes,
            x,
            y,
            list(names),
            x_scatter=x,
            y_scatter=y,
            x_lines=[line[:, 0] for line in lines],
            y_lines=[line[:, 1] for line in lines],
            textsize=STYLE["font.size"],
            textcolor=list(inks),
            linecolor=GREY,
            linewidth=0.7,
            min_distance=0.02,
            margin=0.012,
            avoid_label_lines_overlap=True,
        )

    def svg(self) -> Markup:
        """Return the drawing as an element of a page: as wide as it may be, with a title for those who cannot see it."""
        file = io.StringIO()
        self.figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        ET.register_namespace("", SVG)
        ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")
        root = ET.fromstring(file.getvalue())  # noqa: S314 - matplotlib has just written it
        for name in ("width", "height"):
            del root.attrib[name]
        root.attrib |= {"class": "chart", "role": "img", "aria-label": self._title}
        root[:] = [part for part in root if part.tag != f"{{{SVG}}}metadata"]
        for element in root.iter():
            # Ids are the page's, which has many charts; those that are referred to have a hash of what they name.
            if tooltip := self._tooltips.get(element.get("id", "")):
                title = ET.Element(f"{{{SVG}}}title")
                title.text = tooltip
                element.insert(0, title)
            if element.tag == f"{{{SVG}}}g":
                element.attrib.pop("id", None)
        return Markup(ET.tostring(root, "unicode"))  # noqa: S704 - ElementTree has escaped the text


def _accuracy_axis(drawing: _Drawing, arms: Sequence[ArmSummary]) -> None:
    bounds = [bound for arm in arms if arm.interval for bound in arm.interval]
    drawing.axes.set_ylim(max(0.0, min(bounds) - 0.02), min(1.0, max(bounds) + 0.02))
    drawing.axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=""))
    drawing.axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    drawing.axes.set_ylabel("accuracy, %")
    drawing.axes.grid(axis="y")
