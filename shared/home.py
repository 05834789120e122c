"""The folder of gkt's files."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def home() -> Path:
    """Return the folder of gkt's files: `GKT_HOME`, else the user's cache folder (XDG). It may not exist yet."""
    if chosen := os.environ.get("GKT_HOME"):
        return Path(chosen).expanduser()
    return platformdirs.user_cache_path("gkt")
