"""What is kept of a migration: the logs of CRIU, runc, podman and our own programs."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

KEPT_MIGRATIONS = 20
PATTERNS = ("*.log", "*.out", "lazy/*.log")

_log = logging.getLogger(__name__)


def keep(directory: Path, state: Path, migration: str) -> None:
    """Copy the logs of a migration's directory to the state directory, as far as its disk takes them."""
    kept = state / "logs" / migration
    try:
        kept.mkdir(parents=True, exist_ok=True, mode=0o700)
        for pattern in PATTERNS:
            for log in directory.glob(pattern):
                shutil.copy2(log, kept / log.name)
        _forget_oldest(state / "logs")
    except OSError as error:
        _log.warning("the logs of the migration %s cannot be kept: %s", migration, error)


def _forget_oldest(logs: Path) -> None:
    by_age = sorted(logs.iterdir(), key=lambda path: path.stat().st_mtime)
    for path in by_age[:-KEPT_MIGRATIONS]:
        shutil.rmtree(path, ignore_errors=True)
