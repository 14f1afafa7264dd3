"""The optional C part of the pager: its loops (inflow.c, serve.c), TLS and the search for pages not worth sending.

Where it was not built (no compiler, no OpenSSL headers) the pager does the same in Python, slower; both ways
speak the same protocol. The environment variable LIFEBOAT_PURE_PYTHON, set to anything, has the same effect.
"""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path
from typing import Any

from migrator.errors import ExecutionError
from migrator.peers.identity import Identity

PEER_BYTES = 512


def _load() -> ctypes.CDLL | None:
    path = next(Path(__file__).parent.glob("_native*.so"), None)
    if path is None or os.environ.get("LIFEBOAT_PURE_PYTHON"):
        return None
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        return None  # built for another OpenSSL
    text, pointer = ctypes.c_char_p, ctypes.c_void_p
    for name, result, arguments in (
        ("reason", text, ()),
        ("plain", pointer, (ctypes.c_int,)),
        ("open", pointer, (ctypes.c_int, text, text, text)),
        ("peer", ctypes.c_int, (pointer, pointer, ctypes.c_int)),
        ("receive", ctypes.c_int, (pointer, pointer, ctypes.c_size_t)),
        ("send", ctypes.c_int, (pointer, pointer, ctypes.c_size_t)),
        ("free", None, (pointer,)),
        ("pack", ctypes.c_long, (pointer, ctypes.c_long, pointer)),
        ("long_slices", ctypes.c_int, ()),
        ("serve", ctypes.c_int, (pointer, pointer, pointer, ctypes.c_int, pointer, ctypes.c_uint64, pointer)),
        ("inflow", pointer, (pointer, ctypes.c_int, ctypes.c_int)),
        ("inflow_add", ctypes.c_int, (pointer, ctypes.c_uint32, ctypes.c_int, pointer, ctypes.c_size_t)),
        ("inflow_flow", None, (pointer, ctypes.c_int)),
        ("inflow_answer", ctypes.c_int, (pointer, pointer, pointer)),
        ("inflow_fetch", ctypes.c_int, (pointer, pointer, pointer)),
        ("inflow_bulk_bytes", ctypes.c_size_t, ()),
        ("inflow_rest", ctypes.c_int, (pointer,)),
        ("inflow_tell", None, (pointer, pointer)),
        ("inflow_poison", ctypes.c_int, (pointer, pointer)),
        ("inflow_surrender", ctypes.c_size_t, (pointer, pointer, ctypes.c_size_t)),
        ("window", pointer, (pointer, pointer)),
        ("window_packed", None, (pointer, pointer)),
        ("window_end", None, (pointer, pointer)),
    ):
        function = getattr(library, f"lifeboat_{name}", None)
        if function is None:
            return None  # built from another version's source
        function.restype, function.argtypes = result, arguments
    return library


_library = _load()
BUILT = _library is not None


def library() -> Any:
    """Return the C part's functions; raises `ExecutionError` when it was not built."""
    if _library is None:
        raise ExecutionError("the C part of the pager was not built", code="not-built")
    return _library


def reason() -> str:
    """Say what failed in the last call of this thread."""
    return str(library().lifeboat_reason().decode(errors="replace"))


class Native:
    """A link in C, on a connected socket that blocks; used by one thread at a time."""

    def __init__(self, connection: socket.socket, opened: int | None = None) -> None:
        """Take the socket as it is, or what TLS was `opened` on it."""
        self._c = library()
        self.handle = opened or self._c.lifeboat_plain(connection.fileno())

    @classmethod
    def by_tls(cls, connection: socket.socket, own: Path, authority: Path, host: str | None) -> Native:
        """Shake hands by TLS 1.3: as the one who calls `host`, or, with None, as the one who is called.

        `own` is the file of our key and certificate. Raises `ConnectionError`.
        """
        files = [str(file).encode() for file in (authority, own)]
        opened = library().lifeboat_open(connection.fileno(), *files, host.encode() if host else None)
        if not opened:
            raise ConnectionError(reason())
        return cls(connection, opened)

    @property
    def peer(self) -> Identity:
        """Return whom the other side's certificate names."""
        text = ctypes.create_string_buffer(PEER_BYTES)
        if self._c.lifeboat_peer(self.handle, text, PEER_BYTES) < 0:
            raise ConnectionError(reason())
        serial, expires_at, name = text.value.decode().split(" ", 2)
        return Identity(name, f"{int(serial, 16):x}", float(expires_at))

    def receive(self, into: memoryview) -> None:
        """Fill a buffer; raises `ConnectionError` when the link ends before."""
        if len(into) and self._c.lifeboat_receive(self.handle, address_of(into), len(into)):
            raise ConnectionError(reason())

    def send(self, data: memoryview) -> None:
        """Send a writable buffer; raises `ConnectionError`."""
        if self._c.lifeboat_send(self.handle, address_of(data), len(data)):
            raise ConnectionError(reason())

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self._c.lifeboat_free(self.handle)


class Served(ctypes.Structure):
    """What was done (struct served in serve.c)."""

    _fields_ = (
        ("bytes", ctypes.c_uint64),  # of memory
        ("seconds", ctypes.c_double),
        ("unusual", ctypes.c_uint8 * 24),  # a request that was not answered, as it came (greeting.REQUEST)
    )


def serve(link: int, memories: dict[int, int], area: memoryview, most: int, served: Served) -> bool:
    """Answer at most so many requests by pages as they are; say whether one came that this cannot answer.

    `link` is a link's handle; `memories` has open /proc/PID/mem by the sink's pids; `area` is room for an answer.
    `served` is counted up as it goes. Raises `ConnectionError`.
    """
    pids = (ctypes.c_uint32 * len(memories))(*memories)
    files = (ctypes.c_int * len(memories))(*memories.values())
    code = library().lifeboat_serve(link, pids, files, len(memories), address_of(area), most, ctypes.byref(served))
    if code < 0:
        raise ConnectionError(reason())
    return bool(code)


def pack(data: memoryview, kinds: memoryview) -> int | None:
    """See `migrator.pager.packing.pack`; None when it has to be done in Python."""
    if _library is None:
        return None
    count: int = _library.lifeboat_pack(address_of(data), len(kinds) // 2, address_of(kinds))
    return count if count >= 0 else None


def address_of(data: memoryview) -> int:
    """Return where a writable buffer lies."""
    return ctypes.addressof(ctypes.c_char.from_buffer(data))
