"""What CRIU says when it fails: the first error of its log is the cause, the later ones are its echo."""

from __future__ import annotations

import re
from pathlib import Path

ERROR = re.compile(r"^(?:\([\d.]+\)\s*)?(?:\s*\d+: )?Error \(([^)]+)\): (.*)$", re.MULTILINE)
"""As `print_on_level(LOG_ERROR, ...)` writes it: `(00.012345) Error (criu/files.c:123): words`."""


def first_error(log: Path) -> str:
    """Return CRIU's first error with its place in the source, or the log's last line, or nothing."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return ""
    found = ERROR.search(text)
    if found:
        return f"{found.group(2).strip()} ({found.group(1)})"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
