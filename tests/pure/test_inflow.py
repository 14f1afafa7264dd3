"""What brings pages in: the C part and the Python part do the same, and each does it to real memory."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrator.errors import ExecutionError
from migrator.pager import native
from migrator.pager.greeting import HELD, PAGES, PAIR, REQUEST
from migrator.pager.inflow import Inflow
from migrator.pager.links import SocketLink
from migrator.pager.native_inflow import NativeInflow
from migrator.pager.packing import ANSWER, COMPRESSED, PAGE_BYTES, PLAIN, compressor, pack
from migrator.pager.pending import Pending, Range
from migrator.pager.python_inflow import PythonInflow
from tests.pure.test_guard import MODE_MISSING, NEW_DESCRIPTOR, UFFD_API, UFFDIO_API, UFFDIO_REGISTER

PID = 7
ADDRESSES = 64


class CRange(ctypes.Structure):
    """struct range."""

    _fields_ = (("start", ctypes.c_uint64), ("end", ctypes.c_uint64), ("origin", ctypes.c_uint64))


class CPending(ctypes.Structure):
    """struct pending."""

    _fields_ = (
        ("at", ctypes.POINTER(CRange)),
        ("count", ctypes.c_size_t),
        ("room", ctypes.c_size_t),
        ("bytes", ctypes.c_uint64),
    )

    @property
    def ranges(self) -> list[Range]:
        """Return all of it."""
        return [Range(item.start, item.end, item.origin) for item in self.at[: self.count]]


def number(most: int = ADDRESSES) -> st.SearchStrategy[int]:
    return st.integers(0, most)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), number(), number(12), number(400)),
        st.tuples(st.just("drop"), number(), number(20)),
        st.tuples(st.just("move"), number(), number(), number(20)),
        st.tuples(st.just("narrow"), number(), number(40), st.lists(number(8), max_size=6)),
    ),
    max_size=30,
)


def held_parts(start: int, end: int, gaps: list[int], unit: int) -> list[tuple[int, int]]:
    """Return parts of a range, with gaps and lengths in turn."""
    found, at = [], start
    for gap in gaps:
        first = min(end, at + gap)
        at = min(end, first + gap + 1)
        if first < at:
            found.append((first * unit, at * unit))
    return found


@given(STEPS, number(), number(30))
def test_c_knows_the_same_to_be_missing_as_python(steps: list[tuple[Any, ...]], after: int, limit: int) -> None:
    c, unit = native.library(), 16 << 10  # so that some holes are small
    ours, theirs = Pending(), CPending()
    u64 = ctypes.c_uint64
    for step in steps:
        match step:
            case ("add", start, length, origin):
                part = Range(start * unit, (start + length + 1) * unit, origin * unit)
                ours.add([part])
                assert c.pending_add(ctypes.byref(theirs), CRange(*part)) == 0
            case ("drop", start, length):
                ours.drop(start * unit, (start + length) * unit)
                assert c.pending_drop(ctypes.byref(theirs), u64(start * unit), u64((start + length) * unit)) == 0
            case ("move", source, target, length):
                numbers = (source * unit, target * unit, length * unit)
                ours.move(*numbers)
                assert c.pending_move(ctypes.byref(theirs), *map(u64, numbers)) == 0
            case ("narrow", start, length, gaps):
                held = held_parts(start, start + length, gaps, unit)
                ours.narrow(start * unit, (start + length) * unit, held)
                flat = (u64 * (2 * len(held)))(*(value for pair in held for value in pair))
                end = u64((start + length) * unit)
                assert c.pending_narrow(ctypes.byref(theirs), u64(start * unit), end, flat, len(held)) == 0
        assert theirs.ranges == ours.find(0, 1 << 60)
        assert theirs.bytes == ours.bytes
    found = (u64 * 3)()
    if c.pending_next(ctypes.byref(theirs), u64(after * unit), u64((limit + 1) * unit), found):
        assert ours.next(after * unit, (limit + 1) * unit) == Range(*found)
    else:
        assert ours.empty
    if c.pending_find(ctypes.byref(theirs), u64(after * unit), u64((after + limit) * unit), found):
        assert ours.find(after * unit, (after + limit) * unit)[0] == Range(*found)
    else:
        assert not ours.find(after * unit, (after + limit) * unit)
    c.pending_free(ctypes.byref(theirs))


@dataclass
class Source:
    """Answers on the other ends of links: each page is full of its own number."""

    held: list[tuple[int, int]] = field(default_factory=list)
    form: int = PLAIN
    bad: frozenset[int] = frozenset()  # addresses that cannot be read
    stopped_after: int = 1 << 60  # requests, on each link
    asked: list[tuple[int, int, int]] = field(default_factory=list)  # kind, address, length
    links: list[SocketLink] = field(default_factory=list)

    def link(self) -> SocketLink:
        """Return a link to us."""
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._serve, args=(ours,), daemon=True).start()
        self.links.append(SocketLink(theirs))
        return self.links[-1]

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            for _ in range(self.stopped_after):
                request = connection.recv(REQUEST.size, socket.MSG_WAITALL)
                if len(request) < REQUEST.size:
                    return
                kind, pid, address, length = REQUEST.unpack(request)
                assert pid == PID
                self.asked.append((kind, address, length))
                connection.sendall(self._held() if kind == HELD else self._pages(address, length))

    def _held(self) -> bytes:
        body = b"".join(PAIR.pack(*pair) for pair in self.held)
        return ANSWER.pack(len(body), PLAIN, 0) + body

    def _pages(self, address: int, length: int) -> bytes:
        data = memoryview(bytearray(b"".join(map(page_of, range(address, address + length, PAGE_BYTES)))))
        kinds = memoryview(bytearray(2 * length // PAGE_BYTES))
        bad = frozenset((at - address) // PAGE_BYTES for at in self.bad if address <= at < address + length)
        body = bytes(data[: pack(data, kinds, bad) * PAGE_BYTES])
        if self.form == COMPRESSED:
            body = compressor(True).compress(body)
        return ANSWER.pack(len(kinds) + len(body), self.form, 0) + bytes(kinds) + body


def page_of(address: int) -> bytes:
    """Return what the source has at an address; every fourth page is zeros, every eighth the same."""
    index = address // PAGE_BYTES
    if index % 4 == 0:
        return bytes(PAGE_BYTES)
    return struct.pack("<Q", 1 if index % 8 == 1 else index) * (PAGE_BYTES // 8)


class Nobody:
    """Guards nothing."""

    descriptor = -1

    def hold(self, descriptor: int) -> None:
        """Forget it."""


class Area:
    """Memory of ours that is missing until an inflow brings it."""

    def __init__(self, pages: int) -> None:
        device = os.open("/dev/userfaultfd", os.O_RDWR)
        self.userfault = fcntl.ioctl(device, NEW_DESCRIPTOR, os.O_CLOEXEC | os.O_NONBLOCK)
        os.close(device)
        fcntl.ioctl(self.userfault, UFFDIO_API, struct.pack("<QQQ", UFFD_API, 0, 0))
        self.length = pages * PAGE_BYTES
        self.memory = mmap.mmap(-1, self.length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        what = struct.pack("<QQQQ", self.start, self.length, MODE_MISSING, 0)
        fcntl.ioctl(self.userfault, UFFDIO_REGISTER, what)

    @property
    def expected(self) -> bytes:
        """Return what is to be there in the end."""
        return b"".join(map(page_of, range(self.start, self.start + self.length, PAGE_BYTES)))

    def touch(self, page: int) -> bytes:
        """Read a page as a process would, with Python's lock let go; raises `OSError` when it is poisoned."""
        reader, writer = os.pipe()
        try:
            os.write(writer, memoryview(self.memory)[page * PAGE_BYTES : (page + 1) * PAGE_BYTES])
            return os.read(reader, PAGE_BYTES)
        finally:
            os.close(reader)
            os.close(writer)


