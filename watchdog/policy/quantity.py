"""Numbers as admins write them: durations, and limits with or without their unit. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator

UNITS_S: Mapping[str, float] = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhd])")
NUMBER = re.compile(r"([-+]?\d{1,15}(?:\.\d{1,9})?)\s*([^\d\s.]*)")
LONGEST_S = 3650 * 86400.0
LARGEST = 1e15  # counts beyond lose whole numbers in a float

WORDS: Mapping[str, Mapping[str, float]] = {
    "percent": {"%": 1},
    "celsius": {"C": 1, "°C": 1},
    "rpm": {"rpm": 1},
    "volt": {"V": 1, "mV": 0.001},
    "watt": {"W": 1},
    "bytes": {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "hours": {"h": 1, "d": 24},
    "seconds": UNITS_S,
}
"""What may stand behind a number of each unit of the catalogue, and what it counts for."""


def duration_s(text: object) -> float:
    """Read `30s`, `10m`, `24h` or `7d` as seconds."""
    if isinstance(text, str) and (found := DURATION.fullmatch(text.strip())):
        seconds = float(found.group(1)) * UNITS_S[found.group(2)]
        if seconds <= LONGEST_S:
            return seconds
        raise ValueError("longer than ten years")
    raise ValueError("a duration is a number with s, m, h or d behind it, in quotes: '30s', '10m', '24h', '7d'")


def as_duration(seconds: float) -> str:
    """Return seconds as an admin would write them."""
    for word, size in reversed(tuple(UNITS_S.items())):
        if seconds >= size and (seconds % size == 0 or seconds >= 2 * size):
            return f"{seconds / size:.3g}{word}"
    return f"{seconds:.3g}s"


def amount(text: object, unit: str) -> float:
    """Read a limit for values in a unit of the catalogue: a number, or text with the unit behind the number."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        value = float(text) if abs(text) <= LARGEST else float("inf")
    elif isinstance(text, str) and (found := NUMBER.fullmatch(text.strip())):
        known, word = WORDS.get(unit, {}), found.group(2)
        if word and word not in known:
            allowed = f"; allowed: {', '.join(known)}, or none" if known else "; write a plain number"
            raise ValueError(f"the signal is in {unit}, and {word!r} is no unit for that{allowed}")
        value = float(found.group(1)) * known.get(word, 1.0)
    else:
        raise ValueError("is no number, with or without a unit behind it")
    if not abs(value) <= LARGEST:  # nan as well
        raise ValueError("is no number a signal can have")
    return value


Duration = Annotated[float, BeforeValidator(duration_s)]
