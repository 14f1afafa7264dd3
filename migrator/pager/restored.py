"""What `criu restore --lazy-pages` tells a lazy-pages daemon: each process it made, and when it has made all."""

from __future__ import annotations

import array
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from migrator.errors import ExecutionError

RESTORE_SOCKET = "lazy-pages.socket"  # LAZY_PAGES_SOCK_NAME, criu/uffd.c
RESTORE_FINISHED = 0x52535446  # LAZY_PAGES_RESTORE_FINISHED, criu/uffd.c


@dataclass(frozen=True)
class Task:
    """One restored process: its pid and its userfaultfd; a zombie has a negative pid and no descriptor."""

    pid: int
    userfault: int | None


def receive_task(connection: socket.socket) -> Task | None:
    """Read one task from `criu restore`; None when it says that all are sent; raises `ExecutionError`."""
    head = connection.recv(4, socket.MSG_WAITALL)
    if len(head) < 4:
        raise ExecutionError("it hung up before its last word", code="not-restored")
    if struct.unpack("<I", head)[0] == RESTORE_FINISHED:
        return None
    pid = struct.unpack("<i", head)[0]
    if pid < 0:
        return Task(pid, None)
    descriptors = array.array("i")
    _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_LEN(descriptors.itemsize))
    for _level, _kind, data in ancillary:
        descriptors.frombytes(data[: descriptors.itemsize])
    return Task(pid, descriptors[0])


def restore_listener(path: Path) -> socket.socket:
    """Listen where a restore calls, and let nobody else in."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(1)
    return listener
