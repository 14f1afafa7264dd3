"""The TLS link between page source and page sink, authenticated on both sides by the cluster's CA."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from migrator.errors import ExecutionError, PeerError
from migrator.shim.order import PagerAddress

BUFFER_BYTES = 1 << 20
CONNECT_TIMEOUT_S = 5.0


def client_context(pki: Path) -> ssl.SSLContext:
    """Return the context with which a source calls a sink."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(pki / "ca.crt"))
    return _own_certificate(context, pki)


def server_context(pki: Path) -> ssl.SSLContext:
    """Return the context with which a sink takes a call."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki / "ca.crt"))
    context.verify_mode = ssl.CERT_REQUIRED
    return _own_certificate(context, pki)


def _own_certificate(context: ssl.SSLContext, pki: Path) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(pki / "host.crt", pki / "host.key")
    return context


def call(address: PagerAddress, pki: Path) -> ssl.SSLSocket:
    """Connect to a sink; raises `PeerError` when it cannot be reached or is not who it should be."""
    try:
        plain = socket.create_connection((address.address, address.port), timeout=CONNECT_TIMEOUT_S)
        tune(plain)
        link = client_context(pki).wrap_socket(plain, server_hostname=address.host)
    except OSError as error:
        raise PeerError(
            f"the pager of {address.host} at {address.address}:{address.port} cannot be reached: {error}",
            code="pager-unreachable",
            hint="open the pager's ports between the hosts",
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
    names = [value for part in subject for key, value in part if key == "commonName"]  # type: ignore[union-attr,misc]
    return str(names[0]) if names else ""


def tune(connection: socket.socket) -> None:
    """Answer faults at once, and notice a dead peer within about ten seconds."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 11_000)
