"""Links between hosts: TLS 1.3, authenticated on both sides by the cluster's own authority."""

from __future__ import annotations

import socket
import ssl
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

from migrator.errors import ExecutionError, NotAllowedError, PeerError
from migrator.peers.identity import Identity, RollFile, check_certificate, check_member, identity

BUFFER_BYTES = 1 << 20
CONNECT_TIMEOUT_S = 5.0
HANDSHAKE_S = 5.0
OWN = "host.pem"
"""A host's key and certificate in one file, so that both change at once."""


def client_context(pki: Path) -> ssl.SSLContext:
    """Return the context with which a host calls another."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(pki / "ca.crt"))
    return _own_certificate(context, pki)


def server_context(pki: Path) -> ssl.SSLContext:
    """Return the context with which a host takes a call."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki / "ca.crt"))
    context.verify_mode = ssl.CERT_REQUIRED
    return _own_certificate(context, pki)


def _own_certificate(context: ssl.SSLContext, pki: Path) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(pki / OWN)
    return context


def call(host: str, address: str, port: int, pki: Path) -> ssl.SSLSocket:
    """Connect to a peer; raises `PeerError` when it cannot be reached or is not who it should be."""
    try:
        plain = socket.create_connection((address, port), timeout=CONNECT_TIMEOUT_S)
        tune(plain)
        link = client_context(pki).wrap_socket(plain, server_hostname=host)
        check_called(link, pki)
    except OSError as error:
        raise PeerError(
            f"{host} cannot be reached at {address} port {port}: {error}",
            code="peer-unreachable",
            hint="is lifeboatd running there, and the port open between the hosts?",
            temporary=True,
        ) from error
    link.settimeout(None)
    return link


def listen(ports: tuple[int, int]) -> socket.socket:
    """Listen on the first free port of a range, on all addresses of this host."""
    for port in range(ports[0], ports[1] + 1):
        listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("::", port))
        except OSError:
            listener.close()
            continue
        listener.listen(16)
        return listener
    raise ExecutionError(
        f"no free port from {ports[0]} to {ports[1]} for a pager",
        code="no-pager-port",
        hint="widen migrator.pager_ports",
        temporary=True,
    )


def welcome(plain: socket.socket, context: ssl.SSLContext, pki: Path) -> tuple[ssl.SSLSocket, Identity]:
    """Take one call that was accepted, within `HANDSHAKE_S` in all; return the link and who calls.

    Raises `OSError` or `NotAllowedError`, with the connection closed, for whoever is no host of the cluster.
    """
    plain.settimeout(HANDSHAKE_S)
    tune(plain)
    try:
        link = context.wrap_socket(plain, server_side=True)
    except (OSError, ValueError):
        plain.close()
        raise
    try:
        who = identity(link.getpeercert())
        check_member(who, RollFile(pki.parent).known)
    except NotAllowedError:
        link.close()
        raise
    return link, who


def check_called(link: ssl.SSLSocket, pki: Path) -> None:
    """Raise `OSError` when the host we called shows a certificate that was revoked."""
    try:
        check_certificate(identity(link.getpeercert()), RollFile(pki.parent).known)
    except NotAllowedError as error:
        link.close()
        raise OSError(error.message) from error


def hang_up(link: ssl.SSLSocket) -> None:
    """End a link that another thread may be using: only its connection, never OpenSSL's state."""
    with suppress(OSError):
        socket.socket.shutdown(link, socket.SHUT_RDWR)


class Door:
    """Counts callers who have not said yet who they are, so that nobody holds the door shut for others."""

    def __init__(self, most: int = 256, most_of_one: int = 16) -> None:
        """Let in `most` at a time, and `most_of_one` from one address."""
        self._most, self._most_of_one = most, most_of_one
        self._waiting: Counter[str] = Counter()
        self._lock = threading.Lock()

    def enter(self, address: str) -> bool:
        """Let a caller in, or say that there is no room."""
        with self._lock:
            full = self._waiting.total() >= self._most or self._waiting[address] >= self._most_of_one
            if not full:
                self._waiting[address] += 1
            return not full

    def leave(self, address: str) -> None:
        """The caller has said who it is, or is gone."""
        with self._lock:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]


def tune(connection: socket.socket) -> None:
    """Answer faults at once, and notice a dead peer within about ten seconds."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 11_000)
