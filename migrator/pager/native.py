"""The optional C part of the pager (native.c): TLS, the search for pages not worth sending, filling in small steps.

Where it was not built (no compiler, no OpenSSL headers) the pager does the same in Python, slower; both ways
speak the same protocol. The environment variable LIFEBOAT_PURE_PYTHON, set to anything, has the same effect.
"""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path

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
        ("open", pointer, (ctypes.c_int, text, text, text)),
        ("peer", ctypes.c_int, (pointer, pointer, ctypes.c_int)),
        ("receive", ctypes.c_int, (pointer, pointer, ctypes.c_size_t)),
        ("send", ctypes.c_int, (pointer, pointer, ctypes.c_size_t)),
        ("free", None, (pointer,)),
        ("pack", ctypes.c_long, (pointer, ctypes.c_long, pointer)),
        ("fill", ctypes.c_long, (ctypes.c_int, *(ctypes.c_uint64,) * 3, pointer, pointer)),
    ):
        function = getattr(library, f"lifeboat_{name}", None)
        if function is None:
            return None  # built from another version's source
        function.restype, function.argtypes = result, arguments
    return library


_library = _load()
BUILT = _library is not None


class NativeTls:
    """TLS 1.3 on a connected socket, authenticated on both sides; used by one thread at a time."""

    def __init__(self, plain: socket.socket, own: Path, authority: Path, host: str | None) -> None:
        """Shake hands: as the one who calls `host`, or, with None, as the one who is called.

        `own` is the file of our key and certificate. Raises `ConnectionError`.
        """
        if _library is None:
            raise ConnectionError("the C part was not built")
        self._call = _library
        files = [str(file).encode() for file in (authority, own)]
        self._link = _library.lifeboat_open(plain.fileno(), *files, host.encode() if host else None)
        if not self._link:
            raise self._failure()

    @property
    def peer(self) -> Identity:
        """Return whom the other side's certificate names."""
        text = ctypes.create_string_buffer(PEER_BYTES)
        if self._call.lifeboat_peer(self._link, text, PEER_BYTES) < 0:
            raise self._failure()
        serial, expires_at, name = text.value.decode().split(" ", 2)
        return Identity(name, f"{int(serial, 16):x}", float(expires_at))

    def receive(self, into: memoryview) -> None:
        """Fill a buffer; raises `ConnectionError` when the link ends before."""
        if len(into) and self._call.lifeboat_receive(self._link, address_of(into), len(into)):
            raise self._failure()

    def send(self, data: memoryview) -> None:
        """Send a writable buffer; raises `ConnectionError`."""
        if self._call.lifeboat_send(self._link, address_of(data), len(data)):
            raise self._failure()

    def _failure(self) -> ConnectionError:
        return ConnectionError(self._call.lifeboat_reason().decode(errors="replace"))

    def __del__(self) -> None:
        if getattr(self, "_link", None):
            self._call.lifeboat_free(self._link)


def pack(data: memoryview, kinds: memoryview) -> int | None:
    """See `migrator.pager.packing.pack`; None when it has to be done in Python."""
    if _library is None:
        return None
    count: int = _library.lifeboat_pack(address_of(data), len(kinds) // 2, address_of(kinds))
    return count if count >= 0 else None


def fill(userfault: int, target: int, source: int, length: int, urgent: ctypes.c_int) -> tuple[int, int] | None:
    """Copy pages from our memory to where a process misses them, as long as nobody calls it urgent.

    Returns how many bytes are there now and an error number, 0 for none; None when it has to be done in Python.
    """
    if _library is None:
        return None
    code = ctypes.c_int()
    done = _library.lifeboat_fill(userfault, target, source, length, ctypes.byref(urgent), ctypes.byref(code))
    return int(done), code.value


def address_of(data: memoryview) -> int:
    """Return where a writable buffer lies."""
    return ctypes.addressof(ctypes.c_char.from_buffer(data))
