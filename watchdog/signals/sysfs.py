"""Read single files of sysfs and procfs, which may vanish or refuse at any moment."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path) -> str:
    """Return a file's text without white space around it; empty when it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def read_number(path: Path) -> int | None:
    """Return the whole number in a file; None when there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
