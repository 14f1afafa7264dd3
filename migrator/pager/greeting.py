"""The first words on every link between a page source and a page sink, and the requests that follow.

A link begins with 64 bytes: the migration's id, what the link is for, padded with spaces. On links of our
own pager the sink then sends requests of 16 bytes (task's pid in its images, length, address, little
endian), and the source answers each, in order, with exactly so many bytes of that task's memory.
"""

from __future__ import annotations

import ssl
import struct

GREETING_BYTES = 64
FAULTS, BULK, CRIU = "faults", "bulk", "criu"  # what a link is for
REQUEST = struct.Struct("<IIQ")


def greet(link: ssl.SSLSocket, migration: str, purpose: str) -> None:
    """Say what a link is for."""
    link.sendall(f"{migration} {purpose}".encode().ljust(GREETING_BYTES))


def read_greeting(link: ssl.SSLSocket) -> tuple[str, str]:
    """Return the migration and the purpose a caller names; both empty when it hangs up."""
    words = bytes(receive(link, bytearray(GREETING_BYTES))).decode("ascii", "replace").split()
    return (words[0], words[1]) if len(words) == 2 else ("", "")


def receive(link: ssl.SSLSocket, into: bytearray | memoryview) -> memoryview:
    """Fill a buffer from a link; raises `ConnectionError` when the link ends before."""
    view = memoryview(into)
    done = 0
    while done < len(view):
        count = link.recv_into(view[done:])
        if not count:
            raise ConnectionError("the other side hung up")
        done += count
    return view
