"""The page source: joins CRIU's page server to the TLS link, and alone decides how it ends.

From criu/page-xfer.c (`page_server_serve`): an unknown command makes the server fail, and then CRIU lets
the tree go; the end of the stream counts as success, and then CRIU kills the tree. So this end of the
link never passes the sink's hanging up on to CRIU.
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
from migrator.peers.relay import LinkLostError, PlainEndedError, Relay
from migrator.peers.tls import call
from migrator.shim.order import PagerAddress

NO_SUCH_COMMAND = struct.pack("<I", 0xFFFF) + b"\0" * 60
"""Longer than any `struct page_server_iov` (24 bytes up to CRIU 4.1, 32 from 4.2), so it is read whole."""

GREETING_BYTES = 64  # the migration's id, padded with spaces

_log = logging.getLogger("shim")


class PageServerSession:
    """One drain, seen from the source."""

    def __init__(self, address: PagerAddress, pki: Path, migration: str) -> None:
        """Call the sink now, while the container runs, so that nothing of this is in the freeze."""
        self._link = call(address.host, address.address, address.port, pki)
        self._link.sendall(migration.encode().ljust(GREETING_BYTES))
        self._server: socket.socket | None = None
        self._relay: Relay | None = None
        self.lost = False

    @property
    def sent_bytes(self) -> int:
        """Return how much has gone to the sink."""
        return self._relay.sent_bytes if self._relay else 0

    def start(self, port: int) -> None:
        """Connect to CRIU's page server on the loopback of the calling thread's namespace, and relay."""
        try:
            self._server = socket.create_connection(("127.0.0.1", port), timeout=5)
        except OSError as error:
            raise ExecutionError(f"CRIU's page server does not answer: {error}", code="no-page-server") from error
        self._server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A second descriptor keeps the connection to CRIU open when the relay ends on its own.
        self._relay = Relay(self._link, socket.socket(fileno=os.dup(self._server.fileno())))
        threading.Thread(target=self._carry, daemon=True).start()

    def finish(self) -> None:
        """End CRIU's dump well: it kills the tree. Only after the sink said that it has everything."""
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

    def _carry(self) -> None:
        assert self._relay is not None  # noqa: S101  started by start()
        try:
            self._relay.run()
        except LinkLostError as error:
            self.lost = True
            _log.warning("the link to the sink ended: %s", error)
        except PlainEndedError as error:
            _log.info("the page server ended: %s", error)
