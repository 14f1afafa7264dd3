"""The least pleasant process that a container may hold: it does everything with its memory that a kernel allows.

Runs beside tree.py: a storm of changing mappings and forks, threads that look at memory of their own, memory
shared with a child, huge pages, five thousand small mappings, memory that is swapped out. Each client of TCP
port 7000 gets one line of JSON: what is wrong, and what was really had.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import socketserver
import threading
import time

from tree import BLOCK_BYTES, PAGE_BYTES, Contents, Region, Storm, check, libc  # type: ignore[import-not-found]

STORM, READERS, SWAPPED, HUGE = "600000000000:48", "610000000000:24", "620000000000:32", "630000000000:16"
SMALL_MAPPINGS = 5000
MAP_HUGETLB = 0x40000
MADV_DONTFORK, MADV_HUGEPAGE, MADV_PAGEOUT = 10, 14, 21
MIB = 1 << 20

contents = Contents()
state: dict[str, object] = {"wrong": 0, "rounds": 0}
wrong_in: dict[str, int] = {}


def note(part: str, wrong: int) -> None:
    """Count wrong pages."""
    wrong_in[part] = wrong_in.get(part, 0) + int(wrong)


def filled(word: str) -> Region:
    """Return a region with its pages written."""
    region = Region(word)
    contents.fill(region)
    return region


def wrong_pages(region: Region) -> int:
    """Return how many pages of a region are wrong."""
    mine = Contents()
    return sum(
        ctypes.string_at(address, PAGE_BYTES) != mine.of(address)
        for address in range(region.address, region.address + region.bytes, PAGE_BYTES)
    )


def look_for_ever(part: str, region: Region) -> None:
    """A thread that looks at memory nobody changes."""
    while True:
        note(part, wrong_pages(region))
        time.sleep(0.05)


def share() -> None:
    """Share memory with a child: each writes its own half of every page's first words, and reads the other's."""
    area = mmap.mmap(-1, 8 * MIB)
    pages = range(0, len(area), PAGE_BYTES)
    for page in pages:
        area[page : page + 16] = page.to_bytes(8, "little") + bytes(8)
    if os.fork() == 0:
        while True:
            for page in pages:
                if area[page : page + 8] != page.to_bytes(8, "little"):
                    area[page + 8 : page + 16] = b"\xff" * 8  # says that something is wrong
            time.sleep(0.05)
    threading.Thread(target=look_at_shared, args=(area,), daemon=True).start()


def look_at_shared(area: mmap.mmap) -> None:
    """Look for what the child complains of, and at our own half."""
    while True:
        bad = 0
        for page in range(0, len(area), PAGE_BYTES):
            bad += area[page : page + 16] != page.to_bytes(8, "little") + bytes(8)
        note("shared", bad)
        time.sleep(0.05)


def small_mappings() -> list[tuple[int, int]]:
    """Make mappings that the kernel cannot join: every second one is read-only."""
    found = []
    base = 0x640000000000
    for number in range(SMALL_MAPPINGS):
        address = base + number * 2 * PAGE_BYTES
        check(libc.mmap(address, 2 * PAGE_BYTES, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100000, -1, 0))
        ctypes.memmove(address, contents.of(address), PAGE_BYTES)
        if number % 2:
            check(libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(2 * PAGE_BYTES), 1))
        found.append((address, address + PAGE_BYTES))
    return found


def look_at_small(found: list[tuple[int, int]]) -> None:
    """Look at the written page and at the one that never was."""
    mine = Contents()
    while True:
        bad = 0
        for written, never in found:
            bad += ctypes.string_at(written, PAGE_BYTES) != mine.of(written)
            bad += ctypes.string_at(never, PAGE_BYTES) != bytes(PAGE_BYTES)
        note("small", bad)
        time.sleep(0.1)


def huge() -> bool:
    """Have huge pages by hugetlb where the host has reserved some, and transparent ones in any case."""
    transparent = filled(HUGE)
    advise(transparent, MADV_HUGEPAGE)
    threading.Thread(target=look_for_ever, args=("transparent", transparent), daemon=True).start()
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB | 0x100000
    address = 0x650000000000
    if libc.mmap(address, 4 * MIB, 3, flags, -1, 0) != address:
        return False
    for page in range(address, address + 4 * MIB, PAGE_BYTES):
        ctypes.memmove(page, contents.of(page), PAGE_BYTES)
    region = object.__new__(Region)
    region.address, region.bytes = address, 4 * MIB
    threading.Thread(target=look_for_ever, args=("hugetlb", region), daemon=True).start()
    return True


def advise(region: Region, advice: int) -> None:
    """madvise(2) on a whole region."""
    libc.madvise(ctypes.c_void_p(region.address), ctypes.c_size_t(region.bytes), advice)


def swapped(region: Region) -> int:
    """Ask the kernel to swap a region out; return how many KiB of this process it has swapped."""
    advise(region, MADV_PAGEOUT)
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmSwap"))


class Handler(socketserver.StreamRequestHandler):
    """Tells how it is."""

    def handle(self) -> None:
        """Answer with one line; `swap` swaps first, `check` looks at what was swapped."""
        request = self.rfile.readline().decode().strip()
        if request == "swap":
            state["swapped_kib"] = swapped(region_to_swap)
        elif request == "check":
            note("swapped", wrong_pages(region_to_swap))
        answer = {**state, "wrong": sum(wrong_in.values()), "wrong_in": wrong_in, "done": storm.done}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


class Server(socketserver.ThreadingTCPServer):
    """Serves while the storm rages."""

    allow_reuse_address = True
    daemon_threads = True


def main() -> None:
    """Rage until killed."""
    share()
    threading.Thread(target=look_at_small, args=(small_mappings(),), daemon=True).start()
    state["hugetlb"] = huge()
    reader = filled(READERS)
    for number in range(3):
        threading.Thread(target=look_for_ever, args=(f"reader{number}", reader), daemon=True).start()
    threading.Thread(target=Server(("0.0.0.0", 7000), Handler).serve_forever, daemon=True).start()
    state["ready"] = True
    while True:
        before = storm.wrong
        storm.rage(1.0)
        note("storm", storm.wrong - before)
        state["rounds"] = int(str(state["rounds"])) + 1


if __name__ == "__main__":
    region_to_swap = filled(SWAPPED)
    advise(region_to_swap, MADV_DONTFORK)  # the kernel pages nothing out that two processes share
    storm_region = filled(STORM)
    storm = Storm([storm_region], seed=1)
    assert BLOCK_BYTES % PAGE_BYTES == 0
    main()