@pytest.fixture
def make_source() -> Iterator[Callable[..., Source]]:
    """Return what makes sources; their links end with the test."""
    made: list[Source] = []

    def make(**settings: Any) -> Source:
        made.append(Source(**settings))
        return made[-1]

    yield make
    for source in made:
        for link in source.links:
            link.close()


@pytest.fixture(params=[NativeInflow, PythonInflow])
def inflow(request: pytest.FixtureRequest) -> Inflow:
    """Both of them; skipped where this kernel, or this user, has no userfaultfd."""
    try:
        os.close(os.open("/dev/userfaultfd", os.O_RDWR))
    except OSError as error:
        pytest.skip(f"userfaultfd cannot be used here: {error}")
    found: Inflow = request.param(Nobody())
    return found


@pytest.fixture
def answering(inflow: Inflow) -> Iterator[Callable[[SocketLink], None]]:
    """Answer faults in a thread, until the test ends."""
    ended, threads = threading.Event(), []

    def work(link: SocketLink) -> None:
        with suppress(OSError):
            while not ended.is_set():
                inflow.answer(link)

    def start(link: SocketLink) -> None:
        threads.append(threading.Thread(target=work, args=(link,)))
        threads[-1].start()

    yield start
    ended.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("form", [PLAIN, COMPRESSED])
