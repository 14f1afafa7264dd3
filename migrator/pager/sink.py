"""The page sink: brings a restored tree's memory in, and never lets it run on pages that are not its own.

It stands between `criu restore` and CRIU's lazy-pages daemon, and passes on what the restore sends
(criu/uffd.c: each pid and its userfaultfd, at last `LAZY_PAGES_RESTORE_FINISHED`). At that last word, which
comes before the tree is let go, the flow of pages is held until the commit: every thread of the tree then
stands at its first touch of its own memory, so it can neither run nor speak. (Holding everything back
from the beginning would not do: the restore itself touches memory, for restartable sequences. Stopping
the daemon would not do either: it takes an interrupted wait for an error.) A copy of each userfaultfd
stays open here, so that the death of the daemon leaves the tree waiting instead of reading zeros.

Run as `python -m migrator.pager.sink DIRECTORY` in a systemd scope of its own; commands on `sink.sock`:
`images`, `go`, `progress`, `end`.
"""

from __future__ import annotations

import array
import logging
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from migrator.command import kill_group, spawn
from migrator.control import ControlServer, Message
from migrator.errors import ExecutionError, LifeboatError
from migrator.model import Value
from migrator.pager.page_server import GREETING_BYTES
from migrator.peers.relay import LinkLostError, PlainEndedError, Relay
from migrator.peers.tls import accept, listen, server_context
from migrator.runtime.cgroup import Cgroup
from migrator.runtime.criu_log import first_error

ORDER = "sink.json"
CONTROL = "sink.sock"
RESTORE_SOCKET = "lazy-pages.socket"  # LAZY_PAGES_SOCK_NAME, criu/uffd.c
RESTORE_FINISHED = 0x52535446  # LAZY_PAGES_RESTORE_FINISHED, criu/uffd.c
PS_IOV_CLOSE, PS_IOV_FORCE_CLOSE = 0x1023, 0x1024  # criu/page-xfer.c
DAEMON_START_LIMIT_S = 5.0

_log = logging.getLogger("sink")


class SinkOrder(Value):
    """What a sink is told when it starts."""

    migration: str
    source: str  # host name in the certificate of the only host that may call
    pki: str
    ports: tuple[int, int]
    criu: str


class SinkState(StrEnum):
    """How far a sink has come."""

    WAITING = "waiting"  # for the source's call, the images, the restore
    DRAINING = "draining"
    DRAINED = "drained"
    LOST = "lost"  # the tree is frozen; what it lacks will not come


@dataclass(frozen=True)
class Task:
    """One restored process: its pid and its userfaultfd; a zombie has a negative pid and no descriptor."""

    pid: int
    userfault: int | None


