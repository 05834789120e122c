"""Settings of a cloud and an edge that run on the same machine and share its cores. Elsewhere the defaults are right."""

from __future__ import annotations

COLOCATED_CLOUD_ENV = {
    # A step of the student takes milliseconds, and its client waits; a step of the teacher on a CPU takes a third of a second.
    "GKT_CLOUD_ENGINE_NICE": "5",
}
COLOCATED_EDGE_ENV = {
    "GKT_EDGE_PREFILL_AFTER_TEACHER": "true",
    # Both use the same cores, so a draft that is rejected has delayed the teacher's verdict.
    "GKT_EDGE_DRAFT_AHEAD": "false",
    # Here a late token was computed slowly; no network lost it.
    "GKT_EDGE_FIRST_TOKEN_DEADLINE_S": "30",
    "GKT_EDGE_NEXT_TOKEN_DEADLINE_S": "10",
}
