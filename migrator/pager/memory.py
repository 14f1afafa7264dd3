"""The memory of a process that stands still, read from /proc."""

from __future__ import annotations

import os

from migrator.errors import ExecutionError
from migrator.pager.packing import PAGE_BYTES
from migrator.pager.scan import held_ranges

SMALL_HOLE_BYTES = 64 << 10
"""Smaller holes are not told apart from what lies around them: reading zeros is cheaper than one request more."""


class MemoryGoneError(ExecutionError):
    """The process is dead: what was not sent yet is lost."""


class FrozenMemory:
    """The memory of one process that stands still."""

    def __init__(self, pid: int) -> None:
        self._contents = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)

    def held(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the parts of a range that hold something, with small holes taken in; raises `MemoryGoneError`."""
        found: list[tuple[int, int]] = []
        for first, last in self._scan(start, end):
            if found and first - found[-1][1] < SMALL_HOLE_BYTES:
                found[-1] = (found[-1][0], last)
            else:
                found.append((first, last))
        return found

    def read(self, into: memoryview, address: int) -> frozenset[int]:
        """Read memory; return the numbers of the pages that hold something and cannot be read.

        What was never there reads as zeros, a guard too, which the kernel refuses to read just as it refuses
        a page whose memory has failed. Raises `MemoryGoneError`.
        """
        if self._copy(into, address):
            return frozenset()
        into[:] = bytes(len(into))
        bad = set()
        for first, last in self._scan(address, address + len(into)):
            for page in range(first, last, PAGE_BYTES):
                offset = page - address
                if not self._copy(into[offset : offset + PAGE_BYTES], page):
                    bad.add(offset // PAGE_BYTES)
        self._check_alive()
        return frozenset(bad)

    @property
    def descriptor(self) -> int:
        """Return the open /proc/PID/mem."""
        return self._contents

    def _scan(self, start: int, end: int) -> list[tuple[int, int]]:
        try:
            found = held_ranges(self._pagemap, start, end)
        except OSError:
            self._check_alive()
            raise
        self._check_alive()  # of a dead process some kernels say that it holds nothing
        return found

    def _check_alive(self) -> None:
        """Raise `MemoryGoneError` when the process has lost its memory: then nothing is read, and no error."""
        try:
            alive = bool(os.pread(self._contents, 1, PAGE_BYTES))
        except OSError:
            alive = True  # nothing is mapped there, in a memory that is
        if not alive:
            raise MemoryGoneError("the process is dead, and its memory with it", code="memory-gone")

    def _copy(self, into: memoryview, address: int) -> bool:
        try:
            return os.preadv(self._contents, [into], address) == len(into)
        except OSError:
            return False
