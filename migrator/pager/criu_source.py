"""What holds the frozen tree: CRIU's page server, and how its only connection ends.

From criu/page-xfer.c (`page_server_serve`): an unknown command makes the server fail, and then CRIU lets
the tree go, as does a header that ends too early; the end of the stream between two commands counts as success, and
then CRIU kills the tree. So the sink's hanging up never reaches CRIU, and `CriuHold.arm` sends the beginning of a
header at once: whatever ends the connection then, the death of our own program too, lets the tree go.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path

from migrator.errors import ExecutionError
from migrator.pager.greeting import CRIU, greet
from migrator.pager.links import TlsLink
from migrator.peers.relay import LinkLostError, PlainEndedError, Relay
from migrator.peers.tls import call
from migrator.shim.order import PagerAddress

NO_SUCH_COMMAND = struct.pack("<I", 0xFFFF) + b"\0" * 60
"""Longer than any `struct page_server_iov` (24 bytes up to CRIU 4.1, 32 from 4.2), so it is read whole."""

_log = logging.getLogger("shim")


class CriuHold:
    """The one connection to CRIU's page server."""

    def __init__(self) -> None:
        self._server: socket.socket | None = None

    def take(self, port: int) -> socket.socket:
        """Connect to the page server on the loopback of the calling thread's network namespace."""
        try:
            self._server = socket.create_connection(("127.0.0.1", port), timeout=5)
        except OSError as error:
            raise ExecutionError(f"CRIU's page server does not answer: {error}", code="no-page-server") from error
        self._server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._server

    def arm(self) -> None:
        """Let CRIU take every end of the connection for a failure; nothing can be asked of it any more."""
        if self._server is not None:
            self._server.sendall(NO_SUCH_COMMAND[:1])

    def finish(self) -> None:
        """End CRIU's dump well: it kills the tree. Only after the sink said that it has everything, and unarmed."""
        if self._server is not None:
            with suppress(OSError):
                self._server.shutdown(socket.SHUT_RDWR)

    def fail(self) -> None:
        """End CRIU's dump badly: it lets the tree go (into the frozen cgroup)."""
        if self._server is None:
            return
        try:
            self._server.setblocking(True)
            self._server.sendall(NO_SUCH_COMMAND)
            self._server.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            _log.info("the page server is gone already: %s", error)


class PageServerSession:
    """One drain by CRIU's own page server, seen from the source."""

    def __init__(self, address: PagerAddress, pki: Path, migration: str) -> None:
        """Call the sink now, while the container runs, so that nothing of this is in the freeze."""
        self._link = call(address.host, address.address, address.port, pki)
        greet(TlsLink(self._link), migration, address.secret, CRIU)
        self._hold = CriuHold()
        self._relay: Relay | None = None
        self.lost = False

    @property
    def sent_bytes(self) -> int:
        """Return how much has gone to the sink."""
        return self._relay.sent_bytes if self._relay else 0

    def start(self, port: int, _pids: tuple[int, ...]) -> None:
        """Join the page server to the sink."""
        server = self._hold.take(port)
        # A second descriptor keeps the connection to CRIU open when the relay ends on its own.
        self._relay = Relay(self._link, socket.socket(fileno=os.dup(server.fileno())))
        threading.Thread(target=self._carry, daemon=True).start()

    def finish(self) -> None:
        """See `CriuHold.finish`."""
        self._hold.finish()

    def fail(self) -> None:
        """See `CriuHold.fail`."""
        self._hold.fail()

    def _carry(self) -> None:
        assert self._relay is not None  # noqa: S101  started by start()
        try:
            self._relay.run()
        except LinkLostError as error:
            self.lost = True
            _log.warning("the link to the sink ended: %s", error)
        except PlainEndedError as error:
            _log.info("the page server ended: %s", error)
