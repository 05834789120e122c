"""Latency, jitter and bandwidth of a link."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from wan.link.units import MAX_KBIT, MAX_LATENCY_MS, kilobits, milliseconds


class Strict(BaseModel):
    """Base of the control API's request bodies: unknown fields and values of other types are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Conditions(Strict):
    """Conditions of a link; by default it is as fast as this machine. Times are for the ROUND TRIP; each way takes half."""

    latency_ms: float = Field(
        default=0.0, ge=0, le=MAX_LATENCY_MS, description="Latency of the round trip, half of it each way."
    )
    jitter_ms: float = Field(
        default=0.0,
        ge=0,
        le=MAX_LATENCY_MS,
        description="Upper bound of the random extra round trip time, drawn for each piece, half of it each way.",
    )
    up_kbit: float | None = Field(
        default=None,
        gt=0,
        le=MAX_KBIT,
        description="Bandwidth to the cloud in kbit/s, for all connections together. If null, no limit.",
    )
    down_kbit: float | None = Field(
        default=None,
        gt=0,
        le=MAX_KBIT,
        description="Bandwidth from the cloud in kbit/s, for all connections together. If null, no limit.",
    )

    def changed(
        self,
        *,
        latency: str | None = None,
        jitter: str | None = None,
        bandwidth: str | None = None,
        up: str | None = None,
        down: str | None = None,
    ) -> Conditions:
        """Return a copy with the given values, which have units; `bandwidth` sets both ways. Raises BadUnit."""
        changes: dict[str, float | None] = {}
        if latency is not None:
            changes["latency_ms"] = milliseconds(latency)
        if jitter is not None:
            changes["jitter_ms"] = milliseconds(jitter)
        for name, text in (("up_kbit", up or bandwidth), ("down_kbit", down or bandwidth)):
            if text is not None:
                changes[name] = kilobits(text)
        return self.model_copy(update=changes)
