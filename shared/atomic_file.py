"""Atomic replacement of a file's content."""

from __future__ import annotations

from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Replace the content of a file. A reader sees the old content or the new, never a part of either. Raises OSError."""
    temporary = path.with_name(f"{path.name}.new")
    try:
        temporary.write_text(text, "utf-8")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
