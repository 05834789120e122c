"""What a link is like while it works."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from wan.link.units import MAX_KBIT, MAX_LATENCY_MS, kilobits, milliseconds


class Strict(BaseModel):
    """Base of what the control API takes: unknown fields, text for numbers and the like are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Conditions(Strict):
    """Without any: as fast as this machine. Times are of the ROUND TRIP; each way has half of it."""

    latency_ms: float = Field(default=0.0, ge=0, le=MAX_LATENCY_MS, description="of the round trip")
    jitter_ms: float = Field(
        default=0.0, ge=0, le=MAX_LATENCY_MS, description="up to so much more, drawn anew for each piece, each way half"
    )
    up_kbit: float | None = Field(
        default=None, gt=0, le=MAX_KBIT, description="kbit/s to the cloud, of all connections together; null: no limit"
    )
    down_kbit: float | None = Field(default=None, gt=0, le=MAX_KBIT, description="kbit/s from the cloud, likewise")

    def but(
        self,
        *,
        latency: str | None = None,
        jitter: str | None = None,
        bandwidth: str | None = None,
        up: str | None = None,
        down: str | None = None,
    ) -> Conditions:
        """The same with what is given, with its unit, in its place; `bandwidth` is both ways. Raises BadUnit."""
        changes: dict[str, float | None] = {}
        if latency is not None:
            changes["latency_ms"] = milliseconds(latency)
        if jitter is not None:
            changes["jitter_ms"] = milliseconds(jitter)
        for name, text in (("up_kbit", up or bandwidth), ("down_kbit", down or bandwidth)):
            if text is not None:
                changes[name] = kilobits(text)
        return self.model_copy(update=changes)
