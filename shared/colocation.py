"""Environment of a cloud and an edge that share a machine's cores. Elsewhere neither needs any of it."""

from __future__ import annotations

COLOCATED_CLOUD_ENV = {
    # A pass of the student takes milliseconds and has a reader waiting; one of the teacher on a CPU takes a third of a second.
    "GKT_CLOUD_ENGINE_NICE": "5",
}
COLOCATED_EDGE_ENV = {
    "GKT_EDGE_PREFILL_AFTER_TEACHER": "true",
    # The teacher's cores are the student's: what is drafted for nothing delays the verdict.
    "GKT_EDGE_DRAFT_AHEAD": "false",
    # Late is here what is computed slowly, not what is lost on the way.
    "GKT_EDGE_FIRST_TOKEN_DEADLINE_S": "30",
    "GKT_EDGE_NEXT_TOKEN_DEADLINE_S": "10",
}
