"""The page sink that lets CRIU's own lazy-pages daemon bring the pages (`pager = "criu"`)."""

from __future__ import annotations

import logging
import signal
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

from migrator.command import kill_group, spawn
from migrator.errors import ExecutionError
from migrator.pager.greeting import CRIU
from migrator.pager.images import Range, lazy_ranges
from migrator.pager.links import TlsLink
from migrator.pager.restored import RESTORE_FINISHED, RESTORE_SOCKET, Task
from migrator.pager.sink import Sink, SinkOrder, SinkState
from migrator.pager.userfault import Kind, TreeGoneError, poison, read_event
from migrator.peers.relay import LinkLostError, PlainEndedError, Relay
from migrator.runtime.criu_log import first_error

PS_IOV_CLOSE, PS_IOV_FORCE_CLOSE = 0x1023, 0x1024  # criu/page-xfer.c
DAEMON_START_LIMIT_S = 5.0

_log = logging.getLogger("sink")


class CriuSink(Sink):
    """Stands between `criu restore` and the daemon; the page flow is what it holds and releases.

    (Stopping the daemon instead would not do: it takes an interrupted wait for an error.)
    """

    pure_tls = True  # a relay needs a socket it can poll

    def __init__(self, directory: Path, order: SinkOrder) -> None:
        super().__init__(directory, order)
        self._relay: Relay | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        self._daemon_end, self._pages_end = socket.socketpair()
        self._daemon_link: socket.socket | None = None
        self._image_files = Path()

    @property
    def _work(self) -> Path:
        return self.directory / "lazy"

    def brace(self) -> None:
        """Nothing of it takes time from the freeze."""

    def begin(self, images: Path) -> None:
        """Start the daemon; it serves faults only until the restore is complete."""
        if self._daemon is not None:
            return
        link = self.link(CRIU)
        if not isinstance(link, TlsLink):
            raise ExecutionError("CRIU's own pager goes over TLS only", code="no-plain-criu")
        self._image_files = images
        argv = [self.order.criu, "lazy-pages", "--images-dir", str(images)]
        argv += ["--work-dir", str(self._work), "--page-server"]
        argv += ["--ps-socket", str(self._daemon_end.fileno()), "-v1", "-o", "lazy-pages.log"]
        self._work.mkdir(exist_ok=True, mode=0o700)
        with (self.directory / "criu-lazy-pages.out").open("wb") as output:
            self._daemon = spawn(argv, stdout=output, stderr=output, pass_fds=(self._daemon_end.fileno(),))
        self._daemon_end.close()
        self._relay = Relay(link.socket, self._pages_end, keep=self._answer_close)
        threading.Thread(target=self._carry, daemon=True).start()
        threading.Thread(target=self._watch_daemon, daemon=True).start()

    def take(self, task: Task) -> None:
        """Pass the task on, keeping our copy of its userfaultfd."""
        if self._daemon_link is None:
            self._daemon_link = _connect_daemon(self._work / RESTORE_SOCKET)
        self._daemon_link.sendall(struct.pack("<i", task.pid))
        if task.userfault is not None:
            socket.send_fds(self._daemon_link, [b"\0"], [task.userfault])

    def hold(self) -> None:
        """Take no pages from the link any more."""
        if self._relay is not None:
            self._relay.held = True

    def release(self) -> None:
        """Say the restore's last word to the daemon, and let the pages come."""
        if self._relay is None or self._daemon_link is None:
            raise ExecutionError("nothing was restored", code="not-restored")
        self._daemon_link.sendall(struct.pack("<I", RESTORE_FINISHED))
        self._relay.held = False

    @property
    def drained_bytes(self) -> int:
        """Return how much has come over the link."""
        return self._relay.received_bytes if self._relay else 0

    def poison(self) -> int:
        """See `Sink.poison`. The daemon knows of forks and we do not; it must be dead, or it reads our events."""
        total = 0
        for task in self.tasks:
            if task.userfault is not None:
                ranges = lazy_ranges(self._image_files, task.pid)
                total += poison_all(task.userfault, ranges)
        return total

    def tidy(self) -> None:
        """End the daemon."""
        if self._daemon is not None and self._daemon.poll() is None:
            kill_group(self._daemon)

    def _carry(self) -> None:
        assert self._relay is not None  # noqa: S101  set in begin
        try:
            self._relay.run()
        except LinkLostError as error:
            self.lose(f"the page source is gone: {error}")
        except PlainEndedError:
            _log.info("the lazy-pages daemon hung up")

    def _watch_daemon(self) -> None:
        assert self._daemon is not None  # noqa: S101  set in begin
        status = self._daemon.wait()
        if status == 0 and self.state is SinkState.DRAINING:
            self.complete()
        elif status not in (0, -signal.SIGKILL):
            log = first_error(self._work / "lazy-pages.log")
            self.lose(f"the lazy-pages daemon ended with {status}: {log}")
        elif self.state is SinkState.DRAINING:
            self.lose("the lazy-pages daemon was killed")

    def _answer_close(self, request: bytes) -> bytes:
        """Answer the daemon's last word in the page server's place (a status, int32), and keep it here."""
        length = _close_length(request)
        if length:
            self._pages_end.send(struct.pack("<i", 0))
        return request[: len(request) - length]


def _close_length(request: bytes) -> int:
    """Return the length of the daemon's last word at the end of what it sent, 0 when it is not there.

    To CRIU's page server that word would mean success, and the daemon says it also when it failed.
    """
    for size in (32, 24):  # struct page_server_iov from CRIU 4.2, and before
        if len(request) % size == 0:
            command = struct.unpack_from("<I", request, len(request) - size)[0]
            if command in (PS_IOV_CLOSE, PS_IOV_FORCE_CLOSE):
                return size
    return 0


def _connect_daemon(path: Path) -> socket.socket:
    deadline = time.monotonic() + DAEMON_START_LIMIT_S
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    while True:
        try:
            connection.connect(str(path))
        except OSError as error:
            if time.monotonic() > deadline:
                raise ExecutionError("CRIU's lazy-pages daemon does not come up", code="no-daemon") from error
            time.sleep(0.002)
        else:
            return connection


def poison_all(descriptor: int, ranges: list[Range]) -> int:
    """Poison what is not there of these ranges, also in processes forked since that nobody has heard of."""
    total = 0
    descriptors = [descriptor]
    for found in descriptors:  # grows
        try:
            while event := read_event(found):
                if event.kind is Kind.FORK:
                    descriptors.append(event.first)
            total += sum(poison(found, start, end - start) for start, end in ranges)
        except TreeGoneError:
            continue
    return total
