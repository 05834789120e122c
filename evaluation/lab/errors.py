"""What can be wrong with an evaluation. Each names the place, and ends `gkt eval` with one line and status 1.

GktError
└── LabError
    ├── BadData            a data file that cannot be read, holds a bad line, or is not the one that the manifest knows
    ├── BadTask            there is no such task, or a task of one's own that is none
    ├── BadArm             an arm that cannot be read
    ├── ArmRefused         the edge will not answer under an arm
    ├── BadFolder          a result folder of another run, of a run under way, or with rows that cannot be read
    ├── Unsound            too many answers of a tuner's stage say nothing of their arm
    ├── EdgeGone           the edge cannot be reached (any more)
    └── JudgeRefused       the judge will not judge
"""

from __future__ import annotations

from shared.errors import GktError


class LabError(GktError):
    code = "lab_error"


class BadData(LabError):
    code = "bad_data"


class BadTask(LabError):
    code = "bad_task"


class BadArm(LabError):
    code = "bad_arm"


class ArmRefused(LabError):
    code = "arm_refused"


class BadFolder(LabError):
    code = "bad_folder"


class Unsound(LabError):
    code = "unsound"


class EdgeGone(LabError):
    code = "edge_gone"


class JudgeRefused(LabError):
    code = "judge_refused"
