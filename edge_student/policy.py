"""Resolves the policy of a request: mode, budget, template and thresholds. Pure decisions.

Precedence: the request's `gkt` fields, the model's name, explicit settings, the policy file, `DEFAULTS`. A field that is still
None has a default of the mode's strategy.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_student.settings import EdgeSettings
from shared.errors import ConfigurationError, InvalidRequest, UnknownModel
from shared.policy_file import PolicyFile, read_policy_file
from shared.protocol.gkt import GktOptions, Mode, PolicyFields

DEFAULTS = PolicyFields(
    mode=Mode.FIXED, max_guidance_tokens=40, acceptance_threshold=0.5, handback_after=3, rollout_fraction=1.0
)
"""Policy fields if neither request, settings nor policy file set them. 40 tokens is the paper's length on GSM8K."""
MODEL_MODES: dict[str, Mode | None] = {"gkt": None, "gkt-student": Mode.OFF, "gkt-teacher": Mode.TEACHER}
"""Model names and the mode each requests. None leaves the mode to the request and the policy."""
FREE_TEXT_MODES = frozenset({Mode.ON_DEMAND, Mode.REVIEW})
"""Modes without support for grammars. Structured answers use mode `fixed` instead."""


class Policy(PolicyFields):
    """The policy of one request. Fields that are None have a default of their mode's strategy."""

    mode: str
    max_guidance_tokens: int
    """Most tokens the teacher may write. At 0 the cloud is not called."""
    scores: bool = False
    """True if the answer reports how probable the guidance was to the student."""
    file: str | None = None
    """Name of the policy file that decided the mode, if one did."""


@dataclass(frozen=True)
class PolicyResolver:
    """Resolves the policy of each request from an edge's settings and its policy file."""

    settings: EdgeSettings
    policy_file: PolicyFile | None = None
    modes: Collection[str] = tuple(Mode)
    """Modes that have a strategy."""

    @classmethod
    def from_settings(cls, settings: EdgeSettings, modes: Collection[str]) -> PolicyResolver:
        """Read the policy file that the settings name. Raises ConfigurationError if it is invalid, or a mode is unknown."""
        path = settings.policy_file
        file = read_policy_file(Path(path)) if path else None
        for name, mode in (("GKT_EDGE_MODE", settings.mode), (f"the policy file {path}: mode", file and file.mode)):
            if mode and mode not in modes:
                raise ConfigurationError(f"{name}: unknown mode {mode!r}; available: {', '.join(modes)}")
        return cls(settings, file, modes)

    @property
    def file_decides_mode(self) -> bool:
        """True if requests without a mode of their own get that of the policy file."""
        return self.policy_file is not None and self.settings.mode is None

    def resolve(
        self,
        model: str,
        options: GktOptions | None = None,
        *,
        max_tokens: int | None = None,
        structured: bool = False,
        bucket: Callable[[], float] = lambda: 0.0,
    ) -> Policy:
        """Return the policy of one request.

        `max_tokens` is the client's own limit of the whole answer. `structured` is True if a grammar applies to it.
        `bucket` is called only if the mode applies to a fraction of the requests; requests in buckets at or above that
        fraction are answered by the student alone. Raises UnknownModel, and InvalidRequest for an unknown mode.
        """
        if model not in MODEL_MODES:
            raise UnknownModel(f"unknown model {model!r}; available: {', '.join(MODEL_MODES)}", param="model")
        options = options or GktOptions()
        requested = options.mode or MODEL_MODES[model]
        fields = _first_set(options, self.settings, self.policy_file, DEFAULTS)
        mode: str = requested or fields["mode"]
        if mode not in self.modes:
            raise InvalidRequest(
                f"gkt.mode: unknown mode {mode!r}; available: {', '.join(self.modes)}", param="gkt.mode"
            )
        fraction = fields["rollout_fraction"]
        if requested and options.rollout_fraction is None:
            fraction = 1.0
        rolled_out = fraction >= 1 or bucket() < fraction
        from_file = self.file_decides_mode and not requested
        if not rolled_out:
            mode = Mode.OFF
        elif structured and mode in FREE_TEXT_MODES:
            mode, from_file = Mode.FIXED, from_file and fields["mode"] == Mode.FIXED
        fields |= {"mode": mode, "max_guidance_tokens": self._budget(mode, fields, options, max_tokens)}
        name = self.policy_file.name if from_file and self.policy_file else None
        return Policy(**fields, scores=options.scores, file=name)

    def _budget(self, mode: str, fields: dict[str, Any], options: GktOptions, max_tokens: int | None) -> int:
        """Return the most tokens that the teacher may write, within the limit of the whole answer."""
        if mode == Mode.OFF:
            return 0
        budget: int = fields["max_guidance_tokens"]
        if mode == Mode.TEACHER:
            limits = (options.max_guidance_tokens, max_tokens, self.settings.teacher_max_tokens)
            budget = next(limit for limit in limits if limit is not None)
        return budget if max_tokens is None else min(budget, max_tokens)


def rollout_bucket(prompt: Sequence[int], seed: int | None) -> float:
    """Hash prompt tokens and seed to a number in [0, 1), evenly and reproducibly."""
    digest = hashlib.blake2b(f"{seed} ".encode() + array("q", prompt).tobytes(), digest_size=4)
    return int.from_bytes(digest.digest()) / 2**32


def _first_set(*layers: PolicyFields | None) -> dict[str, Any]:
    """Return each policy field from the first layer that sets it, or None."""
    return {
        name: next((value for layer in layers if layer and (value := getattr(layer, name)) is not None), None)
        for name in PolicyFields.model_fields
    }
