"""Errors of the laboratory. Each ends `gkt eval` or `gkt tune` with one line and status 1."""

from __future__ import annotations

from shared.errors import GktError


class LabError(GktError):
    """An evaluation cannot go on."""


class BadData(LabError):
    """A data file cannot be read, has a bad line, or is not the one in the manifest."""


class BadTask(LabError):
    """A task does not exist, or a file does not define one."""


class BadArm(LabError):
    """The text of an arm cannot be parsed."""


class ArmRefused(LabError):
    """The edge does not answer under an arm."""


class BadFolder(LabError):
    """A folder holds another run, a run that is still going on, or rows that cannot be read."""


class InvalidStage(LabError):
    """Too many answers of a tuner's stage do not show the quality of their arm."""


class EdgeGone(LabError):
    """The edge cannot be reached, or no longer."""


class JudgeRefused(LabError):
    """The judge does not answer."""
