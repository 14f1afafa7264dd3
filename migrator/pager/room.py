"""Room for memory that is to come: the target's kernel finds the pages while the container still runs elsewhere.

A new page has its price. The kernel may have to empty a cache for it first; and on a virtual machine that returns
unused memory to its hypervisor (free page reporting, a balloon) each page has to be had back. Where that was
measured it gave 0.4 GB/s, and no drain could be faster (docs/decisions/0130). So a child of the sink has as much
memory as is reserved for the container, from the reservation on, and returns it piece by piece just ahead of the
pages that come. It is the first to be killed when memory is short, and then there is less room, no more.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from migrator.host.hardware import broken_bytes, spare_bytes
from migrator.pager.child import settle_in

STATE = "room"
NAME = b"lifeboat-room"
PIECE_BYTES = 32 << 20
AHEAD_BYTES = 96 << 20
"""Returned before it is needed: some pieces, for a kernel hands pages from processor to processor in lots."""

LEAST_AVAILABLE_PERCENT = 5
"""Of all memory; the reservation leaves more than that (`memory_headroom_percent`), unless somebody was quicker."""

MADV_POPULATE_WRITE = 23  # include/uapi/asm-generic/mman-common.h, Linux 5.14
NICENESS = 19
FIRST_TO_BE_KILLED = 1000
MESSAGE = struct.Struct("=Q")


@dataclass(frozen=True)
class RoomState:
    """How far a room is."""

    held_bytes: int = 0
    made: bool = True  # whether it grows no more

    @classmethod
    def read(cls, directory: Path) -> RoomState:
        """Return the state of the room in a migration's directory; where there is none, none is being made."""
        try:
            pid, held, made = map(int, (directory / STATE).read_text().split())
        except (OSError, ValueError):
            return cls()
        return cls(held, bool(made)) if _lives(pid) else cls()


def _lives(pid: int) -> bool:
    """Say whether a process is there and has not ended; one that only waits to be reaped has no command line."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


class Room:
    """The sink's end of the room."""

    def __init__(self, directory: Path, wanted_bytes: int) -> None:
        """Fork the child that makes it; only before any thread is started."""
        self._wanted = wanted_bytes
        self._lock = threading.Lock()
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork() if wanted_bytes else 0
        if wanted_bytes and self._pid == 0:
            _Maker(directory / STATE, theirs, wanted_bytes).run()
        theirs.close()

    def suffice(self) -> None:
        """Grow no more: what is held now has to do."""
        self._keep(self._wanted)

    def yield_to(self, came_bytes: int) -> None:
        """So much has come: return what is needed for that and for what is about to; it grows no more."""
        self._keep(max(0, self._wanted - came_bytes - AHEAD_BYTES))

    def _keep(self, kept_bytes: int) -> None:
        with self._lock, suppress(OSError):  # it was killed, or is closed: there is no room, then
            self._channel.send(MESSAGE.pack(kept_bytes), socket.MSG_DONTWAIT)

    def close(self) -> None:
        """Return all of it; a second time is harmless."""
        with self._lock:
            self._channel.close()
            pid, self._pid = self._pid, 0
        if pid:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


class _Maker:
    """The child."""

    def __init__(self, state: Path, channel: socket.socket, wanted_bytes: int) -> None:
        self._state = state
        self._channel = channel
        self._wanted = wanted_bytes
        self._pieces: list[mmap.mmap] = []
        self._made = False

    def run(self) -> None:
        """Make room until it is wanted, return it as it is needed; never returns."""
        try:
            self._settle_in()
            while not self._made and not self._called():
                self._made = not self._grow()
                self._tell()
            self._made = True
            self._tell()
            while self._pieces and (word := self._channel.recv(MESSAGE.size)):
                self._shrink(*MESSAGE.unpack(word))
                self._tell()
        finally:
            with suppress(OSError):
                self._state.unlink(missing_ok=True)
            os._exit(0)

    def _settle_in(self) -> None:
        """Be the least of all, as `child.settle_in` has it."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        settle_in(NAME, FIRST_TO_BE_KILLED, self._channel.fileno())

    @property
    def _held_bytes(self) -> int:
        return sum(map(len, self._pieces))

    def _called(self) -> bool:
        return bool(select.select([self._channel], [], [], 0)[0])

    def _grow(self) -> bool:
        """Have another piece; return whether there may be more.

        What comes is filled in by small pages, for which the kernel breaks up no huge one while smaller free pieces
        are left; so the room takes these first, or what it returns would not be what is given out next.
        """
        size = min(PIECE_BYTES, self._wanted - self._held_bytes)
        if size <= 0 or not is_available(size):
            return False
        piece = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._pieces.append(piece)
        with suppress(OSError):  # a kernel without huge pages: one by one, then
            piece.madvise(mmap.MADV_NOHUGEPAGE if broken_bytes() >= size else mmap.MADV_HUGEPAGE)
        try:
            piece.madvise(MADV_POPULATE_WRITE)
        except OSError:
            return False
        return True

    def _shrink(self, kept_bytes: int) -> None:
        while self._held_bytes > kept_bytes:
            self._pieces.pop().close()

    def _tell(self) -> None:
        new = self._state.with_suffix(".new")
        new.write_text(f"{os.getpid()} {self._held_bytes} {int(self._made)}\n")
        new.replace(self._state)


def is_available(size: int) -> bool:
    """Say whether so many bytes may be taken."""
    return spare_bytes(LEAST_AVAILABLE_PERCENT) >= size
