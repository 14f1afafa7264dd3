"""What a drain tells of itself: how much has come, how fast, and how long faults had to wait. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field

LIMITS_US = (50, 100, 150, 200, 300, 500, 1000, 2000, 5000, 10_000, 50_000, 100_000, 500_000, 1_000_000)
"""Upper limits of the histogram's classes; the last class has none."""

WINDOW_S = 2.0  # the rate of now is that of so many seconds


@dataclass
class Latencies:
    """A histogram of fault latencies: from the event's reading to the page's filling."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(LIMITS_US) + 1))

    def note(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_right(LIMITS_US, seconds * 1e6)] += 1

    @property
    def count(self) -> int:
        """Return how many there were."""
        return sum(self.counts)

    def percentile_us(self, percent: float) -> int | None:
        """Return the upper limit of the class in which a percentile lies; None when there is none or no limit."""
        wanted = self.count * percent / 100
        seen = 0
        for limit, count in zip(LIMITS_US, self.counts, strict=False):
            seen += count
            if seen and seen >= wanted:
                return limit
        return None


class Rate:
    """Bytes per second over the last moments."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def note(self, now: float, total: int) -> None:
        """Take note of how much there is in all."""
        self._marks.append((now, total))
        while len(self._marks) > 1 and now - self._marks[1][0] > WINDOW_S:
            self._marks.popleft()

    @property
    def bytes_per_s(self) -> float:
        """Return the rate of now, 0 when it is not known."""
        if len(self._marks) < 2 or self._marks[-1][0] <= self._marks[0][0]:
            return 0.0
        (began, first), (ended, last) = self._marks[0], self._marks[-1]
        return (last - first) / (ended - began)


@dataclass
class Statistics:
    """Everything that is counted in one drain."""

    received_bytes: int = 0  # memory, as it stands here now
    wire_bytes: int = 0  # what that was on the links
    zero_bytes: int = 0
    faults: int = 0
    poisoned_bytes: int = 0  # could not be read at the source either
    latencies: Latencies = field(default_factory=Latencies)
    rate: Rate = field(default_factory=Rate)

    def tell(self, now: float, missing_bytes: int) -> dict[str, object]:
        """Return it all for a report; `missing_bytes` is what has not come yet."""
        self.rate.note(now, self.received_bytes)
        speed = self.rate.bytes_per_s
        return {
            "missing_bytes": missing_bytes,
            "wire_bytes": self.wire_bytes,
            "zero_bytes": self.zero_bytes,
            "poisoned_bytes": self.poisoned_bytes,
            "bytes_per_s": round(speed),
            "eta_s": round(missing_bytes / speed, 1) if speed else None,
            "faults": self.faults,
            "fault_median_us": self.latencies.percentile_us(50),
            "fault_p99_us": self.latencies.percentile_us(99),
            "fault_classes": list(self.latencies.counts),
        }
