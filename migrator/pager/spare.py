"""Spared memory: large anonymous mappings that CRIU passes over in its dump.

For every page of a lazy dump CRIU makes entries in its tables and splices it into a pipe, 60 to 150 ms per
GiB in which the container stands still, with two descriptors per 3 MiB; and our page source never
reads those pipes. So a small library, preloaded into that CRIU (spare.c), lets its search find nothing in
the ranges chosen here, and writes down which it passed over. Those, and only those, are then entered into
CRIU's images as pages to come on demand. Without the library, or on a kernel before 6.7, nothing is written
down, and CRIU does it all as ever.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from migrator.pager.images import PAGE_BYTES, Range, enter_lazy_ranges, pid_in_images

SMALLEST_BYTES = 4 << 20
"""Where CRIU's cost becomes a quarter of a millisecond. CRIU scans smaller mappings several at a time."""

NAMES = ("", "[heap]")
"""As /proc/PID/maps calls anonymous memory, besides `[anon:...]`; a stack is left to CRIU."""

_log = logging.getLogger("shim")


class Spare:
    """What one dump passes over."""

    def __init__(self, directory: Path) -> None:
        """Keep the two lists, of what may be passed over and of what was, in the migration's `directory`."""
        self._may = directory / "spare"
        self._was = directory / "spared"

    def environment(self) -> dict[str, str]:
        """Return what CRIU must find in its environment; nothing when the library was not built."""
        library = next(Path(__file__).parent.glob("_spare*.so"), None)
        if library is None:
            return {}
        return {
            "LD_PRELOAD": str(library),
            "LIFEBOAT_SPARE": str(self._may),
            "LIFEBOAT_SPARED": str(self._was),
        }

    def choose(self, pids: Sequence[int]) -> None:
        """Say what of the frozen processes may be passed over; before CRIU looks."""
        lines = [f"{pid} {start:x} {end:x}\n" for pid in pids for start, end in spareable(Path(f"/proc/{pid}"))]
        self._may.write_text("".join(lines))
        self._was.write_text("")

    def enter(self, images: Path, pids: Sequence[int]) -> None:
        """Enter into CRIU's images what was passed over; raises `ExecutionError` when that cannot be."""
        for pid in pids:
            if ranges := self._spared(pid):
                enter_lazy_ranges(images, pid_in_images(pid), ranges)
                size = sum(end - start for start, end in ranges)
                _log.info("CRIU was spared %d MiB of process %d", size >> 20, pid)

    def _spared(self, pid: int) -> list[Range]:
        lines = [line.split() for line in self._was.read_text().splitlines()]
        return joined((int(start, 16), int(end, 16)) for owner, start, end in lines if int(owner) == pid)


def spareable(process: Path) -> list[Range]:
    """Return the ranges of a frozen process, given its directory in /proc, that a dump may pass over.

    These are what CRIU can restore on demand (`vma_entry_can_be_lazy`, criu/include/vma.h) without the pages
    that stacks point into, which it never does (`is_stack`, criu/mem.c). Locked memory is not among them, and
    maps does not tell which that is: a process that has any is left to CRIU.
    """
    stacks = stack_pages(process)
    if stacks is None or locked(process):
        return []
    found = []
    for start, end in large_mappings(process):
        at = start
        for page in stacks:
            if at <= page < end:
                found.append((at, page))
                at = page + PAGE_BYTES
        found.append((at, end))
    return [(start, end) for start, end in found if start < end]


def large_mappings(process: Path) -> list[Range]:
    """Return the large private anonymous mappings of a process."""
    found = []
    for line in (process / "maps").read_text().splitlines():
        addresses, permissions, _, _, inode, *name = line.split(maxsplit=5)
        anonymous = (inode == "0" and (name[0] if name else "") in NAMES) or "[anon:" in line
        start, end = (int(address, 16) for address in addresses.split("-"))
        if anonymous and permissions.endswith("p") and end - start >= SMALLEST_BYTES:
            found.append((start, end))
    return found


def locked(process: Path) -> bool:
    """Say whether a process has locked any memory; proc_pid_status(5)."""
    status = (process / "status").read_text()
    amount = next(line for line in status.splitlines() if line.startswith("VmLck:"))
    return int(amount.split()[1]) > 0


def stack_pages(process: Path) -> list[int] | None:
    """Return the pages the threads' stack pointers point into, in order; None when the kernel does not tell.

    proc_pid_syscall(5): the last two numbers are the stack pointer and the program counter.
    """
    pages = set()
    for thread in os.listdir(process / "task"):
        words = (process / "task" / thread / "syscall").read_text().split()
        if len(words) < 3:
            return None  # "running"
        pages.add(int(words[-2], 16) & ~(PAGE_BYTES - 1))
    return sorted(pages)


def joined(ranges: Iterable[Range]) -> list[Range]:
    """Return ranges in order, those that overlap as one: CRIU may have looked twice."""
    found: list[Range] = []
    for start, end in sorted(ranges):
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found
