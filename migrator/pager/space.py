"""One restored address space: what of it is missing, what was asked for, and how pages get into it (spaces.c).

Whoever calls anything here holds the lock of the inflow: then no event of the space is read between the look at
what is missing and the filling, so that no page is ever put where the process has given the address away.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from migrator.pager import userfault
from migrator.pager.packing import PAGE_BYTES, Pages
from migrator.pager.pending import Pending, Range
from migrator.pager.statistics import Statistics
from migrator.pager.userfault import Event, Kind

COARSE_BYTES = 1 << 20
"""Of larger ranges the source is asked what it holds; mappings that CRIU was spared come whole at first."""

HELD_BYTES = 128 << 20  # of so much at once: this bounds what the answer takes


@dataclass
class Space:
    """One address space."""

    pid: int  # by which the source knows its memory
    userfault: int
    pending: Pending  # has not come
    coarse: Pending  # of that, what the source may not hold
    asked: Pending = field(default_factory=Pending)  # of that, what this pass of the bulk has still to ask for
    under_way: int = 0  # requests of the bulk
    cursor: int = 0  # where the bulk goes on: behind the last fault
    gone: bool = False

    @classmethod
    def of(cls, pid: int, descriptor: int, ranges: list[tuple[int, int]]) -> Space:
        """Return the space of a task that was just restored."""
        coarse = [(start, end) for start, end in ranges if end - start > COARSE_BYTES]
        return cls(pid, descriptor, Pending.of(ranges), Pending.of(coarse))

    def child(self, descriptor: int) -> Space:
        """Return the space of a process that was forked from this one."""
        known = self.pending.copy(), self.coarse.copy()
        return Space(self.pid, descriptor, *known, cursor=self.cursor)

    def follow(self, event: Event) -> None:
        """Follow what the process did to its mappings."""
        for known in (self.pending, self.coarse, self.asked):
            if event.kind is Kind.REMAP:
                known.move(event.first, event.second, event.third)
            else:
                known.drop(event.first, event.second)

    def next_range(self, limit: int) -> tuple[Range, bool] | None:
        """Return what the bulk shall ask for next, and whether that is what the source holds of it, not pages."""
        if self.asked.empty:
            if self.under_way or self.pending.empty:
                return None
            self.asked = self.pending.copy()
        part = self.asked.next(self.cursor, limit)
        if part is None:
            return None
        coarse = self.coarse.find(part.start, part.start + HELD_BYTES)
        if coarse and coarse[0].start == part.start:
            part = coarse[0]
        elif coarse and coarse[0].start < part.end:
            part = part.part(part.start, coarse[0].start)
        held = bool(coarse) and part is coarse[0]
        self.asked.drop(part.start, part.end)
        if not held:
            self.cursor = part.end
        return part, held

    def narrow(self, part: Range, held: list[tuple[int, int]]) -> None:
        """The source holds no more of a range than this."""
        self.coarse.drop(part.start, part.end)
        self.pending.narrow(part.origin, part.origin + part.end - part.start, held)
        self.asked.add(self.pending.find(part.start, part.end))

    def fill(self, part: Range, pages: Pages, first: int, last: int, statistics: Statistics) -> None:
        """Fill what is still missing of the answer's pages from `first` to before `last`.

        The process may have changed its mappings since they were asked for. Raises `TreeGoneError`.
        """
        base = part.start
        for missing in self.pending.find(base + first * PAGE_BYTES, base + last * PAGE_BYTES):
            if missing.start - missing.origin != part.start - part.origin:
                continue  # moved here from elsewhere since we asked
            here = (missing.start - base) // PAGE_BYTES
            for piece in pages.pieces(here, here + (missing.end - missing.start) // PAGE_BYTES):
                start = base + piece.first * PAGE_BYTES
                length = (piece.last - piece.first) * PAGE_BYTES
                done = self._put(start, length, piece.data, piece.bad)
                self.pending.drop(start, start + done)
                statistics.received_bytes += done
                statistics.zero_bytes += done if piece.data is None and not piece.bad else 0
                statistics.poisoned_bytes += done if piece.bad else 0
                if done < length:
                    return  # events must be read first

    def _put(self, start: int, length: int, data: memoryview | None, bad: bool) -> int:
        if data is not None:
            return userfault.fill(self.userfault, start, data)
        return (userfault.poison if bad else userfault.fill_zeros)(self.userfault, start, length)

    def poison(self) -> int:
        """Let nobody ever read what is missing; return how much was poisoned.

        Something may stay missing, when events have to be read first. Raises `TreeGoneError`, `OSError`.
        """
        total = 0
        for part in self.pending.find(0, 1 << 64):
            done = userfault.poison(self.userfault, part.start, part.end - part.start)
            self.pending.drop(part.start, part.start + done)
            total += done
        return total
