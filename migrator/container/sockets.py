"""Unix sockets of a container whose other end is held outside: a dump has one end, and a connection is both."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from migrator.container.processes import PROC, Held, program_name
from migrator.later import Later
from migrator.network.namespace import inside

if TYPE_CHECKING:
    import pyroute2
else:
    pyroute2 = Later("pyroute2")

SOCKET = re.compile(r"socket:\[(\d+)\]")  # proc_pid_fd(5)


def connections_out(pids: Iterable[int], proc: Path = PROC) -> tuple[Held, ...]:
    """Return the connections of these processes, all of one container, to others; one for each pair of programs.

    CRIU refuses each of them ("Can't dump half of stream unix connection", "External socket is used",
    criu/sk-unix.c). An end that nobody holds is none: it is closed, or waits to be accepted in the container.
    """
    own = {inode: pid for pid in pids for inode in _sockets(proc / str(pid))}
    peers = {inode: peer for inode, peer in _peers(own.values(), proc) if inode in own and peer not in own}
    if not peers:
        return ()
    holders = _holders(frozenset(peers.values()), proc)
    found: dict[tuple[str, str], Held] = {}
    for inode, peer in sorted(peers.items()):
        if (other := holders.get(peer)) is not None:
            here, there = program_name(own[inode], proc), program_name(other, proc)
            what = f"is connected by a Unix socket to {there} (process {other}), outside of it"
            found.setdefault((here, there), Held(own[inode], here, what))
    return tuple(found.values())


def _sockets(process: Path) -> set[int]:
    """Return the inodes of the sockets that a process holds."""
    found = set()
    with suppress(OSError):  # it ended meanwhile
        for number in os.listdir(process / "fd"):
            with suppress(OSError):
                if match := SOCKET.fullmatch(os.readlink(process / "fd" / number)):
                    found.add(int(match[1]))
    return found


def _peers(pids: Iterable[int], proc: Path) -> Iterator[tuple[int, int]]:
    """Yield the two ends of each connection of the network namespaces these processes live in; sock_diag(7)."""
    seen = set()
    for pid in set(pids):
        namespace = proc / str(pid) / "ns/net"
        try:
            if (link := os.readlink(namespace)) in seen:
                continue
            seen.add(link)
            with inside(namespace):
                diagnosis = pyroute2.DiagSocket()
        except OSError:
            continue
        with diagnosis:
            diagnosis.bind()
            for item in diagnosis.get_sock_stats(family=socket.AF_UNIX):
                if peer := item.get_attr("UNIX_DIAG_PEER"):
                    yield int(item["udiag_ino"]), int(peer)


def _holders(wanted: frozenset[int], proc: Path) -> dict[int, int]:
    """Return inode -> one process that holds it."""
    found = {}
    for entry in proc.iterdir():
        if entry.name.isdigit():
            found.update(dict.fromkeys(_sockets(entry) & wanted, int(entry.name)))
    return found
