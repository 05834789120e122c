"""A search for the cheapest policy that keeps the teacher's accuracy: stage by stage, each a run in a folder of its own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from evaluation.lab.analysis.price_table import PriceTable, prices_of
from evaluation.lab.arm_names import OFF, TEACHER
from evaluation.lab.arms import Arm
from evaluation.lab.errors import BadArm, BadFolder, InvalidStage
from evaluation.lab.results.folder import ServedModels, read_rows, read_run
from evaluation.lab.results.rows import Row
from evaluation.lab.runs.config import RunConfig
from evaluation.lab.runs.runner import OnProgress
from evaluation.lab.runs.runner import run as run_all
from evaluation.lab.tuning import racing
from evaluation.lab.tuning.state import Decision, SearchFile, SearchSpec
from shared.prices import Prices
from shared.protocol.gkt import Mode

MAX_INVALID = 0.02
"""Fraction of a stage's answers that may have no verdict, or be fallbacks. These are left out."""
REFERENCES = frozenset({OFF, TEACHER})
REPORT, ROLLOUT_REPORT = "report", "report-rollout"
"""Folders of the runs on the reporting lines: for an arm, and for one (maybe another) for a fraction of the questions."""


def default_grid(max_tokens: int) -> list[str]:
    """Return the arms that are tried by default. The modes of turns may use as many teacher tokens as the answer has."""
    budget = f"max_guidance_tokens={max_tokens}"
    return [
        *(f"fixed:{tokens}" for tokens in (10, 20, 40, 80)),
        *(f"outline:{tokens}" for tokens in (40, 100)),
        *(f"adaptive:handback_after={count},{budget}" for count in (2, 4, 8)),
        *(f"on_demand:confidence_threshold={threshold},{budget}" for threshold in (0.3, 0.5, 0.7)),
        *(
            f"review:acceptance_threshold={threshold},{correction},confidence_threshold=0.1,{budget}"
            for threshold in (0.1, 0.3, 0.5)
            for correction in (
                "max_correction_tokens=1",
                "max_correction_tokens=4",
                "max_correction_tokens=0,handback_after=3",
            )
        ),
    ]


def check_arms(arms: Sequence[Arm]) -> None:
    """Raises BadArm for an arm that no policy file can express."""
    for arm in arms:
        if arm.kind not in set(Mode):
            raise BadArm(f"arm {arm.text!r}: an edge has no mode {arm.kind!r}, so no policy file can express it")


@dataclass(frozen=True)
class Stage:
    """The end of a stage. `rows` are those so far of the arms that it asked, and `questions` are those of all stages so far.

    `left_s` is the longest time that the rest takes, the report included; None if no row has a time.
    """

    number: int
    of: int
    questions: int
    rows: list[Row]
    dropped: Mapping[str, str]
    seconds: float
    left_s: float | None


