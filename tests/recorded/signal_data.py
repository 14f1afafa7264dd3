"""Recorded devices for the tests of readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from watchdog.signals.model import Reading

DATA = Path(__file__).parent.parent / "data"


def answer(name: str) -> dict[str, Any]:
    """Return a recorded answer of smartctl."""
    found: dict[str, Any] = json.loads((DATA / "smart" / name / "answer.json").read_text())
    return found


def plant(file: str, root: Path) -> None:
    """Make the tree that a listing of `path: content` lines describes."""
    for line in (DATA / file).read_text().splitlines():
        path, _, content = line.partition(": ")
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{content}\n")


def values(readings: tuple[Reading, ...]) -> dict[tuple[str, str], float | None]:
    """Return (device name, signal) -> value; None for what is unreadable."""
    return {(reading.device.name, reading.signal): reading.value for reading in readings}


def reason(readings: tuple[Reading, ...], signal: str) -> str:
    """Return the reason of the one reading of a signal."""
    (found,) = [reading.reason for reading in readings if reading.signal == signal]
    return found
