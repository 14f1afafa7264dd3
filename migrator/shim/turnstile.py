"""A turnstile in runc's way: it stops exactly where the freeze belongs, and knows when it is there.

`runc checkpoint` needs about a tenth of a second before it calls CRIU, in which the container may as well
run. The last thing it does before is to write `descriptors.json` among the images (libcontainer,
Checkpoint). Here that name is a FIFO which is full: runc opens it, which inotify tells, and its write
waits. Then the container is frozen, and only then the FIFO is emptied and runc goes on to CRIU, which so
finds the cgroup frozen every time.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import time
from collections.abc import Callable
from pathlib import Path

from migrator.errors import ExecutionError

IN_OPEN = 0x20  # include/uapi/linux/inotify.h
PIPE_BYTES = 4096  # the smallest pipe: one page
POLL_S = 0.05

_libc = ctypes.CDLL(None, use_errno=True)


class Turnstile:
    """One FIFO in the place of a small file that another program is about to write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        os.mkfifo(path, 0o600)
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._filled = os.write(self._pipe, b"\0" * PIPE_BYTES)
        self._watch = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._watch < 0 or _libc.inotify_add_watch(self._watch, os.fsencode(path), IN_OPEN) < 0:
            code = ctypes.get_errno()
            raise ExecutionError(f"inotify cannot be used: {os.strerror(code)}", code="no-inotify")

    def wait(self, alive: Callable[[], bool], timeout_s: float) -> bool:
        """Return True when the program stands here, False when it ended or did not come in time."""
        deadline = time.monotonic() + timeout_s
        while alive() and time.monotonic() < deadline:
            if select.select([self._watch], [], [], POLL_S)[0]:
                return True
        return False

    def let_through(self, timeout_s: float) -> None:
        """Let the program write, and put what it wrote where it thinks that it is."""
        left = self._filled
        while left > 0:
            left -= len(os.read(self._pipe, left))
        written = b""
        deadline = time.monotonic() + timeout_s
        while not _complete(written):
            if not select.select([self._pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise ExecutionError("runc does not begin to dump", code="dump-failed")
            written += os.read(self._pipe, PIPE_BYTES)
        self._path.unlink()
        self._path.write_bytes(written)
        self.close()

    def close(self) -> None:
        """Give everything back; a second time is harmless."""
        for descriptor in (self._pipe, self._watch):
            if descriptor >= 0:
                os.close(descriptor)
        self._pipe = self._watch = -1


def _complete(written: bytes) -> bool:
    try:
        json.loads(written)
    except ValueError:
        return False
    return True
