"""userfaultfd(2) from Python: events, and the three ways to fill a missing page.

Numbers and structures: include/uapi/linux/userfaultfd.h. While the process changes its mappings and its
event is not read yet, filling fails with EAGAIN; so whoever reads events and fills under one lock can never
put a page where the process has given it away.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

UFFDIO_COPY = 0xC028AA03  # _IOWR(0xAA, 0x03, struct uffdio_copy)
UFFDIO_ZEROPAGE = 0xC020AA04  # _IOWR(0xAA, 0x04, struct uffdio_zeropage)
UFFDIO_WRITEPROTECT = 0xC018AA06  # _IOWR(0xAA, 0x06, struct uffdio_writeprotect), Linux 5.7
UFFDIO_POISON = 0xC020AA08  # _IOWR(0xAA, 0x08, struct uffdio_poison), Linux 6.6
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

    Pages that are there already count as filled, and so do those that are mapped nowhere and of which no event will
    tell: a child has none of what its parent keeps from it (MADV_DONTFORK). Less than all comes back when the
    process is changing its mappings: read its events, then look again. Raises `TreeGoneError`.
    """
    base = ctypes.addressof(ctypes.c_char.from_buffer(data))

    def copy(done: int, part: int) -> tuple[int, int]:
        request = _Copy(address + done, base + done, part, 0, 0)
        return _ioctl(descriptor, UFFDIO_COPY, request), request.copied

    return _each(descriptor, address, len(data), copy)


def fill_zero(descriptor: int, address: int) -> bool:
    """Answer a fault on a page the process never had, or has by now; return False when it has events to read.

    Who faulted where nothing is mapped any more is woken, to get what it would have got at home. Raises
    `TreeGoneError`.
    """
    code = _ioctl(descriptor, UFFDIO_ZEROPAGE, _Fill(address, PAGE_BYTES, 0, 0))
    if code in (errno.EEXIST, errno.ENOENT):
        _wake(descriptor, address)
    return code != errno.EAGAIN


def fill_zeros(descriptor: int, address: int, length: int) -> int:
    """Give pages of zeros; otherwise as `fill`."""
    return _give(descriptor, UFFDIO_ZEROPAGE, address, length)


def poison(descriptor: int, address: int, length: int) -> int:
    """Let whoever touches these pages get SIGBUS (or EFAULT in the kernel); otherwise as `fill`.

    Raises `OSError` on a kernel that cannot (before 6.6).
    """
    return _give(descriptor, UFFDIO_POISON, address, length)


def _give(descriptor: int, request: int, address: int, length: int) -> int:
    """Do to pages what needs no contents."""

    def give(done: int, part: int) -> tuple[int, int]:
        argument = _Fill(address + done, part, 0, 0)
        return _ioctl(descriptor, request, argument), argument.done

    return _each(descriptor, address, length, give)


def _each(descriptor: int, address: int, length: int, step: Callable[[int, int], tuple[int, int]]) -> int:
    """Do something to pages, as `fill`; a page that is there already counts as done.

    `step` is given how far it is, and how many bytes to try; it returns an error number and the bytes done.
    """
    done, part = 0, length
    while done < length:
        code, count = step(done, part)
        if count > 0:
            done += count
        elif code == errno.EEXIST:
            _wake(descriptor, address + done)
            done += PAGE_BYTES
        elif code == errno.ENOENT and part > PAGE_BYTES:
            part = part // 2 // PAGE_BYTES * PAGE_BYTES  # one step must not cross from a mapping to another
            continue
        elif code == errno.ENOENT and _stands_still(descriptor, address + done):
            done += PAGE_BYTES
        else:
            return done
        part = length - done
    return done


def _stands_still(descriptor: int, address: int) -> bool:
    """Say whether the process is changing no mappings, so that no event is on its way; nothing is done to it.

    Asked for write protection the kernel says EAGAIN while it is, before it looks for a mapping, and ENOENT where
    none has any (mm/userfaultfd.c, mwriteprotect_range; Linux 5.7).
    """
    argument = _Fill(address, PAGE_BYTES, 0, 0)  # struct uffdio_writeprotect is shorter by the last field
    if _libc.ioctl(descriptor, ctypes.c_ulong(UFFDIO_WRITEPROTECT), ctypes.byref(argument)) == 0:
        return False
    return ctypes.get_errno() == errno.ENOENT


def _wake(descriptor: int, address: int) -> None:
    _ioctl(descriptor, UFFDIO_WAKE, _Range(address, PAGE_BYTES))


def _ioctl(descriptor: int, request: int, argument: ctypes.Structure) -> int:
    """Return 0, or an error number that means something to the caller; else raises `TreeGoneError` or `OSError`.

    ENOENT is an address that is not mapped; the event that says so, if there is one, has been or will be read.
    """
    if _libc.ioctl(descriptor, ctypes.c_ulong(request), ctypes.byref(argument)) == 0:
        return 0
    code = ctypes.get_errno()
    if code == errno.ESRCH:
        raise TreeGoneError
    if code not in (errno.EEXIST, errno.EAGAIN, errno.ENOENT):
        raise OSError(code, os.strerror(code))
    return code


class _Copy(ctypes.Structure):
    _fields_ = (
        ("target", ctypes.c_uint64),
        ("source", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("copied", ctypes.c_int64),
    )


class _Fill(ctypes.Structure):
    """struct uffdio_zeropage and struct uffdio_poison."""

    _fields_ = (
        ("start", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("done", ctypes.c_int64),
    )


class _Range(ctypes.Structure):
    _fields_ = (("start", ctypes.c_uint64), ("length", ctypes.c_uint64))