@dataclass
class Tuner:
    """One search, in a folder that only this process uses.

    `tuning` has all tuning questions and all arms, `reporting` the questions of the final check. `progress` shows the progress
    of a named run.
    """

    tuning: RunConfig
    reporting: RunConfig
    edge_url: str
    folder: Path
    file: SearchFile
    table: PriceTable
    progress: Callable[[str], AbstractContextManager[OnProgress]]

    def __post_init__(self) -> None:
        self.all_rows: list[Row] = []
        self.running = [arm.text for arm in self.tuning.arms]

    @property
    def spec(self) -> SearchSpec:
        return self.file.spec

    def models(self) -> ServedModels:
        """Return the models that answered in the first stage."""
        run = read_run(self.folder / "stage-1")
        assert run is not None  # noqa: S101 - called after a stage only
        return run.models

    def prices(self) -> Prices:
        """Return the prices of the teacher that answered."""
        return prices_of(self.table, self.models().teacher)

    def amount(self) -> racing.Amount:
        """Return the quantity to minimize: dollars or tokens of the teacher."""
        prices = self.prices()
        by_tokens = self.spec.minimize == "tokens"
        return (lambda row: row.teacher.output) if by_tokens else lambda row: row.teacher.cost_usd(prices)

    async def stages(self) -> AsyncIterator[Stage]:
        """Run the stages that are missing. Ends early if no arm is left, or one is left that is shown to keep enough.

        Raises InvalidStage, and what `runner.run` raises.
        """
        total = len(self.tuning.data.questions)
        blocks = racing.blocks(total, self.spec.first_block)
        for number, block in enumerate(blocks, 1):
            asked, name = list(self.running), f"stage-{number}"
            decided = next(iter(self.file.decisions[number - 1 : number]), None)
            began = time.monotonic()
            self.all_rows += read_rows(self.folder / name) if decided else await self._run(self._part(block), name)
            rows = [row for row in self.all_rows if row.arm in asked]
            if decided is None:
                dropped = racing.race(racing.valid_rows(rows), asked, self.spec.keep, self.amount(), stages=len(blocks))
                decided = Decision(arms=asked, dropped=dropped, seconds=time.monotonic() - began)
                self.file = self.file.model_copy(update={"decisions": (*self.file.decisions, decided)})
                self.file.write(self.folder)
            self.running = [arm for arm in asked if arm not in decided.dropped]
            over = number == len(blocks) or self._settled(rows)
            left_s = self._left_s(rows, 0 if over else total - block.stop)
            yield Stage(number, len(blocks), block.stop, rows, decided.dropped, decided.seconds, left_s)
            if over:
                return

    def choice(self, *, rollout: bool = False) -> racing.Candidate | None:
        """Return the best candidate. With `rollout` arms, and the teacher, may be for a fraction of the questions."""
        whole = [arm.text for arm in self.tuning.arms if "rollout_fraction" not in arm.values]
        partial = [arm for arm in whole if arm in self.running and arm != OFF] if rollout else []
        rows = racing.valid_rows(self.all_rows)
        return racing.choose(rows, self.running, self.spec.keep, self.amount(), rollout=partial)

    def best_effort(self) -> racing.Candidate | None:
        """Return the candidate that keeps most, of the arms that are left; of all arms if none is left."""
        left = [arm for arm in self.running if arm not in REFERENCES]
        arms = left or [arm.text for arm in self.tuning.arms]
        return racing.best_effort(racing.valid_rows(self.all_rows), arms, self.spec.keep, self.amount())

    async def report(self, candidate: racing.Candidate) -> list[Row]:
        """Return the rows of the references and of a candidate on the reporting lines. Raises as `stages`."""
        arms = [arm for arm in self.tuning.arms if arm.text in REFERENCES | {candidate.arm}]
        name = REPORT if candidate.rollout_fraction == 1 else ROLLOUT_REPORT
        return await self._run(replace(self.reporting, arms=arms), name)

    async def _run(self, config: RunConfig, name: str) -> list[Row]:
        with self.progress(name) as on_progress:
            rows = await run_all(config, self.edge_url, self.folder / name, on_progress)
        self._check_models(name)
        bad = [row for row in rows if row.error or row.fallback or row.correct is None]
        if len(bad) > MAX_INVALID * len(rows):
            first = bad[0]
            reason = first.error or (f"fell back: {first.fallback}" if first.fallback else "no verdict")
            raise InvalidStage(
                f"{self.folder / name}: {len(bad)} of {len(rows)} answers do not measure their arm; the first, of "
                f"{first.arm!r} on question {first.question_id}: {reason}. The same command asks these again"
            )
        return rows

    def _check_models(self, name: str) -> None:
        """Raises BadFolder if a stage was answered by other models than the first."""
        first, run = self.models(), read_run(self.folder / name)
        now = run.models if run else first
        templates = [text for arm, text in now.templates.items() if first.templates.get(arm, text) != text]
        if (now.student, now.teacher) != (first.student, first.teacher) or templates:
            raise BadFolder(
                f"{self.folder / name} is of other models or templates than stage-1: "
                f"{', '.join([f'{now.student} and {now.teacher}', *templates])}; stage-1 had {first.student} and "
                f"{first.teacher}. Start the edge as before, remove that folder, and run the same command again"
            )

    def _part(self, block: range) -> RunConfig:
        """Return the run of a stage: the arms that are left on a block of the tuning questions."""
        arms = [arm for arm in self.tuning.arms if arm.text in self.running]
        return replace(self.tuning, data=self.tuning.data.part(block), arms=arms)

    def _settled(self, rows: Sequence[Row]) -> bool:
        """True if further questions could change no decision."""
        left = [arm for arm in self.running if arm not in REFERENCES]
        if len(left) != 1:
            return not left
        choice = racing.choose(racing.valid_rows(rows), left, self.spec.keep, self.amount())
        return choice is not None and choice.shown and choice.arm == left[0]

    def _left_s(self, rows: Sequence[Row], questions: int) -> float | None:
        """Estimate the time for the arms that are left on `questions` more, and then for the slowest of them in the report."""
        times: dict[str, list[float]] = {}
        for row in rows:
            if row.total_s is not None:
                times.setdefault(row.arm, []).append(row.total_s)
        if not times:
            return None
        mean = {arm: fmean(seconds) for arm, seconds in times.items()}
        references = sum(mean.get(arm, 0.0) for arm in REFERENCES)
        others = [mean[arm] for arm in self.running if arm in mean and arm not in REFERENCES]
        tuning = questions * (references + sum(others))
        reporting = len(self.reporting.data.questions) * (references + max(others, default=0.0))
        return (tuning + reporting) / self.tuning.concurrency
