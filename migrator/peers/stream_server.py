"""The called end of streams: takes them from hosts of the cluster, and feeds them to programs.

Nobody holds a thread for longer than a few seconds before it is known who calls, and no host more than
`MOST_OF_ONE` streams; a host that is removed loses its open ones.
"""

from __future__ import annotations

import json
import logging
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from migrator.command import give_up, kill_group, spawn
from migrator.errors import ExecutionError, LifeboatError, NotAllowedError
from migrator.peers.identity import Identity, RollFile, check_member
from migrator.peers.relay import LinkLostError, PlainEndedError, Relay
from migrator.peers.streams import PART, Header, read_line
from migrator.peers.tls import BUFFER_BYTES, Door, hang_up, server_context, welcome
from migrator.vital import vital_thread

HEADER_TIMEOUT_S = 10.0
MOST_OF_ONE = 64
LOOK_S = 2.0

StreamHandler = Callable[[Header, ssl.SSLSocket], None]
Starter = Callable[..., "subprocess.Popen[bytes]"]
"""Starts a program as `migrator.command.spawn` does."""

_log = logging.getLogger(__name__)


class StreamServer:
    """Takes streams from peers, each in a thread of its own."""

    def __init__(self, handlers: Mapping[str, StreamHandler], pki: Path, address: str, port: int) -> None:
        self._handlers = handlers
        self._pki = pki
        self._roll = RollFile(pki.parent)
        self._listener = socket.create_server((address, port), backlog=128)
        self._door = Door()
        self._open: dict[ssl.SSLSocket, Identity] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin to take streams."""
        vital_thread("streams", self._serve).start()
        vital_thread("stream-watch", self._watch).start()

    def stop(self) -> None:
        """Take no more streams; those at work go on."""
        self._stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            try:
                plain, address = self._listener.accept()
            except OSError:
                if self._stopping.is_set():
                    return
                time.sleep(0.1)  # no more descriptors, or a caller that was gone at once
                continue
            if not self._door.enter(address[0]):
                plain.close()
                continue
            threading.Thread(target=self._welcome, args=(plain, address[0]), name="stream", daemon=True).start()

    def _welcome(self, plain: socket.socket, address: str) -> None:
        try:
            link, who = welcome(plain, server_context(self._pki), self._pki)
        except (LifeboatError, OSError, ValueError) as error:
            _log.warning("a caller of the stream port was turned away: %s", error)
            self._door.leave(address)
            return
        with link:
            try:
                try:
                    header = read_line(link, HEADER_TIMEOUT_S)
                finally:
                    self._door.leave(address)
                self._handle(link, who, header)
            except (LifeboatError, OSError) as error:
                _log.warning("a stream of %s failed: %s", who.name, error)
                code = error.code if isinstance(error, LifeboatError) else "stream-lost"
                with suppress(OSError, ValueError):
                    link.sendall(json.dumps({"error": str(error), "code": code}).encode() + b"\n")

    def _handle(self, link: ssl.SSLSocket, who: Identity, header: Header) -> None:
        handler = self._handlers.get(header.get("kind", ""))
        if handler is None:
            raise ExecutionError(f"no such stream: {header.get('kind')!r}", code="no-such-stream")
        with self._lock:
            if sum(other.name == who.name for other in self._open.values()) >= MOST_OF_ONE:
                raise ExecutionError(f"{who.name} has {MOST_OF_ONE} streams already", code="too-many-streams")
            self._open[link] = who
        try:
            link.settimeout(None)
            handler({**header, "peer": who.name}, link)
        finally:
            with self._lock:
                del self._open[link]

    def _watch(self) -> None:
        """Hang up on hosts that are removed while they have a stream."""
        while not self._stopping.wait(LOOK_S):
            self.look()

    def look(self) -> None:
        """Hang up on whoever is no host of the cluster any more."""
        known = self._roll.known
        with self._lock:
            for link, who in self._open.items():
                try:
                    check_member(who, known)
                except NotAllowedError as error:
                    _log.warning("a stream is cut: %s", error)
                    hang_up(link)


def accept_stream(link: ssl.SSLSocket) -> None:
    """Say yes to the caller; a handler calls this when it is ready for the bytes."""
    link.sendall(b"{}\n")


def feed_command(
    link: ssl.SSLSocket,
    argv: list[str],
    timeout_s: float,
    *,
    most_bytes: int = 1 << 62,
    start: Starter = spawn,
) -> None:
    """Feed a stream to a program and tell the caller how that ended."""
    accept_stream(link)
    process = start(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + timeout_s
    timer = threading.Timer(timeout_s, kill_group, [process])  # it may not even read
    timer.start()
    try:
        with suppress(BrokenPipeError):  # the program has ended, and says why
            for data in parts(link, deadline, most_bytes):
                if process.stdin is not None:
                    process.stdin.write(data)
        _, errors = process.communicate()
    finally:
        timer.cancel()
        give_up(process)
    if process.returncode != 0:
        said = errors.decode("utf-8", "replace").strip() or f"exit status {process.returncode}"
        raise ExecutionError(f"{argv[0]}: {said}"[:1000], code="copy-failed")
    accept_stream(link)


def parts(link: ssl.SSLSocket, deadline: float, most_bytes: int) -> Iterator[bytes]:
    """Return the parts of a stream as they come."""
    taken = 0
    while True:
        (length,) = PART.unpack(_exactly(link, PART.size, deadline))
        if not length:
            return
        taken += length
        if length > BUFFER_BYTES or taken > most_bytes:
            raise ExecutionError("the stream is larger than what there is room for", code="stream-too-large")
        yield _exactly(link, length, deadline)


def _exactly(link: ssl.SSLSocket, length: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < length:
        link.settimeout(max(0.001, deadline - time.monotonic()))
        part = link.recv(length - len(data))
        if not part:
            raise OSError("the caller hung up")
        data += part
    return bytes(data)


def join_command(link: ssl.SSLSocket, argv: list[str], timeout_s: float, *, start: Starter = spawn) -> None:
    """Join a stream to a program's standard input and output, until either ends or the time is over."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            accept_stream(link)
            process = start(argv, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL)
        timer = threading.Timer(timeout_s, hang_up, [link])
        timer.start()
        try:
            Relay(link, ours).run()
        except (LinkLostError, PlainEndedError):
            ours.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
        finally:
            timer.cancel()
            give_up(process)
