"""What of an answer's pages is worth sending: no zeros, nothing twice, and compressed where the link is slow.

An answer is a head (`ANSWER`: bytes that follow, form), one 16-bit kind for each page, and the pages that are
new, together, compressed as a whole if the form says so. A kind is WHOLE (the next of those pages), ZERO, BAD
(the source's memory has failed there: whoever reads that page gets SIGBUS, as at home), or the number of an
earlier page of the same answer that holds the same.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from migrator.errors import ExecutionError
from migrator.pager import native

try:
    import zstandard
except ImportError:  # optional: without it nothing is compressed
    zstandard = None  # type: ignore[assignment]

PAGE_BYTES = 4096
MOST_PAGES = 1024
WHOLE, ZERO, BAD = 0xFFFF, 0xFFFE, 0xFFFD
ANSWER = struct.Struct("<IHH")  # bytes that follow, form, 0
PLAIN, COMPRESSED = 0, 1  # forms
LEVEL = 1  # of zstd: the fastest that finds repetitions (zstd manual)

_ZEROS = bytes(PAGE_BYTES)
_ALL_WHOLE = b"\xff\xff" * MOST_PAGES

Place = int | None  # where a page is among those that were sent; None for zeros, NOWHERE for a bad page
NOWHERE = -1


@dataclass(frozen=True)
class Piece:
    """A run of an answer's pages, from `first` to before `last`: contents, or None for zeros or bad pages."""

    first: int
    last: int
    data: memoryview | None
    bad: bool = False


@dataclass(frozen=True)
class Pages:
    """The pages of an answer as they came."""

    count: int
    data: memoryview
    kinds: array[int] | None  # None: all are whole

    def pieces(self, first: int, last: int) -> Iterator[Piece]:
        """Return what to do for the pages from `first` to before `last`."""
        if self.kinds is None:
            yield Piece(first, last, self.data[first * PAGE_BYTES : last * PAGE_BYTES])
            return
        places = _places(self.kinds)
        start = first
        for page in range(first + 1, last + 1):
            if page == last or not _goes_on(places[page - 1], places[page]):
                yield self._piece(start, page, places[start])
                start = page

    def _piece(self, first: int, last: int, place: Place) -> Piece:
        if place is None or place == NOWHERE:
            return Piece(first, last, None, bad=place is not None)
        return Piece(first, last, self.data[place * PAGE_BYTES : (place + last - first) * PAGE_BYTES])


def kinds_of(words: bytes | bytearray | memoryview) -> array[int] | None:
    """Read kinds; None when all pages are whole."""
    if words == _ALL_WHOLE[: len(words)]:
        return None
    kinds = array("H", bytes(words))
    if sys.byteorder == "big":
        kinds.byteswap()
    if any(kind < BAD and (kind >= page or kinds[kind] != WHOLE) for page, kind in enumerate(kinds)):
        raise ExecutionError("the source names a page that is not there", code="pager-protocol")
    return kinds


def pack(data: memoryview, kinds: memoryview, bad: frozenset[int] = frozenset()) -> int:
    """Write each page's kind to `kinds` and move the new pages of `data` together; return how many those are.

    `bad` are the numbers of pages that could not be read.
    """
    done = None if bad else native.pack(data, kinds)
    return done if done is not None else _pack(data, kinds, bad)


def compressor(wanted: bool) -> Any:
    """Return what compresses, None where it is not wanted or not installed."""
    return zstandard.ZstdCompressor(level=LEVEL) if wanted and zstandard is not None else None


def decompress(data: memoryview, into: memoryview) -> None:
    """Fill a buffer; raises `ExecutionError` when it does not fit, or this host cannot do it."""
    if zstandard is None:
        raise ExecutionError("the source compresses, and zstandard is not installed here", code="pager-protocol")
    try:
        found = zstandard.ZstdDecompressor().decompress(data, max_output_size=len(into))
    except zstandard.ZstdError as error:
        raise ExecutionError(
            f"the source sent pages that cannot be read: {error}", code="pager-protocol"
        ) from error
    if len(found) != len(into):
        raise ExecutionError("the source sent less than it said", code="pager-protocol")
    into[:] = found


def can_compress() -> bool:
    """Say whether zstandard is installed."""
    return zstandard is not None


def _pack(data: memoryview, kinds: memoryview, bad: frozenset[int]) -> int:
    seen: dict[bytes, int] = {}
    kept = 0
    for page in range(len(kinds) // 2):
        content = bytes(data[page * PAGE_BYTES : (page + 1) * PAGE_BYTES])
        if page in bad:
            kind = BAD
        elif content == _ZEROS:
            kind = ZERO
        elif (kind := seen.setdefault(content, page)) == page:
            kind = WHOLE
            data[kept * PAGE_BYTES : (kept + 1) * PAGE_BYTES] = content
            kept += 1
        struct.pack_into("<H", kinds, 2 * page, kind)
    return kept


def _places(kinds: array[int]) -> list[Place]:
    """Return where each page is."""
    places: list[Place] = []
    sent = 0
    for kind in kinds:
        if kind == WHOLE:
            places.append(sent)
            sent += 1
        else:
            places.append(None if kind == ZERO else NOWHERE if kind == BAD else places[kind])
    return places


def _goes_on(before: Place, here: Place) -> bool:
    """Say whether a page belongs to the run of the one before it."""
    if before is None or here is None:
        return before is here
    return here == (NOWHERE if before == NOWHERE else before + 1)
