"""The pages of one address space that have not come yet. Pure: no descriptor, no clock.

A range knows where its pages lie at the source, for the process may move them (`mremap`) before they are
there.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

SMALL_HOLE_BYTES = 64 << 10
"""What lies between two missing parts is asked for with them if it is less: one request costs more than these."""


class Range(NamedTuple):
    """Missing memory: addresses here, and the address at the source of its first byte."""

    start: int
    end: int
    origin: int

    def part(self, start: int, end: int) -> Range:
        """Return the part between two addresses of it."""
        return Range(start, end, self.origin + start - self.start)


class Pending:
    """Disjoint ranges in order of address."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._ranges = sorted(ranges, key=lambda item: item.start)
        self._bytes = _total(self._ranges)

    @classmethod
    def of(cls, ranges: Iterable[tuple[int, int]]) -> Pending:
        """Return what is missing of a space that was not moved yet."""
        return cls(Range(start, end, start) for start, end in ranges)

    @property
    def bytes(self) -> int:
        """Return how much is missing; kept, not counted: there are tens of thousands of ranges."""
        return self._bytes

    @property
    def empty(self) -> bool:
        """Say whether nothing is missing."""
        return not self._ranges

    def copy(self) -> Pending:
        """Return the same for a child that was forked."""
        return Pending(self._ranges)

    def find(self, start: int, end: int) -> list[Range]:
        """Return the missing parts within a range, clipped to it."""
        if start >= end:
            return []
        return [
            item.part(max(start, item.start), min(end, item.end)) for item in self._from(self._first(start), end)
        ]

    def next(self, after: int, limit: int) -> Range | None:
        """Return the next missing part at or behind an address, going round, of at most `limit` bytes.

        It begins and ends with a missing page and may have small holes.
        """
        if not self._ranges:
            return None
        index = self._first(after)
        if index == len(self._ranges):
            index, after = 0, 0
        item = self._ranges[index]
        start = max(item.start, after)
        shift, end = item.start - item.origin, min(item.end, start + limit)
        for other in self._from(index + 1, start + limit):
            moved = other.start - other.origin != shift
            if moved or other.start - end >= SMALL_HOLE_BYTES:
                break
            end = min(other.end, start + limit)
        return Range(start, end, start - shift)

    def add(self, ranges: Iterable[Range]) -> None:
        """Take ranges in; what was known of their addresses is forgotten."""
        for item in ranges:
            self.drop(item.start, item.end)
            bisect.insort(self._ranges, item, key=lambda known: known.start)
            self._bytes += item.end - item.start

    def drop(self, start: int, end: int) -> None:
        """Forget what lies in a range: it has come, or the process gave it away."""
        if start >= end:
            return
        first = self._first(start)
        last = first
        kept: list[Range] = []
        while last < len(self._ranges) and self._ranges[last].start < end:
            item = self._ranges[last]
            if item.start < start:
                kept.append(item.part(item.start, start))
            if item.end > end:
                kept.append(item.part(end, item.end))
            last += 1
        self._bytes += _total(kept) - _total(self._ranges[first:last])
        self._ranges[first:last] = kept

    def narrow(self, start: int, end: int, held: Sequence[tuple[int, int]]) -> None:
        """Forget what the source does not hold either: of its addresses from `start` to `end` all but `held`.

        `held` is in order and lies between the two.
        """
        kept: list[Range] = []
        for item in self._ranges:
            shift = item.start - item.origin
            first, last = max(item.origin, start), min(item.origin + item.end - item.start, end)
            if first >= last:
                kept.append(item)
                continue
            pieces = [(item.start, first + shift), (last + shift, item.end)]
            index = bisect.bisect_right(held, first, key=lambda part: part[1])
            while index < len(held) and held[index][0] < last:
                pieces.insert(-1, (max(held[index][0], first) + shift, min(held[index][1], last) + shift))
                index += 1
            kept += [item.part(here, there) for here, there in pieces if here < there]
        self._ranges, self._bytes = kept, _total(kept)

    def move(self, source: int, target: int, length: int) -> None:
        """Follow an `mremap`: what was missing there is missing here now."""
        moved = self.find(source, source + length)
        self.drop(source, source + length)
        self.drop(target, target + length)
        shift = target - source
        self.add(Range(item.start + shift, item.end + shift, item.origin) for item in moved)

    def _from(self, index: int, end: int) -> Iterator[Range]:
        """Yield the ranges from an index on that begin before an address; takes no longer in a long list."""
        while index < len(self._ranges) and self._ranges[index].start < end:
            yield self._ranges[index]
            index += 1

    def _first(self, address: int) -> int:
        """Return the index of the first range that ends behind an address."""
        return bisect.bisect_right(self._ranges, address, key=lambda item: item.end)


def _total(ranges: Iterable[Range]) -> int:
    return sum(item.end - item.start for item in ranges)