def test_the_bulk_brings_all_there_is(inflow: Inflow, form: int, make_source: Callable[..., Source]) -> None:
    area = Area(700)
    source = make_source(form=form)
    inflow.add(
        PID,
        area.userfault,
        [(area.start, area.start + (1 << 20)), (area.start + (1 << 20), area.start + area.length)],
    )
    source.held = [(area.start + (1 << 20), area.start + area.length)]
    assert inflow.rest()
    inflow.fetcher().fetch(source.link())
    assert not inflow.rest()
    assert bytes(area.memory) == area.expected
    told = inflow.tell()
    assert inflow.received_bytes == area.length
    assert (told["missing_bytes"], told["zero_bytes"]) == (0, 175 * PAGE_BYTES)
    assert 0 < int(str(told["wire_bytes"])) < area.length
    assert inflow.surrender() == [area.userfault]
    assert inflow.surrender() == []
    os.close(area.userfault)


def test_of_large_memory_only_what_is_held_is_fetched(inflow: Inflow, make_source: Callable[..., Source]) -> None:
    area = Area(1024)
    inflow.add(PID, area.userfault, [(area.start, area.start + area.length)])
    source = make_source(held=[(area.start + 100 * PAGE_BYTES, area.start + 150 * PAGE_BYTES)])
    inflow.fetcher().fetch(source.link())
    assert not inflow.rest()
    assert [kind for kind, _, _ in source.asked] == [HELD, PAGES]
    assert inflow.received_bytes == 50 * PAGE_BYTES


