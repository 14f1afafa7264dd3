"""A network namespace of one's own, and the sockets of others."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyroute2 import netns

CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
SIOCSIFFLAGS = 0x8914  # include/uapi/linux/sockios.h
IFF_UP = 0x1

_libc = ctypes.CDLL(None, use_errno=True)


def enter_private_network() -> None:
    """Move the calling thread into a new network namespace in which only a loopback exists.

    CRIU's page server authenticates nobody. Listening here it is reachable by the programs started from
    this thread and by nothing else. Sockets opened before keep their namespace.
    """
    if _libc.unshare(CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"unshare(CLONE_NEWNET): {os.strerror(code)}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


@contextmanager
def inside(namespace: Path) -> Iterator[None]:
    """Let the calling thread open sockets in the network namespace at this path, where they stay.

    Raises `OSError`.
    """
    netns.pushns(str(namespace))
    try:
        yield
    finally:
        netns.popns()
