"""Announce a moved address: gratuitous ARP (RFC 5227) and unsolicited neighbour advertisement (RFC 4861).

Neighbours and switches learn at once where the address lives now. Without it a stale neighbour entry
makes the container unreachable for minutes. The sockets are opened before the commit, inside the
container's network namespace, so that announcing costs one `send` each. As a program,
`python -m migrator.network.announce NAMESPACE ATTACHMENT...` (JSON), it announces once and ends.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from migrator.model import NetworkAttachment
from migrator.network.namespace import inside
from migrator.network.wire import internet_checksum

ETH_P_ARP = 0x0806
ETH_P_IPV6 = 0x86DD
BROADCAST = b"\xff" * 6
ALL_NODES_MAC = bytes.fromhex("333300000001")
ALL_NODES = ipaddress.IPv6Address("ff02::1").packed
ICMPV6_NEIGHBOUR_ADVERTISEMENT = 136
OVERRIDE = 0x20000000  # RFC 4861, 4.4: override an existing cache entry
TARGET_LINK_LAYER_ADDRESS = 2


@dataclass(frozen=True)
class Announcement:
    """One frame to send on one interface of a network namespace."""

    interface: str
    frame: bytes


class Announcer:
    """Raw sockets in a container's network namespace, ready to announce its addresses."""

    def __init__(self, namespace: Path, announcements: tuple[Announcement, ...]) -> None:
        self._stack = ExitStack()
        self._ready: list[tuple[socket.socket, bytes]] = []
        with inside(namespace):
            for announcement in announcements:
                raw = self._stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
                raw.bind((announcement.interface, 0))
                self._ready.append((raw, announcement.frame))

    def announce(self) -> None:
        """Send every frame once."""
        for raw, frame in self._ready:
            raw.send(frame)

    def close(self) -> None:
        """Give the sockets back."""
        self._stack.close()


def of_networks(networks: Iterable[NetworkAttachment]) -> tuple[Announcement, ...]:
    """Return the frames that announce all of a container's addresses."""
    return tuple(
        frame for network in networks for frame in announcements(network.interface, network.mac, network.addresses)
    )


def announcements(interface: str, mac: str, addresses: tuple[str, ...]) -> tuple[Announcement, ...]:
    """Return the frames that announce `addresses` (with or without prefix length) as living at `mac`."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    frames = []
    for text in addresses:
        address = ipaddress.ip_interface(text).ip
        if isinstance(address, ipaddress.IPv4Address):
            frames += [_arp(hardware, address, operation) for operation in (1, 2)]
        else:
            frames.append(_neighbour_advertisement(hardware, address))
    return tuple(Announcement(interface, frame) for frame in frames)


def _arp(hardware: bytes, address: ipaddress.IPv4Address, operation: int) -> bytes:
    """Build a gratuitous ARP request (1) or reply (2); some neighbours heed only one of them."""
    ethernet = BROADCAST + hardware + struct.pack("!H", ETH_P_ARP)
    target = BROADCAST if operation == 2 else b"\0" * 6
    fixed = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return ethernet + fixed + hardware + address.packed + target + address.packed


def _neighbour_advertisement(hardware: bytes, address: ipaddress.IPv6Address) -> bytes:
    body = struct.pack("!BBHI", ICMPV6_NEIGHBOUR_ADVERTISEMENT, 0, 0, OVERRIDE) + address.packed
    body += struct.pack("!BB", TARGET_LINK_LAYER_ADDRESS, 1) + hardware
    pseudo = address.packed + ALL_NODES + struct.pack("!I3xB", len(body), socket.IPPROTO_ICMPV6)
    body = body[:2] + struct.pack("!H", internet_checksum(pseudo + body)) + body[4:]
    header = struct.pack("!IHBB", 0x60000000, len(body), socket.IPPROTO_ICMPV6, 255)
    return ALL_NODES_MAC + hardware + struct.pack("!H", ETH_P_IPV6) + header + address.packed + ALL_NODES + body


def main(arguments: Sequence[str]) -> int:
    """Announce what lives in a namespace."""
    namespace, *attachments = arguments
    announcer = Announcer(Path(namespace), of_networks(map(NetworkAttachment.model_validate_json, attachments)))
    announcer.announce()
    announcer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
