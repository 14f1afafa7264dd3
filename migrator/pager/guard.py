"""The guard of a page sink: a second process that holds every userfaultfd, so that no death of the sink closes one.

A closed userfaultfd turns missing pages into zeros, and the container would go on with them. The guard is a child
forked when the sink starts; it does nothing but hold what it is given. When the sink dies without a word, it
freezes the tree, and keeps everything open until the tree is dead. It has a name and a scope of its own, so that
whoever ends the sink, by its name, its command line or its scope, does not end both.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from typing import Protocol

from migrator.errors import LifeboatError
from migrator.pager import userfault
from migrator.pager.child import settle_in
from migrator.runtime.cgroup import Cgroup
from migrator.runtime.scope import enter_scope

HOLD, TREE, GOODBYE = b"h", b"t", b"g"
MESSAGE_BYTES = 32
NOWHERE = 4096  # an address no process has mapped (vm.mmap_min_addr), to ask whether there is a process
LOOK_S = 0.2
NAME = b"lifeboat-guard"
LAST_TO_BE_KILLED = -1000


class Holder(Protocol):
    """Who holds userfaultfds beside the sink."""

    @property
    def descriptor(self) -> int:
        """The socket on which `HOLD` and a descriptor may be sent to it, also from C."""

    def hold(self, descriptor: int) -> None:
        """Let it hold a userfaultfd, too."""


class Guard:
    """The sink's end of its guard."""

    def __init__(self, scope: str = "") -> None:
        """Fork the guard, into a systemd scope of this name if any; only before any thread is started."""
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            self._channel.close()
            _Held(theirs).run(scope)
        theirs.close()

    @property
    def descriptor(self) -> int:
        """See `Holder`."""
        return self._channel.fileno()

    def hold(self, descriptor: int) -> None:
        """Let the guard hold a userfaultfd too."""
        with suppress(OSError):  # a guard that was killed guards nothing; the sink itself still does
            socket.send_fds(self._channel, [HOLD], [descriptor])

    def watch(self, pid: int) -> None:
        """Tell of a process of the tree, by which the guard finds what to freeze."""
        with suppress(OSError):
            self._channel.send(TREE + str(pid).encode())

    def dismiss(self) -> None:
        """Let go of everything, for the memory is complete or the tree is dead; a second time is harmless."""
        if self._pid:
            with suppress(OSError):
                self._channel.send(GOODBYE)
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pid = 0


class _Held:
    """The guard itself."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._descriptors: list[int] = []
        self._pid = 0

    def run(self, scope: str) -> None:
        """Hold until the goodbye, or until the tree of a dead sink is dead; never returns.

        What it is given while systemd is asked waits in the channel, and is held there.
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        settle_in(NAME, LAST_TO_BE_KILLED, self._channel.fileno())
        try:
            if scope:
                with suppress(LifeboatError, OSError):
                    enter_scope(scope, os.getpid())
            if not self._dismissed():
                self._freeze()
                while any(map(_is_alive, self._descriptors)):
                    time.sleep(LOOK_S)
        finally:
            os._exit(0)

    def _dismissed(self) -> bool:
        """Take what comes; return whether the end came with a goodbye."""
        while True:
            message, descriptors, _, _ = socket.recv_fds(self._channel, MESSAGE_BYTES, 1)
            self._descriptors += descriptors
            if message.startswith(TREE):
                self._pid = int(message[1:])
            elif message != HOLD:
                return message == GOODBYE

    def _freeze(self) -> None:
        """Before the commit no pid is known; the tree stands at its missing pages by itself then."""
        if self._pid:
            with suppress(LifeboatError, OSError):
                Cgroup.of_process(self._pid).ask_to_freeze()


def _is_alive(descriptor: int) -> bool:
    """Say whether the process of a userfaultfd still has its memory (UFFDIO_COPY says ESRCH when it has not)."""
    try:
        userfault.fill(descriptor, NOWHERE, memoryview(bytearray(userfault.PAGE_BYTES)))
    except userfault.TreeGoneError:
        return False
    except OSError:
        return True
    return True
