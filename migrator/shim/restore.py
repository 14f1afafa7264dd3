"""One `runc restore`, begun before the images are there.

runc asks CRIU for its version, mounts the root and prepares mount points, all of which takes a tenth of a
second, and then reads `descriptors.json` (libcontainer, Restore). For a lazy restore that file is a FIFO:
runc waits in it, ready, until the images have come and somebody writes.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from migrator.command import give_up, spawn, wait
from migrator.errors import ExecutionError
from migrator.model import Method
from migrator.runtime import hasten
from migrator.runtime.criu_log import first_error
from migrator.runtime.criu_options import with_options
from migrator.runtime.runc import remove_remains
from migrator.runtime.specification import cgroup_of
from migrator.shim.order import Order
from migrator.storage.image import DESCRIPTORS

RESTORE_WAIT_S = 30.0
OPEN_WAIT_S = 5.0


class Restore:
    """CRIU's restore through runc."""

    def __init__(self, order: Order, arguments: Sequence[str], directory: Path) -> None:
        """`arguments` are what podman gave its runtime; CRIU's log and sockets go to `directory`."""
        self._order = order
        self._arguments = list(arguments)
        self._arguments[self._arguments.index("--work-path") + 1] = str(directory)
        self._lazy = order.method is Method.LAZY
        self._directory = directory
        self.images = Path(option(self._arguments, "--image-path"))
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Let runc come as far as it can without images; only a lazy one, whose images come all at once."""
        if not self._lazy or self._process is not None:
            return
        shutil.rmtree(self.images)
        self.images.mkdir(mode=0o700)
        os.mkfifo(self.images / DESCRIPTORS, 0o600)
        self._start()

    def give_up(self) -> None:
        """Throw away what was begun: the container's root must change under it."""
        if self._process is not None:
            self.remove()
            (self.images / DESCRIPTORS).unlink()
            self._process = None

    def run(self, descriptors: str) -> None:
        """Restore; raises `ExecutionError` with CRIU's first error."""
        if self._process is not None:
            self._write(descriptors)
        else:
            if descriptors:
                (self.images / DESCRIPTORS).write_text(descriptors)
            self._start()
        if self._process is None or self._wait() != 0:
            reason = self._reason()
            self.remove()
            raise ExecutionError(f"CRIU cannot restore this container: {reason}", code="restore-failed")

    def remove(self) -> None:
        """Kill what is at work and remove what it left; quiet when there is nothing."""
        if self._process is not None:
            give_up(self._process)
        remove_remains(self._order.runc, self._arguments[-1])

    def _start(self) -> None:
        options = ["--lazy-pages"] if self._lazy else []
        argv = [self._order.runc, *self._arguments[:-1], *options, self._arguments[-1]]
        verbosity = self._order.settings.criu_verbosity
        argv = with_options(argv, self._directory, verbosity, hasten.environment(), cgroup=self._cgroup())
        self._process = spawn(argv, stdin=sys.stdin.fileno(), stdout=1, stderr=2)

    def _cgroup(self) -> str:
        """Return where a member of a pod goes: its pod had another id where it was, and its cgroup another path."""
        if not self._order.in_pod:
            return ""
        bundle = Path(option(self._arguments, "--bundle", "-b"))
        return cgroup_of(json.loads((bundle / "config.json").read_text()))

    def _write(self, descriptors: str) -> None:
        """Give runc the file it waits for."""
        deadline = time.monotonic() + OPEN_WAIT_S
        while self._process is not None and self._process.poll() is None:
            try:
                fifo = os.open(self.images / DESCRIPTORS, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO or time.monotonic() > deadline:  # ENXIO: nobody reads yet
                    raise ExecutionError("runc does not wait for its images", code="restore-failed") from error
                time.sleep(0.002)
            else:
                with os.fdopen(fifo, "w") as file:
                    file.write(descriptors)
                return

    def _wait(self) -> int | None:
        return wait(self._process, RESTORE_WAIT_S) if self._process is not None else None

    def _reason(self) -> str:
        """Return CRIU's first error, or else what runc wrote to the log podman gave it."""
        for log in (self._directory / "restore.log", Path(option(self._arguments, "--log"))):
            if reason := first_error(log):
                return reason
        if self._process is not None and (status := self._process.poll()) is not None:
            return f"runc ended with exit status {status} and did not say why"
        return f"not done within {RESTORE_WAIT_S:g} s"


def option(arguments: Sequence[str], *names: str) -> str:
    """Return the value of one of podman's options; raises `ExecutionError` when podman did not give it."""
    for name in names:
        if name in arguments:
            return arguments[arguments.index(name) + 1]
    raise ExecutionError(f"podman called its runtime without {names[0]}", code="unknown-podman")
