"""Packets that are carried along: which are, and that a container takes them as if they came from the network."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrator.network.in_flight import (
    Capture,
    as_words,
    destination,
    replay,
    whole,
    within_limits,
)
from migrator.network.wire import MOST_BYTES, MOST_PACKETS, internet_checksum
from migrator.protocol.messages import InFlight

OURS, OURS_6, CLIENT, CLIENT_6 = "192.0.2.7", "2001:db8::7", "192.0.2.1", "2001:db8::1"
SYN = 0x02


def tcp(source: str, target: str, ports: tuple[int, int], payload: bytes = b"") -> bytes:
    """Return a packet with everything right."""
    here, there = (ipaddress.ip_address(address).packed for address in (source, target))
    segment = struct.pack("!HHIIBBHHH", *ports, 1, 0, 5 << 4, SYN, 1000, 0, 0) + payload
    pseudo = here + there + struct.pack("!II", len(segment), socket.IPPROTO_TCP)
    segment = segment[:16] + struct.pack("!H", internet_checksum(pseudo + segment)) + segment[18:]
    if len(here) == 16:
        return struct.pack("!IHBB", 6 << 28, len(segment), socket.IPPROTO_TCP, 64) + here + there + segment
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0, 64, socket.IPPROTO_TCP, 0) + here + there
    return head[:10] + struct.pack("!H", internet_checksum(head)) + head[12:] + segment


@pytest.mark.parametrize(("source", "target"), [(CLIENT, OURS), (CLIENT_6, OURS_6)])
def test_only_whole_and_right_packets_are_carried(source: str, target: str) -> None:
    packet = tcp(source, target, (5, 80), b"question")
    assert whole(packet, checksum_missing=False) == packet
    assert str(destination(packet)) == target
    assert whole(packet + bytes(6), checksum_missing=False) == packet  # padded, as short frames are
    spoilt = packet[:-1] + b"!"
    assert whole(spoilt, checksum_missing=False) is None
    bare = packet[: -len(b"question") - 4] + b"\0\0" + packet[-len(b"question") - 2 :]
    assert whole(bare, checksum_missing=True) == packet  # its sender left that to the interface
    for length in range(len(packet)):
        assert whole(packet[:length], checksum_missing=False) is None


def test_fragments_and_other_protocols_are_not_carried() -> None:
    packet = tcp(CLIENT, OURS, (5, 80))
    for offset, value in ((9, socket.IPPROTO_UDP), (6, 0x20), (7, 1), (0, 0x44), (0, 0x50)):
        changed = bytearray(packet)
        changed[offset] = value
        assert whole(bytes(changed), checksum_missing=True) is None, offset


def test_there_is_a_limit() -> None:
    assert len(list(within_limits([b"x"] * (2 * MOST_PACKETS)))) == MOST_PACKETS
    assert sum(map(len, within_limits([bytes(60_000)] * 20))) <= MOST_BYTES
    packets = [tcp(CLIENT, OURS, (5, 80), bytes(100))] * 3
    told = InFlight.model_validate_json(InFlight(packets=as_words(packets)).model_dump_json())  # type: ignore[arg-type]
    assert list(told.packets) == packets
    with pytest.raises(ValueError, match="more than"):
        InFlight(packets=as_words([bytes(60_000)] * 5))  # type: ignore[arg-type]


class Network:
    """Two network namespaces joined by a cable: a container's, and a client's."""

    def __init__(self) -> None:
        self.container, self.client = (f"in-flight-{os.getpid()}-{end}" for end in ("container", "client"))

    def build(self) -> None:
        """Make both."""
        for name in (self.container, self.client):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", self.client, "link", "add", "eth0", "type", "veth", "peer", "eth0", "netns", self.container)
        for name, addresses in ((self.container, (OURS, OURS_6)), (self.client, (CLIENT, CLIENT_6))):
            run("ip", "-n", name, "link", "set", "eth0", "up")
            for address in addresses:
                give_address(name, address)

    def remove(self) -> None:
        """Remove both."""
        for name in (self.container, self.client):
            subprocess.run(["ip", "netns", "delete", name], check=False)

    def inside(self, name: str, *argv: str) -> subprocess.Popen[str]:
        """Start a program in one of them."""
        return subprocess.Popen(
            ["ip", "netns", "exec", name, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def namespace(self) -> Path:
        """Return the container's namespace."""
        return Path("/run/netns") / self.container


def give_address(namespace: str, address: str) -> None:
    """Let an interface have an address."""
    length = ["64", "nodad"] if ":" in address else ["24"]
    run("ip", "-n", namespace, "address", "add", f"{address}/{length[0]}", "dev", "eth0", *length[1:])


def run(*argv: str) -> None:
    """Run a command that must do."""
    subprocess.run(argv, check=True)


@pytest.fixture
def network() -> Iterator[Network]:
    """Two namespaces."""
    found = Network()
    try:
        found.build()
        yield found
    finally:
        found.remove()


SERVER = """
import socket
server = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
print("listening", flush=True)
while True:
    link, _ = server.accept()
    link.sendall(link.recv(100)[::-1])
"""

CLIENT_PROGRAM = """
import socket, sys
link = socket.create_connection((sys.argv[1], 80), 60)
print("connected", flush=True)
sys.stdin.readline()
link.sendall(b"question")
print(link.recv(100).decode(), flush=True)
"""


@pytest.mark.parametrize("address", [OURS, OURS_6])
def test_what_the_gate_dropped_is_given_to_the_container(network: Network, address: str) -> None:
    """A request that came while the gate was shut is answered without being repeated: that would take 30 s."""
    route = ["ip", "-n", network.client, "route", "replace", f"{address}", "dev", "eth0", "rto_min", "30s"]
    run(*(route if address == OURS else [*route[:3], "-6", *route[3:]]))
    server = network.inside(network.container, "python3", "-c", SERVER)
    client = None
    capture = Capture(network.namespace)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        client = network.inside(network.client, "python3", "-c", CLIENT_PROGRAM, address)
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == "connected\n"
        capture.begin()
        run("ip", "-n", network.container, "address", "flush", "dev", "eth0")  # deaf, as behind the gate
        client.stdin.write("\n")
        client.stdin.flush()
        packets: list[bytes] = []
        while not packets:
            packets = capture.packets()
        for known in (OURS, OURS_6):
            give_address(network.container, known)
        assert replay(network.namespace, ["192.0.2.99"], packets) == 0  # not for us
        assert replay(network.namespace, [f"{OURS}/24", OURS_6], packets) == len(packets)
        assert client.stdout.readline() == "noitseuq\n"
        counters, _ = network.inside(network.client, "cat", "/proc/net/snmp").communicate()
        names, values = (line.split() for line in counters.splitlines() if line.startswith("Tcp:"))
        assert values[names.index("RetransSegs")] == "0"
    finally:
        capture.close()
        for program in (server, client):
            if program is not None:
                program.kill()
                program.communicate()
