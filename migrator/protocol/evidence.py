"""What is kept of a migration: the logs of CRIU, runc, podman and our own programs."""

from __future__ import annotations

import shutil
from pathlib import Path

KEPT_MIGRATIONS = 20
PATTERNS = ("*.log", "*.out", "lazy/*.log")


def keep(directory: Path, state: Path, migration: str) -> Path:
    """Copy the logs of a migration's directory to the state directory; return where they lie."""
    kept = state / "logs" / migration
    kept.mkdir(parents=True, exist_ok=True, mode=0o700)
    for pattern in PATTERNS:
        for log in directory.glob(pattern):
            shutil.copy2(log, kept / log.name)
    _forget_oldest(state / "logs")
    return kept


def _forget_oldest(logs: Path) -> None:
    by_age = sorted(logs.iterdir(), key=lambda path: path.stat().st_mtime)
    for path in by_age[:-KEPT_MIGRATIONS]:
        shutil.rmtree(path, ignore_errors=True)
