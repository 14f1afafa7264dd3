"""Memory that CRIU is spared: what may be chosen, the library itself, and what the images say afterwards."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from migrator.errors import ExecutionError
from migrator.pager.images import enter_lazy_ranges, lazy_ranges
from migrator.pager.pending import Pending
from migrator.pager.scan import held_ranges
from migrator.pager.spare import Spare, joined, spareable

MIB = 1 << 20
GIB = 1 << 30
BASE = 0x7F0000000000

SCANNING = """
import ctypes, json, mmap, os, sys
from pathlib import Path
from migrator.pager.scan import held_ranges
memory = mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
end = start + len(memory)
for page in (0, 1, 300, 2047):
    memory[page << 12] = 1
MADV_GUARD_INSTALL = 102  # Linux 6.13; on older kernels this page is only untouched, and not held either
ctypes.CDLL(None).madvise(ctypes.c_void_p(start + (1000 << 12)), ctypes.c_size_t(1 << 12), MADV_GUARD_INSTALL)
hidden = [start + (first << 12) for first in (1, 400)]
Path(sys.argv[1]).write_text(f"{os.getpid()} {hidden[0]:x} {hidden[1]:x}\\n1 0 {end:x}\\n")
Path(sys.argv[2]).touch()
found = held_ranges(os.open("/proc/self/pagemap", os.O_RDONLY), start, end)
print(json.dumps([[(first - start) >> 12, (last - start) >> 12] for first, last in found]))
print(json.dumps([os.getpid(), *hidden]))
"""


def scan_in_child(directory: Path, environment: dict[str, str]) -> tuple[list[list[int]], list[int]]:
    """Return the pages a child finds that hold something, and (pid, start, end) of what it hid."""
    argv = [sys.executable, "-c", SCANNING, str(directory / "spare"), str(directory / "spared")]
    output = subprocess.check_output(argv, env={**os.environ, **environment}, text=True).splitlines()
    return json.loads(output[0]), json.loads(output[1])


def test_the_library_hides_what_it_is_told_to_and_writes_it_down(tmp_path: Path) -> None:
    environment = Spare(tmp_path).environment()
    assert environment, "the library was not built: pip install --editable . with a C compiler"
    found, (pid, start, end) = scan_in_child(tmp_path, environment)
    assert found == [[0, 1], [2047, 2048]]
    assert (tmp_path / "spared").read_text() == f"{pid} {start:x} {end:x}\n"


def test_without_the_library_nothing_is_hidden(tmp_path: Path) -> None:
    found, _ = scan_in_child(tmp_path, {})
    assert found == [[0, 2], [300, 301], [2047, 2048]]
    assert (tmp_path / "spared").read_text() == ""


def test_a_library_that_cannot_write_down_hides_nothing(tmp_path: Path) -> None:
    environment = {**Spare(tmp_path).environment(), "LIFEBOAT_SPARED": str(tmp_path / "is/not/there")}
    found, _ = scan_in_child(tmp_path, environment)
    assert found == [[0, 2], [300, 301], [2047, 2048]]


def test_held_ranges_of_an_address_space_that_is_not_mapped() -> None:
    with open("/proc/self/pagemap", "rb") as pagemap:
        assert held_ranges(pagemap.fileno(), 0x1000, 0x3000) == []


def process(directory: Path, maps: str, *, locked: int = 0, stacks: tuple[str, ...] = ()) -> Path:
    """Return a made-up directory in /proc."""
    (directory / "maps").write_text(maps)
    (directory / "status").write_text(f"Name:\tx\nVmLck:\t{locked:8} kB\n")
    for number, line in enumerate(stacks):
        thread = directory / "task" / str(number)
        thread.mkdir(parents=True)
        (thread / "syscall").write_text(line)
    return directory


MAPS = f"""\
00400000-00900000 r-xp 00000000 08:01 77                                 /usr/bin/large
10000000-10800000 rw-p 00000000 00:00 0                                  [heap]
{BASE:x}-{BASE + GIB:x} rw-p 00000000 00:00 0
{BASE + GIB:x}-{BASE + GIB + MIB:x} rw-p 00000000 00:00 0
{BASE + 2 * GIB:x}-{BASE + 3 * GIB:x} rw-s 00000000 00:01 12             /dev/zero (deleted)
{BASE + 4 * GIB:x}-{BASE + 5 * GIB:x} ---p 00000000 00:00 0              [anon:dalvik main space]
{BASE + 6 * GIB:x}-{BASE + 7 * GIB:x} rw-p 00000000 00:0f 99             /anon_hugepage (deleted)
7ffd00000000-7ffd01000000 rw-p 00000000 00:00 0                          [stack]
"""


def test_large_anonymous_mappings_are_spareable_but_for_the_stacks_in_them(tmp_path: Path) -> None:
    inside = BASE + 5 * MIB
    running = process(tmp_path, MAPS, stacks=(f"-1 {inside + 8:#x} 0x400000\n", "202 0x1 0x2 0x7ffd00000010 0x4\n"))
    assert spareable(running) == [
        (0x10000000, 0x10800000),
        (BASE, inside),
        (inside + 4096, BASE + GIB),
        (BASE + 4 * GIB, BASE + 5 * GIB),
    ]


@pytest.mark.parametrize(("locked", "stack"), [(4, "-1 0x10 0x20\n"), (0, "running\n")])
def test_a_process_that_locks_memory_or_runs_is_left_to_criu(tmp_path: Path, locked: int, stack: str) -> None:
    assert spareable(process(tmp_path, MAPS, locked=locked, stacks=(stack,))) == []


def test_what_was_looked_at_twice_counts_once() -> None:
    assert joined([(8, 10), (0, 4), (2, 6), (6, 8), (0, 4)]) == [(0, 6), (6, 8), (8, 10)]


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """Encode a protobuf message, independently of the code under test."""

    def varint(value: int) -> bytes:
        return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + varint(value >> 7)

    encoded = b""
    for number, value in fields:
        if isinstance(value, bytes):
            encoded += varint(number << 3 | 2) + varint(len(value)) + value
        else:
            encoded += varint(number << 3) + varint(value)
    return encoded


def image(path: Path, *records: bytes) -> None:
    """Write a CRIU image."""
    path.write_bytes(b"MAGICTOO" + b"".join(struct.pack("<I", len(record)) + record for record in records))


def mapping(start: int, end: int, flags: int, status: int = 0x201) -> tuple[int, bytes]:
    """Return a mapping as a field of mm.img."""
    return 14, message((1, start), (2, end), (3, 0), (4, 0), (5, 3), (6, flags), (7, status), (8, 1))


def images(directory: Path) -> Path:
    """Write the images of a task with one large mapping, one locked, and two entries of small ones."""
    mappings = [
        mapping(0x1000, 0x5000, 0x22),
        mapping(BASE, BASE + 3 * GIB, 0x22),
        mapping(BASE + 4 * GIB, BASE + 5 * GIB, 0x2022),
    ]
    image(directory / "mm-7.img", message((1, 1 << 60), (2, 5), *mappings, (13, 33)))
    stack = message((1, BASE + 2 * GIB), (2, 1), (4, 4))
    image(directory / "pagemap-7.img", message((1, 1)), message((1, 0x1000), (2, 4), (4, 2)), stack)
    return directory


def test_spared_ranges_are_entered_in_order(tmp_path: Path) -> None:
    behind = BASE + 2 * GIB + 4096
    enter_lazy_ranges(images(tmp_path), 7, [(BASE, BASE + 2 * GIB), (behind, BASE + 3 * GIB)])
    assert lazy_ranges(tmp_path, 7) == [
        (0x1000, 0x5000),
        (BASE, BASE + GIB),
        (BASE + GIB, BASE + 2 * GIB),
        (behind, BASE + 3 * GIB),
    ]
    assert (tmp_path / "pagemap-7.img").read_bytes().startswith(b"MAGICTOO")


@pytest.mark.parametrize(
    ("start", "end", "why"),
    [
        (BASE + GIB, BASE + 3 * GIB, "was dumped"),
        (BASE + 4 * GIB, BASE + 5 * GIB, "not memory that CRIU restores on demand"),
        (BASE + 3 * GIB, BASE + 4 * GIB, "not memory that CRIU restores on demand"),
    ],
)
def test_ranges_that_criu_cannot_restore_so_are_refused(tmp_path: Path, start: int, end: int, why: str) -> None:
    before = (images(tmp_path) / "pagemap-7.img").read_bytes()
    with pytest.raises(ExecutionError, match=why):
        enter_lazy_ranges(tmp_path, 7, [(start, end)])
    assert (tmp_path / "pagemap-7.img").read_bytes() == before


def test_pending_pages_that_the_source_does_not_hold_are_not_missing() -> None:
    pending = Pending.of([(0, 100), (200, 300)])
    pending.move(200, 1000, 100)
    pending.narrow(50, 250, [(60, 70), (90, 100), (200, 220)])
    assert [(r.start, r.end, r.origin) for r in pending.find(0, 2000)] == [
        (0, 50, 0),
        (60, 70, 60),
        (90, 100, 90),
        (1000, 1020, 200),
        (1050, 1100, 250),
    ]
