"""The first words on every link between a page source and a page sink, and the requests that follow.

A link begins with 128 bytes from the source: this protocol's version, the migration's id, the migration's secret
and what the link is for, separated and padded with spaces. The sink answers with as many: the version it
speaks and `welcome`, or why not. That much is the same in every version.

On links of our own pager the sink then sends requests of 24 bytes, little endian: what is wanted, the
task's pid in its images, address, length. The source answers each, in order, as described in `packing`.

- PAGES: the memory asked for, of at most `MOST_PAGES` pages.
- HELD: which parts of that range hold something, as pairs of 64-bit start and end addresses, in order, with small
  holes taken in; the process never had, or has given back, all else, so it is not missing anywhere.
"""

from __future__ import annotations

import hmac
import struct
from itertools import chain

from migrator.errors import ExecutionError
from migrator.pager.links import Link
from migrator.pager.packing import ANSWER, COMPRESSED, PAGE_BYTES, WHOLE, Pages, decompress, kinds_of

VERSION = "lifeboat-pager/3"
GREETING_BYTES = 128
FAULTS, BULK, CRIU = "faults", "bulk", "criu"  # what a link is for; of BULK there are several: bulk0, bulk1, ...
PAGES, HELD = 1, 2
LONGEST_BYTES = 16 << 20  # of an answer; nothing the other side says makes us take more memory
REQUEST = struct.Struct("<IIQQ")
PAIR = struct.Struct("<QQ")


def greet(link: Link, migration: str, secret: str, purpose: str) -> None:
    """Say what a link is for; raises `ExecutionError` when the sink does not want it."""
    link.send(_padded(f"{VERSION} {migration} {secret} {purpose}"))
    answer = memoryview(bytearray(GREETING_BYTES))
    link.receive(answer)
    version, _, word = bytes(answer).decode("ascii", "replace").strip().partition(" ")
    if word != "welcome":
        raise ExecutionError(
            f"the page sink speaks {version or 'something else'} and says: {word or 'nothing'}",
            code="pager-version" if version != VERSION else "pager-refused",
            hint="install the same lifeboat on both hosts",
        )


def read_greeting(link: Link, migration: str, secret: str) -> str | None:
    """Answer a greeting; return what the link is for, None when it is not for us. Raises `OSError`."""
    greeting = memoryview(bytearray(GREETING_BYTES))
    link.receive(greeting)
    words = bytes(greeting).decode("ascii", "replace").split()
    refusal = ""
    if len(words) != 4 or words[0] != VERSION:
        refusal = "this version is not spoken here"
    elif not hmac.compare_digest(f"{words[1]} {words[2]}".encode(), f"{migration} {secret}".encode()):
        refusal = "this is not the migration that is waited for"
    link.send(_padded(f"{VERSION} {refusal or 'welcome'}"))
    return None if refusal else words[3]


def ask(link: Link, kind: int, pid: int, address: int, length: int) -> None:
    """Send a request."""
    link.send(memoryview(bytearray(REQUEST.pack(kind, pid, address, length))))


def receive_pages(link: Link, buffer: memoryview, count: int) -> tuple[Pages, int]:
    """Return the answer to PAGES, its contents in `buffer`, and how many bytes it had on the link.

    Raises `OSError` when the link ends before, `ExecutionError` when it is not an answer.
    """
    length, form = _receive_head(link)
    words = memoryview(bytearray(2 * count))
    link.receive(words)
    kinds = kinds_of(words)
    kept = count if kinds is None else kinds.count(WHOLE)
    body = length - len(words)
    if form == COMPRESSED and 0 <= body <= len(buffer):
        packed = memoryview(bytearray(body))
        link.receive(packed)
        decompress(packed, buffer[: kept * PAGE_BYTES])
    elif body == kept * PAGE_BYTES:
        link.receive(buffer[:body])
    else:
        raise ExecutionError(f"the source sent {body} bytes for {kept} pages", code="pager-protocol")
    return Pages(count, buffer, kinds), ANSWER.size + length


def receive_held(link: Link, start: int, end: int) -> list[tuple[int, int]]:
    """Return the answer to HELD for a range; raises as `receive_pages`."""
    length, _ = _receive_head(link)
    body = memoryview(bytearray(length))
    link.receive(body)
    if length % PAIR.size:
        raise ExecutionError(f"the source sent {length} bytes of pairs", code="pager-protocol")
    held = list(PAIR.iter_unpack(body))
    numbers = [start, *chain.from_iterable(held), end]
    if numbers != sorted(numbers) or any(number % PAGE_BYTES for number in numbers):
        raise ExecutionError("the source sent parts that are none of what was asked for", code="pager-protocol")
    return held


def _receive_head(link: Link) -> tuple[int, int]:
    head = memoryview(bytearray(ANSWER.size))
    link.receive(head)
    length, form, _ = ANSWER.unpack(head)
    if length > LONGEST_BYTES:
        raise ExecutionError(f"the source announces {length} bytes", code="pager-protocol")
    return length, form


def _padded(words: str) -> memoryview:
    return memoryview(bytearray(words.encode().ljust(GREETING_BYTES)))
