"""The links between a page source and a page sink: TLS by C or by Python, or plain where an admin wants that.

All kinds carry the same bytes: whoever calls and whoever is called need not have the same kind of TLS. A link
is used by one thread at a time; only `hang_up` may come from another.
"""

from __future__ import annotations

import socket
import ssl
import struct
from pathlib import Path
from typing import Protocol

from migrator.errors import ExecutionError, NotAllowedError, PeerError
from migrator.pager import native
from migrator.peers.identity import Identity, RollFile, check_certificate, check_member
from migrator.peers.tls import CONNECT_TIMEOUT_S, HANDSHAKE_S, OWN, call, server_context, tune, welcome

PRIORITY_INTERACTIVE = 6  # TC_PRIO_INTERACTIVE, include/uapi/linux/pkt_sched.h


class Link(Protocol):
    """One link."""

    @property
    def socket(self) -> socket.socket:
        """The connection below it."""

    @property
    def handle(self) -> int:
        """The C part's own name for it; raises `ExecutionError` where that was not built."""

    def receive(self, into: memoryview) -> None:
        """Fill a buffer; raises `OSError` when the link ends before."""

    def send(self, data: memoryview) -> None:
        """Send a writable buffer; raises `OSError`."""

    def hang_up(self) -> None:
        """End it; whoever waits for it gets an `OSError`."""

    def settle(self) -> None:
        """The other side is known: wait for it as long as it takes."""

    def close(self) -> None:
        """Let go of it, when nobody uses it any more."""


class SocketLink:
    """A link by Python's own sockets, plain or TLS."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._native: native.Native | None = None

    @property
    def handle(self) -> int:
        """See `Link`."""
        if self._native is None:
            self._native = native.Native(self.socket)
        return self._native.handle

    def receive(self, into: memoryview) -> None:
        """See `Link`."""
        done = 0
        while done < len(into):
            count = self.socket.recv_into(into[done:])
            if not count:
                raise ConnectionError("the other side hung up")
            done += count

    def send(self, data: memoryview) -> None:
        """See `Link`."""
        self.socket.sendall(data)

    def hang_up(self) -> None:
        """See `Link`."""
        _shut_down(self.socket)

    def settle(self) -> None:
        """See `Link`."""
        self.socket.settimeout(None)

    def close(self) -> None:
        """See `Link`."""
        self.socket.close()


class TlsLink(SocketLink):
    """A link by Python's own TLS."""

    socket: ssl.SSLSocket

    @property
    def handle(self) -> int:
        """There is none: the C part would speak without TLS."""
        raise ExecutionError("this link is Python's own", code="not-native")


class NativeLink:
    """A link by TLS in C, which takes and gives large pieces."""

    def __init__(self, connection: socket.socket, pki: Path, host: str | None) -> None:
        """Shake hands with `host`, or, with None, with whoever has called. Raises `ConnectionError`."""
        self.socket = connection
        connection.settimeout(None)  # OpenSSL in C sees the descriptor as it is
        self._limit(HANDSHAKE_S)
        self._tls = native.Native.by_tls(connection, pki / OWN, pki / "ca.crt", host)
        self.peer, self.handle = self._tls.peer, self._tls.handle
        self.receive, self.send = self._tls.receive, self._tls.send

    def hang_up(self) -> None:
        """See `Link`."""
        _shut_down(self.socket)

    def settle(self) -> None:
        """See `Link`."""
        self._limit(0)

    def close(self) -> None:
        """See `Link`."""
        self.socket.close()

    def _limit(self, seconds: float) -> None:
        """Let no system call on the socket take longer; 0 is no limit."""
        limit = struct.pack("ll", int(seconds), 0)  # struct timeval
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self.socket.setsockopt(socket.SOL_SOCKET, option, limit)


def call_link(host: str, address: str, port: int, pki: Path, *, plain: bool = False) -> Link:
    """Call a page sink; the link is limited in time until it is settled.

    Raises `PeerError` when it cannot be reached or is not who it should be.
    """
    connection: socket.socket | None = None
    try:
        if not plain and not native.BUILT:
            return TlsLink(call(host, address, port, pki))
        connection = _connect(address, port)
        return SocketLink(connection) if plain else _called(connection, host, pki)
    except OSError as error:
        if connection is not None:
            connection.close()
        raise PeerError(
            f"the page sink on {host} cannot be reached at {address} port {port}: {error}",
            code="sink-unreachable",
            hint="is the port (migrator.pager_ports there) open between the hosts?",
            temporary=True,
        ) from error


def welcome_link(
    caller: socket.socket, pki: Path, plain_caller: Identity | None = None, *, pure: bool
) -> tuple[Link, Identity]:
    """Take one call that was accepted; return the link, limited in time until it is settled, and who calls.

    With `pure` the link is a `TlsLink`. A plain caller shows no certificate, only the migration's secret in its
    greeting, and is taken for `plain_caller`. Raises `OSError` or `NotAllowedError`.
    """
    tune(caller)
    if plain_caller is not None:
        caller.settimeout(HANDSHAKE_S)
        return SocketLink(caller), plain_caller
    if pure or not native.BUILT:
        wrapped, who = welcome(caller, server_context(pki), pki)
        return TlsLink(wrapped), who
    link = NativeLink(caller, pki, None)
    check_member(link.peer, RollFile(pki.parent).known)
    return link, link.peer


def prefer(link: Link) -> None:
    """Let what a link sends pass what waits in this host's queues."""
    link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, PRIORITY_INTERACTIVE)


def _connect(address: str, port: int) -> socket.socket:
    connection = socket.create_connection((address, port), timeout=CONNECT_TIMEOUT_S)
    tune(connection)
    return connection


def _called(connection: socket.socket, host: str, pki: Path) -> Link:
    """Shake hands with the host we have called."""
    link = NativeLink(connection, pki, host)
    try:
        check_certificate(link.peer, RollFile(pki.parent).known)
    except NotAllowedError as error:
        raise ConnectionError(error.message) from error
    return link


def _shut_down(connection: socket.socket) -> None:
    try:
        # Not SSLSocket's own: that one takes the TLS away from under a thread that is reading.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        return  # it is at its end already
