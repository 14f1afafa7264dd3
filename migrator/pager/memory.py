"""The memory of a process that stands still, read from /proc."""

from __future__ import annotations

import os

from migrator.pager.packing import PAGE_BYTES
from migrator.pager.scan import held_ranges

SMALL_HOLE_BYTES = 64 << 10
"""Smaller holes are not told apart from what lies around them: reading zeros is cheaper than one request more."""


class FrozenMemory:
    """The memory of one process that stands still."""

    def __init__(self, pid: int) -> None:
        self._contents = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)

    def held(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the parts of a range that hold something, with small holes taken in."""
        found: list[tuple[int, int]] = []
        for first, last in held_ranges(self._pagemap, start, end):
            if found and first - found[-1][1] < SMALL_HOLE_BYTES:
                found[-1] = (found[-1][0], last)
            else:
                found.append((first, last))
        return found

    def read(self, into: memoryview, address: int) -> frozenset[int]:
        """Read memory; return the numbers of the pages that hold something and cannot be read.

        What was never there reads as zeros, a guard too, which the kernel refuses to read just as it refuses
        a page whose memory has failed.
        """
        if self._copy(into, address):
            return frozenset()
        into[:] = bytes(len(into))
        bad = set()
        for first, last in held_ranges(self._pagemap, address, address + len(into)):
            for page in range(first, last, PAGE_BYTES):
                offset = page - address
                if not self._copy(into[offset : offset + PAGE_BYTES], page):
                    bad.add(offset // PAGE_BYTES)
        return frozenset(bad)

    @property
    def descriptor(self) -> int:
        """Return the open /proc/PID/mem."""
        return self._contents

    def close(self) -> None:
        """Close the files."""
        os.close(self._contents)
        os.close(self._pagemap)

    def _copy(self, into: memoryview, address: int) -> bool:
        try:
            return os.preadv(self._contents, [into], address) == len(into)
        except OSError:
            return False
