"""A search for the cheapest policy that keeps the teacher's accuracy: stage by stage, each a run in a folder of its own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from evaluation.lab.analysis.price_table import PriceTable
from evaluation.lab.arm_names import OFF, TEACHER
from evaluation.lab.arms import Arm
from evaluation.lab.errors import BadArm, BadFolder, Unsound
from evaluation.lab.results.folder import Seen, read_rows, read_run
from evaluation.lab.results.rows import Row
from evaluation.lab.runs.config import Setup
from evaluation.lab.runs.runner import run as run_all
from evaluation.lab.tasks.data import Data, Lines
from evaluation.lab.tuning import racing
from evaluation.lab.tuning.state import By, Decision, TuneFile
from shared.prices import Prices
from shared.protocol.gkt import Mode

MAX_UNSOUND = 0.02
"""Of a stage's answers, so many may have no verdict, or be the student's for want of a cloud. They are left out."""

REPORT, REPORT_BY_LOT = "report", "report-by-lot"
"""The folders of the runs on the reporting lines: of an arm, and of one (another, it may be) for a share of the questions."""


def default_grid(max_tokens: int) -> list[str]:
    """The arms that are tried. In `adaptive` and `review` nothing bounds the teacher but the answer's own end."""
    return [
        *(f"fixed:{tokens}" for tokens in (10, 20, 40, 80)),
        *(f"outline:{tokens}" for tokens in (40, 100)),
        *(f"adaptive:handback_after={handback_after},tokens={max_tokens}" for handback_after in (2, 4, 8)),
        *(
            f"on_demand:confidence_threshold={confidence_threshold},tokens={max_tokens}"
            for confidence_threshold in (0.3, 0.5, 0.7)
        ),
        *(
            f"review:acceptance_threshold={acceptance_threshold},{correction},confidence_threshold=0.1,tokens={max_tokens}"
            for acceptance_threshold in (0.1, 0.3, 0.5)
            for correction in (
                "max_correction_tokens=1",
                "max_correction_tokens=4",
                "max_correction_tokens=0,handback_after=3",
            )
        ),
    ]


def check_arms(arms: Sequence[Arm]) -> None:
    """Raises BadArm for one that no policy file can say."""
    for arm in arms:
        if arm.kind not in set(Mode):
            raise BadArm(f"arm {arm.text!r}: an edge has no mode {arm.kind!r}, so no policy file can say it")


class Watch(Protocol):
    def __call__(self, stage: str, done: int, total: int) -> None:
        """Told of the rows of a stage, as they come."""


@dataclass(frozen=True)
class Stage:
    """What a stage came to."""

    number: int
    of: int
    arms: Sequence[str]
    questions: int
    """So far, all stages together."""
    rows: list[Row]
    """So far, of the arms that were asked in it."""
    dropped: Mapping[str, str]
    seconds: float
    left_s: float | None
    """What the rest takes at most, the reporting lines included. None where nothing is left."""


