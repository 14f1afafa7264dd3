"""Clusters on loopback for tests: real certificates, real TLS, nothing else of a host."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fastapi import APIRouter, FastAPI

from migrator.model import HostFacts, NetworkFacts
from migrator.peers import membership
from migrator.peers.membership import PeerDirectory
from migrator.peers.roll import Peer, Roll
from migrator.peers.server import PeerServer, build_app
from migrator.peers.tls import client_context
from watchdog.daemon.peering import authority_routes, newcomer_routes

LOOPBACK = "127.0.0.1"
GIB = 1 << 30


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        return int(listener.getsockname()[1])


def host_facts(name: str) -> HostFacts:
    """Return the facts of a healthy host."""
    return HostFacts(
        host=name, at=0, version="1", architecture="x86_64", kernel="6.12", cpu_model="c", cpu_flags=("sse",),
        criu="4.2.1", runc="1.1.15", podman="5.4.2", memory_bytes=16 * GIB, memory_available_bytes=8 * GIB,
        disk_available_bytes=100 * GIB, networks=(NetworkFacts(name="lan", driver="macvlan"),),
    )  # fmt: skip  # one line of facts is enough


def make_cluster(place: Path, *names: str) -> list[PeerDirectory]:
    """Make a cluster of hosts, the first of which holds the authority; all know all."""
    first, *others = names
    founder = membership.init(place / first, first, LOOPBACK)
    for name in others:
        membership.join(place / name, membership.invite(place / first, name, LOOPBACK))
    found = [PeerDirectory(place / name) for name in names]
    for members in found:
        members.learn(founder.roll)
    return found


def listening(members: PeerDirectory, port: int, stream_port: int | None = None) -> Peer:
    """Put a host on other ports, in the roll of the authority that is beside it; return how it is called now."""
    own = members.peer(members.host)
    moved = own.model_copy(update={"port": port, "stream_port": stream_port or own.stream_port})
    founder = PeerDirectory(members.directory.parent / members.roll.authority)

    def change(roll: Roll) -> Roll:
        others = tuple(peer for peer in roll.peers if peer.name != moved.name)
        return roll.model_copy(update={"peers": (*others, moved)})

    roll = founder.amend(change)
    for directory in members.directory.parent.iterdir():
        if (directory / "peers.json").exists():
            PeerDirectory(directory).learn(roll)
    return moved


@contextmanager
def serving(members: PeerDirectory, *routers: APIRouter, app: FastAPI | None = None) -> Iterator[Peer]:
    """Serve a host's peer API with everything about the roll in it, and these routes."""
    peer = listening(members, free_port())
    name = members.host
    built = app or build_app(
        lambda: host_facts(name), authority_routes(members), *routers, newcomers=[newcomer_routes(members)]
    )
    server = PeerServer(built, members.pki, LOOPBACK, peer.port)
    server.start()
    try:
        yield peer
    finally:
        server.stop()


def connect(
    caller: PeerDirectory, peer: Peer, port: int | None = None, greeting: Sequence[bytes] = ()
) -> ssl.SSLSocket:
    """Open a link to a port of a host, as another host would."""
    plain = socket.create_connection((peer.address, port or peer.port), timeout=10)
    link = client_context(caller.pki).wrap_socket(plain, server_hostname=peer.name)
    for words in greeting:
        link.sendall(words)
    return link
