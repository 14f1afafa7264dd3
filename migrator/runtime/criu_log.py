"""What CRIU says when it fails: the first error of its log is the cause, the later ones are its echo."""

from __future__ import annotations

import re
from pathlib import Path

ERROR = re.compile(r"^(?:\([\d.]+\)\s*)?(?:\s*\d+: )?Error \(([^)]+)\): (.*)$", re.MULTILINE)
"""As `print_on_level(LOG_ERROR, ...)` writes it: `(00.012345) Error (criu/files.c:123): words`."""


HARMLESS = re.compile(r"criu/tun\.c:|rlimit: Can't setup RLIMIT_NOFILE")
"""Errors after which CRIU goes on: its probe of a tun device, and a limit it may not raise
(`rlimit_unlimit_nofile`, criu/util.c)."""

RUNC_MESSAGE = re.compile(r'"msg":"((?:[^"\\]|\\.)*)"')
"""A line of runc's `--log-format=json`."""


def first_error(log: Path) -> str:
    """Return CRIU's first error with its place in the source, or a log's last line, or nothing.

    What CRIU calls an error and goes on after (`HARMLESS`) is passed over.
    """
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return ""
    for place, words in ERROR.findall(text):
        if not HARMLESS.search(f"{place}: {words}"):
            return f"{words.strip()} ({place})"
    if messages := RUNC_MESSAGE.findall(text):
        return str(messages[-1])
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines and not lines[-1].startswith("(") else ""  # "(" is CRIU's ordinary chatter
