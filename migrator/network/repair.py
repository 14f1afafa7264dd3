"""Give back TCP sockets that CRIU left in repair mode.

A dump puts every TCP socket into repair mode (TCP_REPAIR, Linux 3.5) and takes it out when it ends well.
When a lazy dump fails after it was ready, or CRIU dies, nobody does, and the connections of the thawed
container would be dead. Each socket is borrowed with pidfd_getfd(2) (Linux 5.6) and set right.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SYS_PIDFD_GETFD = 438  # the same number on every architecture (asm-generic/unistd.h)
TCP_REPAIR = 19  # include/uapi/linux/tcp.h
TCP_REPAIR_OFF = 0

_libc = ctypes.CDLL(None, use_errno=True)


def end_repair(pids: tuple[int, ...]) -> int:
    """Take every TCP socket of these processes out of repair mode; return how many were in it.

    Raises the last `OSError`, after all of them had their turn.
    """
    repaired, failed = 0, None
    for pid in pids:
        try:
            for borrowed in _sockets(pid):
                with borrowed:
                    repaired += _end_repair(borrowed)
        except OSError as error:
            failed = error
    if failed is not None:
        raise failed
    return repaired


def _end_repair(borrowed: socket.socket) -> int:
    if borrowed.type != socket.SOCK_STREAM or borrowed.family not in (socket.AF_INET, socket.AF_INET6):
        return 0
    with suppress(OSError):  # not TCP: no such option
        if borrowed.getsockopt(socket.IPPROTO_TCP, TCP_REPAIR):
            borrowed.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF)
            return 1
    return 0


def _sockets(pid: int) -> Iterator[socket.socket]:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if os.readlink(entry).startswith("socket:"):
                    descriptor = _libc.syscall(SYS_PIDFD_GETFD, pidfd, int(entry.name), 0)
                    if descriptor >= 0:
                        yield socket.socket(fileno=descriptor)
    finally:
        os.close(pidfd)
