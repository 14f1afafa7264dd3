"""One `runc checkpoint` of a container that we have frozen."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from migrator.command import give_up, spawn, wait
from migrator.container.watches import watched_paths
from migrator.errors import ExecutionError
from migrator.model import Method, Pager
from migrator.pager.spare import Spare
from migrator.runtime import hasten
from migrator.runtime.criu_log import first_error
from migrator.runtime.criu_options import with_options
from migrator.shim.order import Order
from migrator.shim.turnstile import Turnstile
from migrator.storage.image import DESCRIPTORS

PAGE_SERVER_PORT = 27
"""Any port does: the page server listens on the loopback of a network namespace that holds nobody else."""

BEGIN_LIMIT_S = 5.0


class Dump:
    """CRIU's dump through runc; lazy dumps stay alive, serving pages, until they are ended."""

    def __init__(self, order: Order, arguments: Sequence[str], directory: Path) -> None:
        """`arguments` are what podman gave its runtime: `checkpoint --image-path P --work-path W ... ID`.

        CRIU's log goes to `directory`; podman would delete it.
        """
        self._order = order
        self._arguments = list(arguments)
        self._lazy = order.method is Method.LAZY
        self._directory = directory
        self.images = Path(self._arguments[self._arguments.index("--image-path") + 1])
        work = self._arguments.index("--work-path") + 1
        self.bundle = Path(self._arguments[work])
        self._arguments[work] = str(directory)
        self._process: subprocess.Popen[bytes] | None = None
        self._status_read = -1
        self._turnstile: Turnstile | None = None
        self._foreseen = hasten.Foreseen(directory / "mappings")
        self._spare = Spare(directory) if self._lazy and order.settings.pager is Pager.LIFEBOAT else None

    def start(self, pids: tuple[int, ...]) -> None:
        """Start runc; it comes as far as the turnstile. `pids` are the container's processes, still running."""
        shutil.rmtree(self.images, ignore_errors=True)
        self.images.mkdir(mode=0o700)
        self._turnstile = Turnstile(self.images / DESCRIPTORS)
        options, status_write = ["--leave-running"], -1
        if self._lazy:
            self._status_read, status_write = os.pipe()
            server = f"127.0.0.1:{PAGE_SERVER_PORT}"
            options = ["--lazy-pages", "--page-server", server, "--status-fd", str(status_write)]
        argv = [self._order.runc, *self._arguments[:-1], *options, self._arguments[-1]]
        spared = self._spare.environment() if self._spare else {}
        environment = hasten.environment(spared, mappings=self._foreseen.directory)
        verbosity, watched = self._order.settings.criu_verbosity, watched_paths(pids)
        argv = with_options(argv, self._directory, verbosity, environment, watched)
        with (self._directory / "runc.log").open("wb") as log:
            passed = (status_write,) if self._lazy else ()
            self._process = spawn(argv, stdout=log, stderr=log, pass_fds=passed)
        if self._lazy:
            os.close(status_write)

    def wait_at_turnstile(self, timeout_s: float) -> None:
        """Return when runc stands before CRIU; raises `ExecutionError` when it ends or does not come."""
        if self._turnstile is None or not self._turnstile.wait(lambda: self.running, timeout_s):
            raise self._failure("runc does not begin to dump this container")

    def foresee(self, pids: tuple[int, ...]) -> None:
        """Look at the container's processes while they run, so that the freeze need not."""
        self._foreseen.look(pids)

    def go(self, pids: tuple[int, ...]) -> None:
        """Let runc call CRIU, given the container's processes, which are frozen now.

        CRIU finds the cgroup frozen and so leaves it frozen at its end (criu/seize.c).
        """
        self._foreseen.give()
        if self._spare is not None:
            self._spare.choose(pids)
        if self._turnstile is not None:
            self._turnstile.let_through(BEGIN_LIMIT_S)

    def wait_until_ready(self, timeout_s: float, pids: tuple[int, ...]) -> None:
        """Return when all images but the memory (lazy), or all of them (full), are written.

        Raises `ExecutionError` with CRIU's own words when the dump failed or takes too long.
        """
        if self._lazy:
            self._wait_for_page_server(timeout_s)
            if self._spare is not None:
                self._spare.enter(self.images, pids)
        elif self.wait(timeout_s) != 0:
            raise self._failure("CRIU cannot dump this container")

    def confirm(self) -> None:
        """Return when what was foreseen is known to be true; raises `ExecutionError` when it was not."""
        self._foreseen.confirm()

    def _wait_for_page_server(self, timeout_s: float) -> None:
        """runc writes one zero byte when CRIU's page server listens, and closes the pipe when it fails."""
        ready, _, _ = select.select([self._status_read], [], [], timeout_s)
        said = os.read(self._status_read, 1) if ready else b""
        os.close(self._status_read)
        if not said:
            raise self._failure("CRIU cannot dump this container" if ready else "the dump takes too long")

    def wait(self, timeout_s: float) -> int | None:
        """Return the exit status of the dump, None when it still runs after `timeout_s` seconds."""
        return wait(self._process, timeout_s) if self._process is not None else None

    def drop_memory(self) -> None:
        """Remove the memory from the images: podman is about to put them into its archive, which nobody needs."""
        for pages in self.images.glob("pages-*.img"):
            pages.unlink(missing_ok=True)

    def kill(self) -> None:
        """End it the hard way: the tree stays frozen, its sockets may stay in repair mode."""
        if self._process is not None and self._process.poll() is None:
            give_up(self._process)

    @property
    def running(self) -> bool:
        """Say whether the dump is at work or serving pages."""
        return self._process is not None and self._process.poll() is None

    def _failure(self, sentence: str) -> ExecutionError:
        reason = first_error(self._directory / "dump.log") or first_error(self._directory / "runc.log")
        return ExecutionError(f"{sentence}: {reason or 'no reason given'}", code="dump-failed")
