"""Unix sockets of a container whose other end is held outside: a dump has one end, and a connection is both."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from migrator.container.processes import PROC, Held, link_of, program_name
from migrator.later import Later
from migrator.network.namespace import inside

if TYPE_CHECKING:
    import pyroute2
else:
    pyroute2 = Later("pyroute2")

LASTING_S = 0.2
"""Between two looks: a poll of a daemon's socket takes milliseconds."""

_log = logging.getLogger(__name__)

SOCKET = re.compile(r"socket:\[(\d+)\]")  # proc_pid_fd(5)


def connections_out(pids: Callable[[], Sequence[int]], proc: Path = PROC) -> tuple[Held, ...]:
    """Return the lasting connections of a container's processes to others; one for each pair of programs.

    CRIU refuses each of them ("Can't dump half of stream unix connection", "External socket is used", or, of what
    a listener accepted from outside, "Unix socket N not found"; criu/sk-unix.c). An end that nobody holds is none:
    it is closed, or waits to be accepted in the container. One that is gone at the second look would hardly be
    there in the freeze. `pids` is asked again after whoever holds the other ends was found, for the container may
    have forked since.
    """
    found = _look(pids, proc)
    if found:
        time.sleep(LASTING_S)
        again = _look(pids, proc)
        found = {ends: held for ends, held in found.items() if ends in again}
    return tuple({(held.program, held.what): held for held in found.values()}.values())


def _look(pids: Callable[[], Sequence[int]], proc: Path) -> dict[tuple[int, int], Held]:
    """Return both ends of each connection to others, as they are now."""
    own = {inode: pid for pid in pids() for inode in _sockets(proc / str(pid))}
    peers = {inode: peer for inode, peer in _peers(own, proc) if inode in own and peer not in own}
    holders = _holders(frozenset(peers.values()), proc) if peers else {}
    within = set(pids()) if holders else set()
    found = {}
    for inode, peer in sorted(peers.items()):
        others = holders.get(peer, set())
        if others and not others & within:
            other = min(others)
            what = f"is connected by a Unix socket to {program_name(other, proc)} (process {other}), outside of it"
            found[inode, peer] = Held(own[inode], program_name(own[inode], proc), what)
    return found


def _sockets(process: Path) -> set[int]:
    """Return the inodes of the sockets that a process holds."""
    found = set()
    with suppress(OSError):  # it ended meanwhile
        for number in os.listdir(process / "fd"):
            if match := SOCKET.fullmatch(link_of(process / "fd" / number)):
                found.add(int(match[1]))
    return found


def _peers(own: Mapping[int, int], proc: Path) -> Iterator[tuple[int, int]]:
    """Yield the two ends of each connection of the network namespaces these processes live in; sock_diag(7).

    This host's own is one of them, for what a listener accepts is in the namespace of whoever called (unix(7) does
    not say so; unix_stream_connect, net/unix/af_unix.c). `own` are the inodes of their sockets and who holds them;
    a namespace with none of these is not asked.
    """
    seen = {""}
    for process in (proc / "self", *(proc / str(pid) for pid in set(own.values()))):
        if (link := link_of(process / "ns/net")) in seen:
            continue
        try:
            if own.keys().isdisjoint(_listed(process)):
                continue
            with inside(process / "ns/net"):
                diagnosis = pyroute2.DiagSocket()
            with diagnosis:
                diagnosis.bind()
                told = diagnosis.get_sock_stats(family=socket.AF_UNIX)
        except (OSError, KeyError) as error:  # KeyError: pyroute2 has no address left; the dump still looks itself
            _log.warning("the Unix sockets in the network of %s cannot be listed: %r", process, error)
            continue
        seen.add(link)
        for item in told:
            if peer := item.get_attr("UNIX_DIAG_PEER"):
                yield int(item["udiag_ino"]), int(peer)


def _listed(process: Path) -> Iterator[int]:
    """Yield the inodes of the Unix sockets of a process's network namespace; raises `OSError`; proc_pid_net(5)."""
    for line in (process / "net/unix").read_text(errors="replace").splitlines()[1:]:
        yield int(line.split(maxsplit=7)[6])


def _holders(wanted: frozenset[int], proc: Path) -> dict[int, set[int]]:
    """Return inode -> the processes that hold it."""
    found: dict[int, set[int]] = {}
    for entry in proc.iterdir():
        if entry.name.isdigit():
            for inode in _sockets(entry) & wanted:
                found.setdefault(inode, set()).add(int(entry.name))
    return found
