"""An inflow in C (inflow.c): no thread of it ever waits for Python's lock while a page fault waits for it."""

from __future__ import annotations

import mmap
import time
from array import array
from ctypes import byref, c_int, c_uint32, c_uint64, c_void_p
from typing import Any

from migrator.errors import ExecutionError
from migrator.pager.guard import Holder
from migrator.pager.links import Link
from migrator.pager.native import address_of, library, reason
from migrator.pager.packing import decompress
from migrator.pager.statistics import LIMITS_US, Latencies, Statistics

FAULT_BYTES = 8 << 10  # these as in inflow.c
NOTHING, UNPACK, BROKEN_LINK, BAD_ANSWER = 0, 1, -1, -2
COUNTS = 6  # before the classes of latencies


class NativeInflow:
    """See `Inflow`."""

    def __init__(self, guard: Holder) -> None:
        self._c = library()
        limits = (c_uint32 * len(LIMITS_US))(*LIMITS_US)
        self._inflow = _made(self._c.lifeboat_inflow(limits, len(LIMITS_US), guard.descriptor))
        self._buffer = memoryview(mmap.mmap(-1, FAULT_BYTES))
        self._statistics = Statistics()

    def add(self, pid: int, userfault: int, ranges: list[tuple[int, int]]) -> None:
        """See `Inflow`."""
        numbers = (c_uint64 * (2 * len(ranges)))(*(number for pair in ranges for number in pair))
        _check(self._c.lifeboat_inflow_add(self._inflow, pid, userfault, numbers, len(ranges)))

    def hold(self) -> None:
        """See `Inflow`."""
        self._c.lifeboat_inflow_flow(self._inflow, 0)

    def release(self) -> None:
        """See `Inflow`."""
        self._c.lifeboat_inflow_flow(self._inflow, 1)

    def answer(self, link: Link) -> None:
        """See `Inflow`."""
        _check(self._c.lifeboat_inflow_answer(self._inflow, link.handle, address_of(self._buffer)))

    def fetcher(self) -> NativeFetcher:
        """See `Inflow`."""
        return NativeFetcher(self._c, self._inflow)

    def rest(self) -> bool:
        """See `Inflow`."""
        return bool(self._c.lifeboat_inflow_rest(self._inflow))

    def poison(self) -> tuple[int, bool]:
        """See `Inflow`."""
        poisoned = c_uint64()
        code = self._c.lifeboat_inflow_poison(self._inflow, byref(poisoned))
        if code < 0:
            raise OSError(reason())
        return poisoned.value, code == 1

    def surrender(self) -> list[int]:
        """See `Inflow`."""
        room = 0
        while True:
            found = (c_int * room)()
            count = self._c.lifeboat_inflow_surrender(self._inflow, found, room)
            if count <= room:
                return found[:count]
            room = count

    @property
    def received_bytes(self) -> int:
        """See `Inflow`."""
        self._read()
        return self._statistics.received_bytes

    def tell(self) -> dict[str, object]:
        """See `Inflow`."""
        missing = self._read()
        return self._statistics.tell(time.monotonic(), missing)

    def _read(self) -> int:
        """Take over what was counted; return how many bytes are missing."""
        numbers = (c_uint64 * (COUNTS + len(LIMITS_US) + 1))()
        self._c.lifeboat_inflow_tell(self._inflow, numbers)
        found = self._statistics
        missing, found.received_bytes, found.wire_bytes, found.zero_bytes = numbers[:4]
        found.poisoned_bytes, found.faults = numbers[4:COUNTS]
        found.latencies = Latencies(numbers[COUNTS:])
        return missing


class NativeFetcher:
    """See `Fetcher`."""

    def __init__(self, c: Any, inflow: c_void_p) -> None:
        self._c, self._inflow = c, inflow
        # On a page's border, where the kernel copies fastest.
        size = c.lifeboat_inflow_bulk_bytes()
        self._data, self._packed = (memoryview(mmap.mmap(-1, size)) for _ in range(2))
        self._window = _made(c.lifeboat_window(address_of(self._data), address_of(self._packed)))

    def fetch(self, link: Link) -> None:
        """See `Fetcher`."""
        while (code := self._c.lifeboat_inflow_fetch(self._inflow, link.handle, self._window)) == UNPACK:
            sizes = array("Q", bytes(16))
            self._c.lifeboat_window_packed(self._window, sizes.buffer_info()[0])
            packed, kept = sizes
            decompress(self._packed[:packed], self._data[:kept])
        try:
            _check(code)
        except OSError:
            self._c.lifeboat_window_end(self._inflow, self._window)
            raise


def _made(found: int | None) -> c_void_p:
    if not found:
        raise ExecutionError("there is no memory for the pager", code="pager")
    return c_void_p(found)


def _check(code: int) -> None:
    """Raise what an outcome of inflow.c stands for."""
    if code == NOTHING:
        return
    if code == BROKEN_LINK:
        raise ConnectionError(reason())
    raise ExecutionError(reason(), code="pager-protocol" if code == BAD_ANSWER else "pager")