def test_what_is_mapped_nowhere_is_not_waited_for(inflow: Inflow, make_source: Callable[..., Source]) -> None:
    """A child inherits as missing what it does not have (MADV_DONTFORK), and no event ever tells."""
    area = Area(64)
    beyond = mmap.mmap(-1, 64 * PAGE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    nowhere = ctypes.addressof(ctypes.c_char.from_buffer(beyond))
    inflow.add(PID, area.userfault, [(area.start, area.start + area.length)])
    inflow.add(PID, os.dup(area.userfault), [(nowhere, nowhere + len(beyond))])
    fetch = threading.Thread(target=inflow.fetcher().fetch, args=(make_source().link(),), daemon=True)
    fetch.start()
    fetch.join(10)
    assert not fetch.is_alive()
    assert not inflow.rest()
    assert bytes(area.memory) == area.expected
    assert not any(bytes(beyond))


def test_faults_are_answered_and_nobody_reads_anything_else(
    inflow: Inflow, answering: Callable[[SocketLink], None], make_source: Callable[..., Source]
) -> None:
    area = Area(512)
    source = make_source()
    inflow.add(PID, area.userfault, [(area.start, area.start + area.length - 8 * PAGE_BYTES)])
    answering(source.link())
    order = list(range(512))
    random.Random(3).shuffle(order)  # noqa: S311
    for page in order:
        expected = area.expected[page * PAGE_BYTES :][:PAGE_BYTES] if page < 504 else bytes(PAGE_BYTES)
        assert area.touch(page) == expected, page
    told = inflow.tell()
    assert 504 // 2 <= int(str(told["faults"])) <= 512
    assert told["missing_bytes"] == 0


def test_nothing_is_given_while_it_is_held(
    inflow: Inflow, answering: Callable[[SocketLink], None], make_source: Callable[..., Source]
) -> None:
    area, found = Area(64), threading.Event()
    inflow.add(PID, area.userfault, [(area.start, area.start + area.length)])
    inflow.hold()
    answering(make_source().link())

    def read() -> None:
        area.touch(5)
        found.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert not found.wait(0.3)
    inflow.release()
    assert found.wait(10)
    reader.join()


def test_a_broken_link_forgets_nothing(
    inflow: Inflow, answering: Callable[[SocketLink], None], make_source: Callable[..., Source]
) -> None:
    area = Area(2048)
    inflow.add(
        PID,
        area.userfault,
        [(area.start, area.start + (1 << 20))]
        + [(area.start + (n << 20), area.start + (n + 1 << 20)) for n in range(1, 8)],
    )
    fetcher, source = inflow.fetcher(), make_source(stopped_after=3)
    breaks = 0
    while inflow.rest():
        try:
            fetcher.fetch(source.link())
        except OSError:
            breaks += 1
    assert breaks
    assert bytes(area.memory) == area.expected


def test_what_cannot_be_read_at_the_source_is_poisoned_here(
    inflow: Inflow, answering: Callable[[SocketLink], None], make_source: Callable[..., Source]
) -> None:
    area = Area(64)
    source = make_source(bad=frozenset({area.start + 9 * PAGE_BYTES}))
    inflow.add(PID, area.userfault, [(area.start, area.start + area.length)])
    inflow.fetcher().fetch(source.link())
    assert area.touch(10) == area.expected[10 * PAGE_BYTES :][:PAGE_BYTES]
    with pytest.raises(OSError, match="Bad address"):
        area.touch(9)
    assert inflow.tell()["poisoned_bytes"] == PAGE_BYTES


def test_all_that_is_missing_is_poisoned(inflow: Inflow) -> None:
    area = Area(64)
    inflow.add(PID, area.userfault, [(area.start, area.start + 32 * PAGE_BYTES)])
    assert inflow.poison() == (32 * PAGE_BYTES, True)
    assert inflow.poison() == (0, True)
    with pytest.raises(OSError, match="Bad address"):
        area.touch(31)


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER.pack(2 + 10, PLAIN, 0) + b"\xff\xff" + bytes(10),
        ANSWER.pack(2 + PAGE_BYTES, PLAIN, 0) + b"\x00\x00" + bytes(PAGE_BYTES),
        ANSWER.pack(2 + 4, COMPRESSED, 0) + b"\xff\xffjunk",
        ANSWER.pack(2 + 4, 9, 0) + b"\xff\xffjunk",
        ANSWER.pack(0xFFFFFFFF, PLAIN, 0) + b"\xff\xff",
        ANSWER.pack(1, PLAIN, 0) + b"\xff\xff",
    ],
)
def test_nonsense_is_refused(inflow: Inflow, answer: bytes) -> None:
    area = Area(1)
    inflow.add(PID, area.userfault, [(area.start, area.start + PAGE_BYTES)])
    ours, theirs = socket.socketpair()
    ours.sendall(answer)
    with pytest.raises(ExecutionError):
        inflow.fetcher().fetch(SocketLink(theirs))
    assert inflow.received_bytes == 0
    ours.close()
    theirs.close()


@pytest.mark.parametrize("held", [[(9, 3)], [(1, 5), (2, 6)], [(0, 2000)], [(0.5, 2)]])
def test_parts_that_are_none_are_refused(
    inflow: Inflow, held: list[tuple[float, float]], make_source: Callable[..., Source]
) -> None:
    area = Area(1024)
    inflow.add(PID, area.userfault, [(area.start, area.start + area.length)])
    parts = [tuple(area.start + int(number * PAGE_BYTES) for number in pair) for pair in held]
    with pytest.raises(ExecutionError):
        inflow.fetcher().fetch(make_source(held=parts).link())
