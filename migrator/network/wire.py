"""What all packets have in common."""

from __future__ import annotations

import struct


def internet_checksum(data: bytes) -> int:
    """Return the checksum of RFC 1071; 0 for data that holds its own right one."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
