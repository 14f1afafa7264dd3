"""Where the daemon's files are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from watchdog.paths import DIRECTORY, RUNTIME, STATE
from watchdog.policy.load import LOCAL, SHIPPED


@dataclass(frozen=True)
class Places:
    """Where the daemon's files are; tests have their own."""

    directory: Path = DIRECTORY
    state: Path = STATE
    runtime: Path = RUNTIME
    shipped: Path = SHIPPED
    local: Path = LOCAL
