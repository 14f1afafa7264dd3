"""Links between hosts: TLS 1.3, authenticated on both sides by the cluster's own authority."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from migrator.errors import ExecutionError, PeerError

BUFFER_BYTES = 1 << 20
CONNECT_TIMEOUT_S = 5.0


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
    context.load_cert_chain(pki / "host.crt", pki / "host.key")
    return context


def call(host: str, address: str, port: int, pki: Path) -> ssl.SSLSocket:
    """Connect to a peer; raises `PeerError` when it cannot be reached or is not who it should be."""
    try:
        plain = socket.create_connection((address, port), timeout=CONNECT_TIMEOUT_S)
        tune(plain)
        link = client_context(pki).wrap_socket(plain, server_hostname=host)
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
        listener.listen(2)
        return listener
    raise ExecutionError(
        f"no free port from {ports[0]} to {ports[1]} for a pager",
        code="no-pager-port",
        hint="widen migrator.pager_ports",
        temporary=True,
    )


def accept(listener: socket.socket, context: ssl.SSLContext, caller: str) -> ssl.SSLSocket | None:
    """Take one call; None when the caller is not the host it should be, or does not finish the handshake."""
    plain, _ = listener.accept()
    plain.settimeout(CONNECT_TIMEOUT_S)
    tune(plain)
    try:
        link = context.wrap_socket(plain, server_side=True)
    except OSError:
        plain.close()
        return None
    if peer_name(link) != caller:
        link.close()
        return None
    link.settimeout(None)
    return link


def peer_name(link: ssl.SSLSocket) -> str:
    """Return the host name in the certificate of the other side."""
    certificate = link.getpeercert() or {}
    subject = certificate.get("subject", ())
    for part in subject:
        for pair in part:
            if isinstance(pair, tuple) and pair[0] == "commonName":
                return str(pair[1])
    return ""


def tune(connection: socket.socket) -> None:
    """Answer faults at once, and notice a dead peer within about ten seconds."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 11_000)