@dataclass
class Tuner:
    """One search. The folder is this process's own.

    `tuning` holds all of the tuning questions and all arms, references first; `reporting` the questions of the last check.
    """

    tuning: Setup
    reporting: Setup
    edge_url: str
    folder: Path
    file: TuneFile
    table: PriceTable
    watch: Watch

    def __post_init__(self) -> None:
        self.all_rows: list[Row] = []
        """Of every stage, those of dropped arms too."""
        self.running = [arm.text for arm in self.tuning.arms]

    @property
    def keep(self) -> float:
        return self.file.plan.keep

    @property
    def by(self) -> By:
        return self.file.plan.by

    def seen(self) -> Seen:
        """The models that answered in the first stage."""
        run = read_run(self.folder / "stage-1")
        assert run is not None  # noqa: S101 - asked for after a stage only
        return run.seen

    def prices(self) -> Prices:
        """Of the teacher that answered."""
        return self.table.of(self.seen().teacher)

    def amount(self) -> racing.Amount:
        """What is to be little: dollars or tokens of the teacher."""
        prices = self.prices()
        return (lambda row: row.teacher.output) if self.by == "tokens" else lambda row: row.teacher.cost_usd(prices)

    async def stages(self) -> AsyncIterator[Stage]:
        """Do what is missing of the search, stage by stage. Ends early where no arm is left, or one is, and that is shown.

        Raises Unsound, and what `runner.run` raises.
        """
        blocks = racing.blocks(len(self.tuning.data.questions), self.file.plan.first_block)
        for number, block in enumerate(blocks, 1):
            asked = list(self.running)
            decided = self.file.decisions[number - 1] if number <= len(self.file.decisions) else None
            began = time.monotonic()
            if decided:
                rows = read_rows(self.folder / f"stage-{number}")
            else:
                rows = await self._run(self._part(block, asked), f"stage-{number}")
            self.all_rows += rows
            of_running = [row for row in self.all_rows if row.arm in set(asked)]
            if not decided:
                dropped = dict(
                    racing.race(racing.sound(of_running), asked, self.keep, self.amount(), looks=len(blocks))
                )
                decided = Decision(arms=asked, dropped=dropped, seconds=time.monotonic() - began)
                self.file = self.file.model_copy(update={"decisions": (*self.file.decisions, decided)})
                self.file.write(self.folder)
            self.running = [arm for arm in asked if arm not in decided.dropped]
            over = number == len(blocks) or self._settled(of_running)
            yield Stage(
                number=number,
                of=len(blocks),
                arms=asked,
                questions=block.stop,
                rows=of_running,
                dropped=decided.dropped,
                seconds=decided.seconds,
                left_s=self._left_s(of_running, 0 if over else len(self.tuning.data.questions) - block.stop),
            )
            if over:
                return

    def choice(self, *, shares: bool = False) -> racing.Choice | None:
        """With `shares` arms that are left, and the teacher, may be for a share of the questions."""
        whole = [
            arm.text for arm in self.tuning.arms if arm.text in self.running and "rollout_fraction" not in arm.values
        ]
        by_lot = [arm for arm in whole if arm != OFF] if shares else []
        return racing.choose(racing.sound(self.all_rows), self.running, self.keep, self.amount(), by_lot=by_lot)

    def nearest(self) -> racing.Choice | None:
        """Of the arms that are left; where none is, of all."""
        left = [arm for arm in self.running if arm not in {OFF, TEACHER}]
        everyone = [arm.text for arm in self.tuning.arms]
        return racing.nearest(racing.sound(self.all_rows), left or everyone, self.keep, self.amount())

    async def report(self, choice: racing.Choice) -> list[Row]:
        """The rows of the references and of what was chosen on the reporting lines. Raises as `stages`."""
        arms = [one for one in self.tuning.arms if one.text in {OFF, TEACHER, choice.arm}]
        return await self._run(replace(self.reporting, arms=arms), REPORT if choice.share == 1 else REPORT_BY_LOT)

    async def _run(self, setup: Setup, name: str) -> list[Row]:
        rows = await run_all(
            setup, self.edge_url, self.folder / name, lambda done, total: self.watch(name, done, total)
        )
        self._same_models(name)
        bad = [row for row in rows if row.error or row.fallback or row.correct is None]
        if len(bad) > MAX_UNSOUND * len(rows):
            first = bad[0]
            why = first.error or (f"fell back: {first.fallback}" if first.fallback else "no verdict")
            raise Unsound(
                f"{self.folder / name}: {len(bad)} of {len(rows)} answers say nothing of their arm; the first, of {first.arm!r} "
                f"on question {first.question_id}: {why}. The same command asks these again"
            )
        return rows

    def _same_models(self, name: str) -> None:
        """Raises BadFolder where others answered in a stage than in the first."""
        first, run = self.seen(), read_run(self.folder / name)
        now = run.seen if run else first
        templates = {arm: text for arm, text in now.templates.items() if first.templates.get(arm, text) != text}
        if (now.student, now.teacher) != (first.student, first.teacher) or templates:
            raise BadFolder(
                f"{self.folder / name} is of other models or templates than stage-1: {now.student} and {now.teacher}, there "
                f"{first.student} and {first.teacher}{'; ' if templates else ''}{', '.join(templates.values())}. Start the edge "
                "as it was, remove that folder, and give the same command again"
            )

    def _part(self, block: range, arms: Sequence[str]) -> Setup:
        whole = self.tuning.data
        first = self.tuning.lines.first
        return replace(
            self.tuning,
            data=Data(whole.path, whole.sha256, whole.questions[block.start : block.stop]),
            lines=Lines(first + block.start, first + block.stop - 1),
            arms=[arm for arm in self.tuning.arms if arm.text in set(arms)],
        )

    def _settled(self, rows: Sequence[Row]) -> bool:
        """Whether further questions could change nothing."""
        left = [arm for arm in self.running if arm not in {OFF, TEACHER}]
        if not left:
            return True
        choice = racing.choose(racing.sound(rows), left, self.keep, self.amount()) if len(left) == 1 else None
        return bool(choice and choice.shown and choice.arm == left[0])

    def _left_s(self, rows: Sequence[Row], questions: int) -> float | None:
        """At the pace so far: all arms that are left on the questions that are left, then the dearest of them in the report."""
        if not len(rows):
            return None
        times: dict[str, list[float]] = {}
        for row in rows:
            if row.total_s is not None:
                times.setdefault(row.arm, []).append(row.total_s)
        mean = {arm: sum(taken) / len(taken) for arm, taken in times.items()}
        others = [mean[arm] for arm in self.running if arm in mean and arm not in {OFF, TEACHER}]
        references = mean.get(OFF, 0.0) + mean.get(TEACHER, 0.0)
        tuning = questions * (references + sum(others))
        reporting = len(self.reporting.data.questions) * (references + max(others, default=0.0))
        return (tuning + reporting) / self.tuning.concurrency
