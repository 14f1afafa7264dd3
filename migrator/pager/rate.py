"""How fast pages may go, and whether it pays to compress them. Pure: time is passed in."""

from __future__ import annotations

from enum import StrEnum

BURST_S = 0.05  # how much may go at once, in seconds of the allowed rate
PROBE_EVERY = 64  # answers; so often the way that is not taken is tried again
MEMORY = 0.8  # how much of what was known survives a new measurement


class Compression(StrEnum):
    """Whether memory is compressed on its way."""

    AUTO = "auto"  # where that is faster, measured as it goes
    ON = "on"
    OFF = "off"


class Throttle:
    """A limit in bytes per second; 0 is none."""

    def __init__(self, bytes_per_s: float) -> None:
        self._rate = bytes_per_s
        self._free_at = 0.0

    @property
    def limited(self) -> bool:
        """Say whether there is a limit."""
        return self._rate > 0

    def delay_s(self, now: float, count: int) -> float:
        """Return how long to wait before `count` bytes may go; they are counted as gone."""
        if not self._rate:
            return 0.0
        self._free_at = max(self._free_at, now - BURST_S) + count / self._rate
        return max(0.0, self._free_at - now)


class Economy:
    """Chooses between sending as it is and compressing, by the seconds each took for a byte of memory."""

    def __init__(self, wanted: Compression) -> None:
        self._wanted = wanted
        self._cost_s: dict[bool, float] = {}
        self._count = 0

    def compress(self) -> bool:
        """Say what to do with the next answer."""
        if self._wanted is not Compression.AUTO:
            return self._wanted is Compression.ON
        self._count += 1
        for way in (False, True):
            if way not in self._cost_s:
                return way
        best = self._cost_s[True] < self._cost_s[False]
        return not best if self._count % PROBE_EVERY == 0 else best

    def learn(self, compressed: bool, memory_bytes: int, seconds: float) -> None:
        """Take note of how long an answer took, compression and all."""
        cost = seconds / max(1, memory_bytes)
        known = self._cost_s.get(compressed, cost)
        self._cost_s[compressed] = MEMORY * known + (1 - MEMORY) * cost
