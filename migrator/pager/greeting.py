"""The first words on every link between a page source and a page sink, and the requests that follow.

A link begins with 64 bytes: this protocol's version, the migration's id and what the link is for, separated
and padded with spaces. On links of our own pager the sink then sends requests of 24 bytes, little endian:
what is wanted, the task's pid in its images, address, length. The source answers each, in order, with a
32-bit count of bytes and so many bytes; all ones instead of a count mean that this memory cannot be read.

- PAGES: exactly the memory asked for.
- HELD: which parts of that range hold something, as pairs of 64-bit start and end addresses, in order; the
  process never had, or has given back, all else, so it is not missing anywhere.
"""

from __future__ import annotations

import ssl
import struct

from migrator.errors import ExecutionError

VERSION = "lifeboat-pager/2"
GREETING_BYTES = 64
FAULTS, BULK, CRIU = "faults", "bulk", "criu"  # what a link is for
PAGES, HELD = 1, 2
REQUEST = struct.Struct("<IIQQ")
COUNT = struct.Struct("<I")
UNREADABLE = 0xFFFFFFFF
PAIR = struct.Struct("<QQ")


def greet(link: ssl.SSLSocket, migration: str, purpose: str) -> None:
    """Say what a link is for."""
    link.sendall(f"{VERSION} {migration} {purpose}".encode().ljust(GREETING_BYTES))


def read_greeting(link: ssl.SSLSocket) -> tuple[str, str]:
    """Return the migration and the purpose a caller names; both empty when it hangs up or speaks otherwise."""
    words = bytes(receive(link, bytearray(GREETING_BYTES))).decode("ascii", "replace").split()
    return (words[1], words[2]) if len(words) == 3 and words[0] == VERSION else ("", "")


def receive_answer(link: ssl.SSLSocket, buffer: memoryview, expected: int | None = None) -> memoryview:
    """Return the source's answer, of `expected` bytes if given; `buffer` is used when it is large enough.

    Raises `ConnectionError` when the link ends before, `ExecutionError` when the source cannot read that.
    """
    (count,) = COUNT.unpack(receive(link, bytearray(COUNT.size)))
    if count == UNREADABLE:
        raise ExecutionError("the source cannot read some of this memory", code="page-unreadable")
    if expected is not None and count != expected:
        raise ExecutionError(f"the source sent {count} bytes instead of {expected}", code="pager-protocol")
    return receive(link, buffer[:count] if count <= len(buffer) else bytearray(count))


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
