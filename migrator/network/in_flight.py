"""Carry along what was under way to a container when it froze, so that no client waits for a retransmission.

Between the freeze and the announcement packets still reach the source, where the gate drops them. Their senders
would repeat them 200 ms later and then after twice as long each time (RFC 6298, 5.5; TCP_RTO_MIN of Linux), so a
client of a switchover that takes a quarter of a second would wait for almost half a second. `Capture` keeps them
beside the gate, the commit carries them, and `replay` gives them to the restored container as if they came now. A
container that is given back where it was gets them there.

Only TCP is carried: to it a packet that comes late or twice is nothing new (RFC 9293, 3.4 and 3.10.7.4).
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from migrator.network.namespace import inside
from migrator.network.wire import MOST_BYTES, MOST_PACKETS, internet_checksum

ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
PACKET_HOST = 0  # include/uapi/linux/if_packet.h, like the next three
SOL_PACKET = 263
PACKET_AUXDATA = 8
TP_STATUS_CSUMNOTREADY = 1 << 3
SO_ATTACH_FILTER = 26  # include/uapi/asm-generic/socket.h
SO_RCVBUFFORCE = 33
AUXDATA_BYTES = 20  # struct tpacket_auxdata
LARGEST_BYTES = 1 << 16
BUFFER_BYTES = 1 << 20  # the kernel counts what a packet takes, not how long it is

LOAD_BYTE, LOAD_WORD, JUMP_EQUAL, RETURN = 0x30, 0x20, 0x15, 0x06  # include/uapi/linux/bpf_common.h
PACKET_TYPE = 0xFFFFF000 + 4  # SKF_AD_OFF + SKF_AD_PKTTYPE, include/uapi/linux/filter.h
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
PROTOCOL_AT = {ETH_P_IP: 9, ETH_P_IPV6: 6}  # RFC 791, 3.1 and RFC 8200, 3
TCP_CHECKSUM_AT = 16  # RFC 9293, 3.1
MORE_FRAGMENTS_OR_OFFSET = 0x3FFF

_libc = ctypes.CDLL(None, use_errno=True)


class Capture:
    """Packet sockets in a container's network namespace; they hear nothing before `begin`."""

    def __init__(self, namespace: Path) -> None:
        """Open the sockets; raises `OSError`."""
        self._stack = ExitStack()
        self._sockets: list[tuple[socket.socket, int]] = []
        with inside(namespace):
            for protocol in PROTOCOL_AT:
                opened = self._stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0))
                _only_tcp(opened, protocol)
                opened.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
                opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
                opened.setblocking(False)
                self._sockets.append((opened, protocol))

    def begin(self) -> None:
        """Keep from now on what comes on any interface."""
        for opened, protocol in self._sockets:
            address = struct.pack("=HHi12x", socket.AF_PACKET, socket.htons(protocol), 0)  # struct sockaddr_ll
            if _libc.bind(opened.fileno(), address, len(address)) != 0:
                raise OSError(ctypes.get_errno(), "packets cannot be captured")

    def packets(self) -> list[bytes]:
        """Return what came since it was asked last, from the IP header on, in the order in which it came."""
        found = []
        for opened, _ in self._sockets:
            with suppress(BlockingIOError):
                while True:
                    data, ancillary, _, _ = opened.recvmsg(LARGEST_BYTES, socket.CMSG_SPACE(AUXDATA_BYTES))
                    status = next((struct.unpack_from("=I", item)[0] for _, _, item in ancillary), 0)
                    found.append(whole(data, checksum_missing=bool(status & TP_STATUS_CSUMNOTREADY)))
        return list(within_limits(packet for packet in found if packet))

    def close(self) -> None:
        """Hear nothing any more."""
        self._stack.close()