class Sink:
    """The sink of one migration."""

    def __init__(self, directory: Path, order: SinkOrder) -> None:
        self._directory = directory
        self._order = order
        self._control = ControlServer(directory / CONTROL)
        self._restore = _unix_listener(directory / RESTORE_SOCKET)
        self._listener = listen(order.ports)
        self._link: ssl.SSLSocket | None = None
        self._relay: Relay | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        self._daemon_end, self._pages_end = socket.socketpair()
        self._tasks: list[Task] = []
        self._daemon_link: socket.socket | None = None
        self._tree_pid = 0
        self._state = SinkState.WAITING
        self._reason = ""
        self._began_at = 0.0
        self._ended_at = 0.0
        self._finished = False

    def run(self) -> int:
        """Serve until the end is allowed; the userfaultfds close with this process."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        threading.Thread(target=self._take_call, daemon=True).start()
        threading.Thread(target=self._take_restore, daemon=True).start()
        while not self._finished:
            message = self._control.wait(1.0)
            if message is not None:
                self._control.say(self._answer(message))
        self._control.close()
        return 0

    def _answer(self, message: Message) -> Message:
        commands = {"images": self._images, "go": self._go, "progress": self._progress, "end": self._end}
        try:
            return commands[str(message.get("do"))](message)
        except LifeboatError as error:
            _log.error("%s: %s", message.get("do"), error)
            return {"error": error.message, "code": error.code}

    def _take_call(self) -> None:
        context = server_context(Path(self._order.pki))
        while self._link is None:
            link = accept(self._listener, context, self._order.source)
            if link is None:
                continue
            greeting = link.recv(GREETING_BYTES).decode("ascii", "replace").strip()
            if greeting == self._order.migration:
                self._link = link
            else:
                link.close()
        self._listener.close()

    def _take_restore(self) -> None:
        """Pass on what `criu restore` sends, keep copies, and hold the pages from the last word on."""
        connection, _ = self._restore.accept()
        try:
            daemon = _connect_daemon(self._work / RESTORE_SOCKET)
            with connection:
                while (task := _receive_task(connection)) is not None:
                    self._tasks.append(task)
                    _pass_on(daemon, task)
            if self._relay is not None:
                self._relay.held = True
            self._daemon_link = daemon
        except (LifeboatError, OSError) as error:
            self._lose(f"the restore could not be joined to the pager: {error}")
        _log.info("holding %d tasks", len(self._tasks))

    def _images(self, message: Message) -> Message:
        """Start the lazy-pages daemon on the images; it serves faults only until the restore is complete."""
        if self._daemon is not None:
            return {"event": "images"}
        if self._link is None:
            raise ExecutionError("the page source never called", code="no-page-source")
        argv = [self._order.criu, "lazy-pages", "--images-dir", str(message["images"])]
        argv += ["--work-dir", str(self._work), "--page-server"]
        argv += ["--ps-socket", str(self._daemon_end.fileno()), "-v1", "-o", "lazy-pages.log"]
        self._work.mkdir(exist_ok=True, mode=0o700)
        with (self._directory / "criu-lazy-pages.out").open("wb") as output:
            self._daemon = spawn(argv, stdout=output, stderr=output, pass_fds=(self._daemon_end.fileno(),))
        self._daemon_end.close()
        self._relay = Relay(self._link, self._pages_end, keep=self._answer_close)
        threading.Thread(target=self._carry, daemon=True).start()
        threading.Thread(target=self._watch_daemon, daemon=True).start()
        return {"event": "images"}

    @property
    def _work(self) -> Path:
        return self._directory / "lazy"

    def _answer_close(self, request: bytes) -> bytes:
        """Answer the daemon's last word in the page server's place (a status, int32), and keep it here."""
        length = _close_length(request)
        if length:
            self._pages_end.send(struct.pack("<i", 0))
        return request[: len(request) - length]

    def _go(self, message: Message) -> Message:
        """The tree belongs here now: let the daemon serve it, and memory begins to flow."""
        if self._state is not SinkState.WAITING:
            return {"event": self._state}
        if self._daemon_link is None or self._relay is None:
            raise ExecutionError("nothing was restored", code="not-restored")
        self._tree_pid = int(message["pid"])
        self._state, self._began_at = SinkState.DRAINING, time.time()
        self._daemon_link.sendall(struct.pack("<I", RESTORE_FINISHED))
        self._relay.held = False
        return {"event": self._state}

    def _carry(self) -> None:
        assert self._relay is not None  # noqa: S101  set in _go
        try:
            self._relay.run()
        except LinkLostError as error:
            self._lose(f"the page source is gone: {error}")
        except PlainEndedError:
            _log.info("the lazy-pages daemon hung up")

    def _watch_daemon(self) -> None:
        assert self._daemon is not None  # noqa: S101  set before go
        status = self._daemon.wait()
        if status == 0 and self._state is SinkState.DRAINING:
            for task in self._tasks:
                if task.userfault is not None:
                    os.close(task.userfault)
            self._state, self._ended_at = SinkState.DRAINED, time.time()
            _log.info("drained")
        elif status != 0:
            self._lose(f"the lazy-pages daemon ended with {status}: {first_error(self._work / 'lazy-pages.log')}")

    def _lose(self, reason: str) -> None:
        """Freeze the tree while all its userfaultfds are still open here; before `go` it stands anyway."""
        if self._state not in (SinkState.WAITING, SinkState.DRAINING):
            return
        self._state, self._reason, self._ended_at = SinkState.LOST, reason, time.time()
        _log.error("%s", reason)
        if self._tree_pid:
            with suppress(LifeboatError, OSError):  # a tree that died already needs no freezing
                Cgroup.of_process(self._tree_pid).ask_to_freeze()
        if self._daemon is not None:
            kill_group(self._daemon)

    def _progress(self, _: Message) -> Message:
        end = self._ended_at or time.time()
        return {
            "event": self._state,
            "reason": self._reason,
            "drained_bytes": self._relay.received_bytes if self._relay else 0,
            "drain_s": end - self._began_at if self._began_at else 0.0,
            "port": self._listener.getsockname()[1] if self._link is None else 0,
            "tasks": len(self._tasks),
        }

    def _end(self, _: Message) -> Message:
        """Leave: allowed when the memory is complete, or when the caller has killed the tree."""
        if self._state is SinkState.DRAINING:
            raise ExecutionError("the drain is not over", code="draining")
        self._finished = True
        if self._daemon is not None and self._daemon.poll() is None:
            kill_group(self._daemon)
        return {"event": "ended"}


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


def _receive_task(connection: socket.socket) -> Task | None:
    """Read one task from `criu restore`; None when it says that all are sent, or hangs up."""
    head = connection.recv(4, socket.MSG_WAITALL)
    if len(head) < 4 or struct.unpack("<I", head)[0] == RESTORE_FINISHED:
        return None
    pid = struct.unpack("<i", head)[0]
    if pid < 0:
        return Task(pid, None)
    descriptors = array.array("i")
    _, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_LEN(descriptors.itemsize))
    for _level, _kind, data in ancillary:
        descriptors.frombytes(data[: descriptors.itemsize])
    return Task(pid, descriptors[0])


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


def _pass_on(daemon: socket.socket, task: Task) -> None:
    daemon.sendall(struct.pack("<i", task.pid))
    if task.userfault is not None:
        socket.send_fds(daemon, [b"\0"], [task.userfault])


def _unix_listener(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(1)
    return listener


def main() -> int:
    """Run the sink of one migration; the argument is its directory."""
    directory = Path(sys.argv[1])
    logging.basicConfig(
        filename=directory / "sink.log", level=logging.INFO, format="%(asctime)s.%(msecs)03d %(message)s"
    )
    try:
        return Sink(directory, SinkOrder.model_validate_json((directory / ORDER).read_text())).run()
    except Exception:  # the entry point: the log must tell
        logging.exception("the sink failed")
        return 1


if __name__ == "__main__":
    sys.exit(main())
