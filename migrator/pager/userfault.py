"""userfaultfd(2) from Python: events, and the two ways to fill a missing page.

Numbers and structures: include/uapi/linux/userfaultfd.h. While the process changes its mappings and its
event is not read yet, filling fails with EAGAIN; so whoever reads events and fills under one lock can never
put a page where the process has given it away.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass
from enum import IntEnum

UFFDIO_COPY = 0xC028AA03  # _IOWR(0xAA, 0x03, struct uffdio_copy)
UFFDIO_ZEROPAGE = 0xC020AA04  # _IOWR(0xAA, 0x04, struct uffdio_zeropage)
UFFDIO_WAKE = 0x8010AA02  # _IOR(0xAA, 0x02, struct uffdio_range)
MESSAGE_BYTES = 32
PAGE_BYTES = 4096

_libc = ctypes.CDLL(None, use_errno=True)


class Kind(IntEnum):
    """`event` of struct uffd_msg."""

    PAGEFAULT = 0x12
    FORK = 0x13
    REMAP = 0x14
    REMOVE = 0x15
    UNMAP = 0x16


@dataclass(frozen=True)
class Event:
    """One event; what the numbers mean depends on its kind.

    PAGEFAULT: first is the address. FORK: first is the child's userfaultfd. REMAP: from, to, length.
    REMOVE, UNMAP: start, end.
    """

    kind: Kind
    first: int
    second: int = 0
    third: int = 0


class TreeGoneError(Exception):
    """The process has exited; nothing of it is missing any more."""


def read_event(descriptor: int) -> Event | None:
    """Return the next event, None when there is none now."""
    try:
        message = os.read(descriptor, MESSAGE_BYTES)
    except BlockingIOError:
        return None
    kind = Kind(message[0])
    first, second, third = struct.unpack_from("<QQQ", message, 8)
    if kind is Kind.PAGEFAULT:
        return Event(kind, second & ~(PAGE_BYTES - 1))
    if kind is Kind.FORK:
        return Event(kind, first & 0xFFFFFFFF)
    return Event(kind, first, second, third)


def fill(descriptor: int, address: int, data: memoryview) -> int:
    """Copy pages to an address and wake who waits for them; return the bytes that are there now.

    Pages that are there already count as filled. Less than all comes back when the process is changing its
    mappings: read its events, then look again. Raises `TreeGoneError`.
    """
    done = 0
    base = ctypes.addressof(ctypes.c_char.from_buffer(data))
    length = len(data)
    while done < len(data):
        request = _Copy(address + done, base + done, length, 0, 0)
        code = _ioctl(descriptor, UFFDIO_COPY, request)
        if request.copied > 0:
            done += request.copied
            length = len(data) - done
        elif code == errno.EEXIST:
            _wake(descriptor, address + done)
            done += PAGE_BYTES
            length = len(data) - done
        elif code == errno.ENOENT and length > PAGE_BYTES:
            length = length // 2 // PAGE_BYTES * PAGE_BYTES  # one copy must not cross from a mapping to another
        else:
            return done
    return done


def fill_zero(descriptor: int, address: int) -> bool:
    """Give a page that the process never had before; return False when events must be read first.

    Raises `TreeGoneError`.
    """
    code = _ioctl(descriptor, UFFDIO_ZEROPAGE, _Zeropage(address, PAGE_BYTES, 0, 0))
    if code == errno.EEXIST:
        _wake(descriptor, address)
    return code != errno.EAGAIN


def _wake(descriptor: int, address: int) -> None:
    _ioctl(descriptor, UFFDIO_WAKE, _Range(address, PAGE_BYTES))


def _ioctl(descriptor: int, request: int, argument: ctypes.Structure) -> int:
    """Return 0, or the error number of those that mean something to the caller.

    ENOENT is an address that is not mapped any more; the event that says so has been or will be read.
    """
    if _libc.ioctl(descriptor, ctypes.c_ulong(request), ctypes.byref(argument)) == 0:
        return 0
    code = ctypes.get_errno()
    if code == errno.ESRCH:
        raise TreeGoneError
    if code in (errno.EEXIST, errno.EAGAIN, errno.ENOENT):
        return code
    raise OSError(code, os.strerror(code))


class _Copy(ctypes.Structure):
    _fields_ = (
        ("target", ctypes.c_uint64),
        ("source", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("copied", ctypes.c_int64),
    )


class _Zeropage(ctypes.Structure):
    _fields_ = (
        ("start", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("zeroed", ctypes.c_int64),
    )


class _Range(ctypes.Structure):
    _fields_ = (("start", ctypes.c_uint64), ("length", ctypes.c_uint64))