def replay(namespace: Path, addresses: Iterable[str], packets: Iterable[bytes]) -> int:
    """Give a container that runs again what was meant for it; return how many packets that were.

    Only what is whole, TCP, and for one of these addresses (with or without prefix length) is taken. It is sent to
    the namespace's own address, and so comes through its loopback, whatever routes it has: also through a shut
    gate, so this is for after the decision. Raises `OSError`.
    """
    ours = {ipaddress.ip_interface(address).ip for address in addresses}
    taken = [packet for packet in within_limits(packets) if whole(packet, checksum_missing=False) == packet]
    done = 0
    with inside(namespace):
        for version, family in FAMILIES.items():
            with suppress(OSError), socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
                for packet in taken:
                    target = destination(packet)
                    if target in ours and target.version == version:
                        raw.sendto(packet, (str(target), 0))
                        done += 1
    return done


def as_words(packets: Iterable[bytes]) -> list[str]:
    """Return packets as they can stand in JSON: base64."""
    return [b64encode(packet).decode() for packet in packets]


def whole(packet: bytes, *, checksum_missing: bool) -> bytes | None:
    """Return a packet without padding and with its checksum; None when it is not one whole, right TCP packet.

    Between interfaces of one machine the checksum is left out (`checksum_missing`); the wire cannot have spoilt it.
    """
    found = _parts(packet)
    if found is None:
        return None
    header, pseudo, segment = found
    if len(segment) < TCP_CHECKSUM_AT + 4:
        return None
    if internet_checksum(pseudo + segment) != 0:
        if not checksum_missing:
            return None
        bare = segment[:TCP_CHECKSUM_AT] + b"\0\0" + segment[TCP_CHECKSUM_AT + 2 :]
        right = struct.pack("!H", internet_checksum(pseudo + bare))
        segment = segment[:TCP_CHECKSUM_AT] + right + segment[TCP_CHECKSUM_AT + 2 :]
    return header + segment


def destination(packet: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return to whom a whole packet is addressed."""
    return ipaddress.ip_address(packet[16:20] if packet[0] >> 4 == 4 else packet[24:40])


def within_limits(packets: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the first packets, as many as are carried."""
    left = MOST_BYTES
    for number, packet in enumerate(packets):
        left -= len(packet)
        if number == MOST_PACKETS or left < 0:
            return
        yield packet


def _parts(packet: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Return the IP header, the pseudo header of its TCP checksum (RFC 9293, 3.1), and the segment."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        length, end = (packet[0] & 15) * 4, struct.unpack_from("!H", packet, 2)[0]
        fragment = struct.unpack_from("!H", packet, 6)[0] & MORE_FRAGMENTS_OR_OFFSET
        addresses, protocol = packet[12:20], packet[9]
        if length < 20 or fragment:
            return None
    elif version == 6 and len(packet) >= 40:
        length, end = 40, 40 + struct.unpack_from("!H", packet, 4)[0]
        addresses, protocol = packet[8:40], packet[6]
    else:
        return None
    if protocol != socket.IPPROTO_TCP or not length < end <= len(packet):
        return None
    pseudo = addresses + struct.pack("!II", end - length, socket.IPPROTO_TCP)
    return packet[:length], pseudo, packet[length:end]


def _only_tcp(opened: socket.socket, protocol: int) -> None:
    """Let the kernel keep only TCP that was sent to this host (a classic BPF filter)."""
    code = [
        (LOAD_BYTE, 0, 0, PROTOCOL_AT[protocol]),
        (JUMP_EQUAL, 0, 3, socket.IPPROTO_TCP),
        (LOAD_WORD, 0, 0, PACKET_TYPE),
        (JUMP_EQUAL, 0, 1, PACKET_HOST),
        (RETURN, 0, 0, LARGEST_BYTES),
        (RETURN, 0, 0, 0),
    ]
    packed = b"".join(struct.pack("=HBBI", *step) for step in code)
    program = ctypes.create_string_buffer(packed, len(packed))
    opened.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(code), ctypes.addressof(program)))
