"""An experiment to vary."""

from __future__ import annotations

from typing import Any

from shared.experiments.definition import Experiment

FIELDS: dict[str, Any] = {
    "name": "shorter-maths",
    "salt": "b7Qx2kLm",
    "unit": "user",
    "arms": [{"name": "now"}, {"name": "short", "policy": "maths@4", "template": "maths@2"}],
    "control": "now",
    "primary": {"name": "shadow_agreement", "kind": "mean", "better": "higher", "smallest_effect": 0.02},
    "guardrails": [
        {"name": "fallback", "kind": "rate", "better": "lower", "margin": 0.05},
        {"name": "total_ms", "kind": "rate", "above": 4000, "better": "lower", "margin": 0.05},
        {"name": "cost_usd", "kind": "mean", "better": "lower", "margin": 0.1, "relative": True},
        {"name": "feedback", "kind": "rate", "better": "higher", "margin": 0.1, "signal": True},
    ],
}


def experiment(**changes: Any) -> Experiment:
    return Experiment.model_validate(FIELDS | changes)


def running(**changes: Any) -> Experiment:
    return experiment(**{"status": "running", "percent": 100} | changes)
