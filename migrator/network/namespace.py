"""A network namespace of one's own; the sockets, links and addresses of others."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from migrator.later import Later

if TYPE_CHECKING:
    import pyroute2
else:
    pyroute2 = Later("pyroute2")

CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
SIOCSIFFLAGS = 0x8914  # include/uapi/linux/sockios.h
IFF_UP = 0x1
RT_SCOPE_UNIVERSE = 0  # include/uapi/linux/rtnetlink.h
OWN = Path("/proc/thread-self/ns/net")

_libc = ctypes.CDLL(None, use_errno=True)


def enter_private_network() -> None:
    """Move the calling thread into a new network namespace in which only a loopback exists.

    CRIU's page server authenticates nobody. Listening here it is reachable by the programs started from
    this thread and by nothing else. Sockets opened before keep their namespace.
    """
    _check(_libc.unshare(CLONE_NEWNET), "unshare(CLONE_NEWNET)")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


@contextmanager
def inside(namespace: Path) -> Iterator[None]:
    """Let the calling thread, and no other, open sockets in the network namespace at this path, where they stay.

    Raises `OSError`.
    """
    with OWN.open() as own, namespace.open() as other:
        _check(_libc.setns(other.fileno(), CLONE_NEWNET), f"setns({namespace})")
        try:
            yield
        finally:
            _check(_libc.setns(own.fileno(), CLONE_NEWNET), "setns")


def interfaces(namespace: Path) -> dict[str, str]:
    """Return MAC address -> name of the interfaces in a network namespace.

    Raises `OSError` when there is no such namespace.
    """
    with inside(namespace):
        route = pyroute2.IPRoute()
    with route:
        return {link.get("address"): link.get("ifname") for link in route.get_links() if link.get("address")}


def addresses(namespace: Path) -> tuple[str, ...]:
    """Return the global addresses in a network namespace, without prefix length.

    Raises `OSError` when there is no such namespace.
    """
    with inside(namespace):
        route = pyroute2.IPRoute()
    with route:
        return tuple(item.get("local") or item.get("address") for item in route.get_addr(scope=RT_SCOPE_UNIVERSE))


def _check(status: int, what: str) -> None:
    if status != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
