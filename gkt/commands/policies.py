"""`gkt policies`: manage policies in the cloud's registry."""

from __future__ import annotations

from gkt.commands.registry import build_app

app = build_app("policy", "policies")
