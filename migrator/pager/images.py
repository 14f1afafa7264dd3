"""What CRIU's images say about a task's memory: which ranges are to come on demand.

Format (criu/image.c): two 32-bit magics, then records of a 32-bit length and a protobuf message. In
`pagemap-PID.img` (images/pagemap.proto) first a head, then entries with `vaddr` (field 1), `nr_pages`
(field 2; 5 where it is 64 bit wide) and `flags` (field 4). In `mm-PID.img` (images/mm.proto, vma.proto) one
message with the mappings (field 14): start (1), end (2), `flags` (6) as of mmap(2), `status` (7).
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from migrator.errors import ExecutionError

PAGE_BYTES = 4096
PE_LAZY = 1 << 1  # criu/include/pagemap.h
HEADER_BYTES = 8
ENTRY_BYTES = 1 << 30
"""Larger ranges become several entries: CRIU counts an entry's pages in a C int in places."""

MAP_PRIVATE, MAP_ANONYMOUS, MAP_LOCKED, MAP_HUGETLB = 0x02, 0x20, 0x2000, 0x40000  # asm-generic/mman.h
VMA_AREA_VSYSCALL, VMA_AREA_VDSO, VMA_AREA_VVAR = 1 << 2, 1 << 3, 1 << 12  # criu/include/image.h

Range = tuple[int, int]


def pid_in_images(pid: int) -> int:
    """Return the pid by which CRIU's images know a process: the one in its innermost namespace."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    raise ExecutionError(f"process {pid} has no NSpid", code="no-nspid")


def lazy_ranges(images: Path, pid: int) -> list[Range]:
    """Return the ranges (start, end addresses) of a task that the images do not hold, in order."""
    _, entries = _pagemap(images, pid)
    return [(start, end) for start, end, record in entries if _numbers(record).get(4, 0) & PE_LAZY]


def enter_lazy_ranges(images: Path, pid: int, ranges: Sequence[Range]) -> None:
    """Add ranges, disjoint and in order, that a task of a dump shall get on demand.

    Each lies within one mapping. Raises `ExecutionError` when CRIU could not restore it so, or has dumped a
    part of it.
    """
    mappings = lazy_mappings(images, pid, min(end - start for start, end in ranges))
    starts = [start for start, _ in mappings]
    head, entries = _pagemap(images, pid)
    for start, end in ranges:
        behind = bisect.bisect_right(starts, start)
        if not behind or mappings[behind - 1][1] < end:
            raise _refused(pid, start, end, "is not memory that CRIU restores on demand")
    for start, end, _ in entries:
        if any(start < last and first < end for first, last in ranges):
            raise _refused(pid, start, end, "was dumped although it was to be passed over")
    records = [(start, record) for start, _, record in entries]
    records += [(start, _lazy_entry(start, end)) for whole in ranges for start, end in _pieces(*whole)]
    path = images / f"pagemap-{pid}.img"
    magic = path.read_bytes()[:HEADER_BYTES]
    path.write_bytes(
        magic + b"".join(_framed(record) for record in (head, *(entry for _, entry in sorted(records))))
    )


def lazy_mappings(images: Path, pid: int, smallest: int) -> list[Range]:
    """Return the mappings, of `smallest` bytes at least, that CRIU can restore on demand, in order.

    The condition is that of `vma_entry_can_be_lazy`, criu/include/vma.h.
    """
    (record,) = _records((images / f"mm-{pid}.img").read_bytes())
    found: list[Range] = []
    for number, mapping in _fields(record):
        if number != 14 or not isinstance(mapping, bytes):
            continue
        (_, start), (_, end) = islice(_fields(mapping), 2)  # thousands may have to be looked at in the freeze
        if int(end) - int(start) < smallest:
            continue
        fields = _numbers(mapping)
        anonymous = fields[6] & (MAP_PRIVATE | MAP_ANONYMOUS) == MAP_PRIVATE | MAP_ANONYMOUS
        excepted = fields[6] & (MAP_LOCKED | MAP_HUGETLB)
        special = fields[7] & (VMA_AREA_VSYSCALL | VMA_AREA_VDSO | VMA_AREA_VVAR)
        if anonymous and not excepted and not special:
            found.append((fields[1], fields[2]))
    return found


def _pagemap(images: Path, pid: int) -> tuple[bytes, list[tuple[int, int, bytes]]]:
    """Return the head and the entries (start, end, record) of a task's pagemap."""
    head, *records = _records((images / f"pagemap-{pid}.img").read_bytes())
    entries = []
    for record in records:
        fields = _numbers(record)
        start = fields.get(1, 0)
        entries.append((start, start + (fields.get(5) or fields.get(2, 0)) * PAGE_BYTES, record))
    return head, entries


def _refused(pid: int, start: int, end: int, why: str) -> ExecutionError:
    return ExecutionError(f"memory {start:x}-{end:x} of process {pid} {why}", code="spared-wrongly")


def _pieces(start: int, end: int) -> Iterator[Range]:
    for piece in range(start, end, ENTRY_BYTES):
        yield piece, min(piece + ENTRY_BYTES, end)


def lazy_record(start: int, end: int) -> bytes:
    """Return a record of a pagemap: pages to come on demand."""
    return _framed(_lazy_entry(start, end))


def _lazy_entry(start: int, end: int) -> bytes:
    pages = (end - start) // PAGE_BYTES
    return b"".join(_number(field, value) for field, value in ((1, start), (2, pages), (4, PE_LAZY)))


def _framed(record: bytes) -> bytes:
    return struct.pack("<I", len(record)) + record


def _records(data: bytes) -> Iterator[bytes]:
    offset = HEADER_BYTES
    while offset + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, offset)
        yield data[offset + 4 : offset + 4 + length]
        offset += 4 + length


def _numbers(record: bytes) -> dict[int, int]:
    """Return the numbers among the fields of a protobuf message."""
    return {number: value for number, value in _fields(record) if isinstance(value, int)}


def _fields(record: bytes) -> Iterable[tuple[int, int | bytes]]:
    """Return the fields of a protobuf message: numbers, and messages as bytes; there are no others here."""
    offset = 0
    while offset < len(record):
        key, offset = _varint(record, offset)
        value, offset = _varint(record, offset)
        if key & 7 == 2:
            yield key >> 3, record[offset : offset + value]
            offset += value
        else:
            yield key >> 3, value


def _number(field: int, value: int) -> bytes:
    """Return a field of a protobuf message that holds a number."""
    encoded = bytearray([field << 3])
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, offset
        shift += 7
