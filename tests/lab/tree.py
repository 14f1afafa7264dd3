"""A process whose memory is drained, below podman and CRIU: first the frozen owner, then the restored one.

Needs nothing but Python. Both are given the same regions (`ADDRESS:MIB`, hexadecimal and decimal):

    tree.py own REGION...               fill them, say `ready`, stand still until standard input ends
    tree.py restore SOCKET PID REGION...  map them empty, give them to the sink at SOCKET as CRIU would, for the
                                        owner's PID, say `ready`; then do what standard input says, line by line

What can be said: `verify` (look at every page), `busy SECONDS` (touch random pages all the time), `storm SEED
SECONDS` (change mappings all the time, then look at every page), `watch` (look at random pages until killed, and
say so at once when one is wrong). Each is answered by a line of JSON. Every page holds its address and a
pattern; what is wrong is counted, never repaired.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import resource
import socket
import struct
import sys
import time
from collections.abc import Iterator

PAGE_BYTES = 4096
BLOCK_BYTES = 1 << 20
SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282}[os.uname().machine]
UFFDIO_API, UFFDIO_REGISTER = 0xC018AA3F, 0xC020AA00  # include/uapi/linux/userfaultfd.h
EVENTS = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6  # fork, remap, remove, unmap: what CRIU asks for (criu/uffd.c)
MAP_FIXED_NOREPLACE = 0x100000
RESTORE_FINISHED = 0x52535446

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)


def check(result: int) -> int:
    """Return what a system call returned; raises `OSError` when that was -1."""
    if result in (-1, None):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


class Region:
    """Private anonymous memory at a fixed address."""

    def __init__(self, word: str) -> None:
        address, mib = word.split(":")
        self.address, self.bytes = int(address, 16), int(mib) << 20
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
        check(libc.mmap(self.address, self.bytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0))
        self.view = memoryview((ctypes.c_char * self.bytes).from_address(self.address)).cast("B")

    @property
    def pages(self) -> int:
        """Return how many pages it has."""
        return self.bytes // PAGE_BYTES


def block() -> bytearray:
    """Return a MiB that cannot be compressed, the same in every process."""
    return bytearray(random.Random(1).randbytes(BLOCK_BYTES))  # noqa: S311  not a secret


def is_zero(page: int) -> bool:
    """Say whether the page made of a number holds zeros: some here and there, a whole MiB now and then."""
    number = page // PAGE_BYTES
    return number % 1024 < 3 or number // 256 % 32 == 31


class Contents:
    """What each page must hold: a stamp of its address, and then bytes that do not compress."""

    def __init__(self) -> None:
        self.block = block()

    def fill(self, region: Region) -> None:
        """Write all pages."""
        for offset in range(0, region.bytes, BLOCK_BYTES):
            for page in range(0, BLOCK_BYTES, PAGE_BYTES):
                struct.pack_into("<Q", self.block, page, region.address + offset + page)
            region.view[offset : offset + BLOCK_BYTES] = self.block
            for page in range(region.address + offset, region.address + offset + BLOCK_BYTES, PAGE_BYTES):
                if is_zero(page):
                    ctypes.memset(page, 0, PAGE_BYTES)

    def of(self, value: int | None) -> bytes:
        """Return the page made of a number (a multiple of the page size, not 0), or of zeros."""
        if value is None or is_zero(value):
            return bytes(PAGE_BYTES)
        offset = value % BLOCK_BYTES
        return struct.pack("<Q", value) + bytes(self.block[offset + 8 : offset + PAGE_BYTES])


def verify(regions: list[Region]) -> dict[str, int]:
    """Look at every page once."""
    contents = Contents()
    wrong = 0
    for region in regions:
        for offset in range(0, region.bytes, PAGE_BYTES):
            wrong += region.view[offset : offset + PAGE_BYTES].tobytes() != contents.of(region.address + offset)
    return {"pages": sum(region.pages for region in regions), "wrong": wrong}


def busy(regions: list[Region], seconds: float) -> dict[str, object]:
    """Touch random pages all the time; tell how long those took that the kernel counts as page faults."""
    contents, choose = Contents(), random.Random(2)  # noqa: S311
    latencies: list[int] = []
    wrong = touched = 0
    deadline = time.monotonic() + seconds
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    while time.monotonic() < deadline:
        region = choose.choice(regions)
        offset = choose.randrange(region.pages) * PAGE_BYTES
        began = time.perf_counter_ns()
        stamp = bytes(region.view[offset : offset + 8])
        took = time.perf_counter_ns() - began
        after = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        if after != before:
            before = after
            latencies.append(took)
        touched += 1
        wrong += stamp != contents.of(region.address + offset)[:8]
    latencies.sort()
    return {
        "touched": touched,
        "wrong": wrong,
        "faults": len(latencies),
        "median_us": latencies[len(latencies) // 2] / 1000 if latencies else 0,
        "p99_us": latencies[len(latencies) * 99 // 100] / 1000 if latencies else 0,
        "max_us": latencies[-1] / 1000 if latencies else 0,
    }


def watch(regions: list[Region]) -> dict[str, int]:
    """Look at random pages until one is wrong, or this process is killed."""
    contents, choose = Contents(), random.Random()  # noqa: S311
    while True:
        region = choose.choice(regions)
        address = region.address + choose.randrange(region.pages) * PAGE_BYTES
        if ctypes.string_at(address, PAGE_BYTES) != contents.of(address):
            return {"wrong": 1, "address": address}


class Storm:
    """Changes its mappings all the time, and knows what every page of them must hold."""

    def __init__(self, regions: list[Region], seed: int) -> None:
        self.choose = random.Random(seed)  # noqa: S311
        self.contents = Contents()
        self.pages: dict[int, int | None] = {
            address: address
            for region in regions
            for address in range(region.address, region.address + region.bytes, PAGE_BYTES)
        }
        self.places = list(self.pages)  # also such as are unmapped now
        self.mapping = {address: address >> 40 for address in self.pages}  # what was mapped or moved together
        self.mappings = 0
        self.free = max(self.places) + (1 << 40)
        self.wrong = 0
        self.done: dict[str, int] = {}

    def rage(self, seconds: float) -> dict[str, object]:
        """Do random things for some time, then look at everything."""
        deadline = time.monotonic() + seconds
        deeds = (self.write, self.write, self.look, self.look, self.look, self.give_back, self.move, self.unmap)
        while time.monotonic() < deadline:
            deed = self.fork if self.choose.random() < 0.02 else self.choose.choice(deeds)
            start, pages = self.some()
            if pages:
                deed(start, pages)
                self.done[deed.__name__] = self.done.get(deed.__name__, 0) + 1
        self.look(0, list(self.pages))
        return {"wrong": self.wrong, "pages": len(self.pages), "done": self.done}

    def some(self) -> tuple[int, list[int]]:
        """Return a few mapped pages in a row."""
        start = self.choose.choice(self.places)
        pages = []
        for address in range(start, start + self.choose.choice((1, 2, 16, 64, 300)) * PAGE_BYTES, PAGE_BYTES):
            if address not in self.pages or self.mapping[address] != self.mapping[start]:
                break
            pages.append(address)
        return start, pages

    def look(self, _start: int, pages: list[int]) -> None:
        """Compare."""
        for address in pages:
            self.wrong += ctypes.string_at(address, PAGE_BYTES) != self.contents.of(self.pages[address])

    def write(self, _start: int, pages: list[int]) -> None:
        """Write whole pages."""
        for address in pages[:16]:
            value = self.choose.randrange(1, 1 << 40) * PAGE_BYTES
            ctypes.memmove(address, self.contents.of(value), PAGE_BYTES)
            self.pages[address] = value

    def give_back(self, start: int, pages: list[int]) -> None:
        """Give memory back; it reads as zeros then."""
        check(libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(len(pages) * PAGE_BYTES), mmap.MADV_DONTNEED))
        self.pages.update(dict.fromkeys(pages))

    def move(self, start: int, pages: list[int]) -> None:
        """Move memory to where nothing is."""
        length, target = len(pages) * PAGE_BYTES, self.free
        moved = libc.mremap(
            ctypes.c_void_p(start), ctypes.c_size_t(length), ctypes.c_size_t(length), 3, ctypes.c_void_p(target)
        )
        assert moved == target, os.strerror(ctypes.get_errno())
        self.free += length + PAGE_BYTES
        self.mappings -= 1
        for address in pages:
            place = address - start + target
            self.pages[place] = self.pages.pop(address)
            self.mapping[place] = self.mappings
            self.places.append(place)

    def unmap(self, start: int, pages: list[int]) -> None:
        """Unmap, and often map something new in the same place."""
        length = min(len(pages), 16) * PAGE_BYTES
        check(libc.munmap(ctypes.c_void_p(start), ctypes.c_size_t(length)))
        for address in pages[:16]:
            del self.pages[address]
        if self.choose.random() < 0.7:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
            check(libc.mmap(start, length, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0))
            self.mappings -= 1
            self.pages.update(dict.fromkeys(pages[:16]))
            self.mapping.update(dict.fromkeys(pages[:16], self.mappings))

    def fork(self, _start: int, _pages: list[int]) -> None:
        """Let a child look at many pages, change some, and look again, while the parent goes on."""
        before = self.wrong
        child = os.fork()
        if not child:
            for _ in range(10):
                start, pages = self.some()
                if not pages:
                    continue
                self.choose.choice((self.look, self.look, self.write, self.give_back, self.move))(start, pages)
                self.look(start, [page for page in pages if page in self.pages])
            os._exit(self.wrong > before)
        for _ in range(3):
            self.look(*self.some())
        self.wrong += os.waitpid(child, 0)[1] != 0


def give(path: str, pid: int, regions: list[Region]) -> None:
    """Register the regions and pass them on, as `criu restore --lazy-pages` does (criu/uffd.c)."""
    descriptor = check(libc.syscall(SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK))
    check(libc.ioctl(descriptor, ctypes.c_ulong(UFFDIO_API), struct.pack("<QQQ", 0xAA, EVENTS, 0)))
    for region in regions:
        wanted = struct.pack("<QQQQ", region.address, region.bytes, 1, 0)
        check(libc.ioctl(descriptor, ctypes.c_ulong(UFFDIO_REGISTER), wanted))
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    connection.sendall(struct.pack("<i", pid))
    socket.send_fds(connection, [b"\0"], [descriptor])
    connection.sendall(struct.pack("<I", RESTORE_FINISHED))
    connection.close()
    os.close(descriptor)


def orders() -> Iterator[list[str]]:
    """Return what standard input says, word by word."""
    for line in sys.stdin:
        yield line.split()


def main() -> None:
    """Own or restore."""
    role, *words = sys.argv[1:]
    if role == "own":
        regions = [Region(word) for word in words]
        contents = Contents()
        for region in regions:
            contents.fill(region)
        print("ready", os.getpid(), flush=True)
        sys.stdin.read()
        return
    path, pid, *words = words
    regions = [Region(word) for word in words]
    give(path, int(pid), regions)
    print("ready", os.getpid(), flush=True)
    for verb, *numbers in orders():
        if verb == "storm":
            answer: object = Storm(regions, int(numbers[0])).rage(float(numbers[1]))
        elif verb == "busy":
            answer = busy(regions, float(numbers[0]))
        else:
            answer = {"verify": verify, "watch": watch}[verb](regions)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
