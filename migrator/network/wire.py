"""What all packets have in common, and how many of them are carried along (migrator.network.in_flight)."""

from __future__ import annotations

import struct

MOST_PACKETS = 256
MOST_BYTES = 256 << 10
"""More than this is left to retransmission; what is lost behind the first is repeated soon: TCP sees the gap."""


def internet_checksum(data: bytes) -> int:
    """Return the checksum of RFC 1071; 0 for data that holds its own right one."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
