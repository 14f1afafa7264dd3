"""What CRIU's images say about a task's memory: which ranges are to come on demand.

Format (criu/image.c, images/pagemap.proto): two 32-bit magics, then records of a 32-bit length and a
protobuf message; in `pagemap-PID.img` first a head, then entries with `vaddr` (field 1), `nr_pages`
(field 2; 5 where it is 64 bit wide) and `flags` (field 4).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

PAGE_BYTES = 4096
PE_LAZY = 1 << 1  # criu/include/pagemap.h
HEADER_BYTES = 8


def lazy_ranges(images: Path, pid: int) -> list[tuple[int, int]]:
    """Return the ranges (start, end addresses) of a task that the images do not hold, in order."""
    data = (images / f"pagemap-{pid}.img").read_bytes()
    records = list(_records(data))[1:]  # the first is the head
    ranges = []
    for record in records:
        fields = dict(_fields(record))
        if fields.get(4, 0) & PE_LAZY:
            start = fields.get(1, 0)
            pages = fields.get(5) or fields.get(2, 0)
            ranges.append((start, start + pages * PAGE_BYTES))
    return ranges


def _records(data: bytes) -> Iterator[bytes]:
    offset = HEADER_BYTES
    while offset + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, offset)
        yield data[offset + 4 : offset + 4 + length]
        offset += 4 + length


def _fields(record: bytes) -> Iterator[tuple[int, int]]:
    """Return the varint fields of a protobuf message; the messages here have no others."""
    offset = 0
    while offset < len(record):
        key, offset = _varint(record, offset)
        value, offset = _varint(record, offset)
        yield key >> 3, value


def _varint(data: bytes, offset: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, offset
        shift += 7
