"""Which pages of a process hold something: the kernel's own answer, by PAGEMAP_SCAN.

Numbers and structures: include/uapi/linux/fs.h (Linux 6.7), Documentation/admin-guide/mm/pagemap.rst. What
counts as held is what CRIU dumps: in memory or swapped out, but not the kernel's one page of zeros, and no
guard (madvise(2), MADV_GUARD_INSTALL), which looks like a swapped page and cannot be read.
"""

from __future__ import annotations

import ctypes
import errno
import os

PAGEMAP_SCAN = 0xC0606610  # _IOWR('f', 16, struct pm_scan_arg)
PAGE_IS_PRESENT, PAGE_IS_SWAPPED, PAGE_IS_PFNZERO = 1 << 3, 1 << 4, 1 << 5
PAGE_IS_GUARD = 1 << 8  # Linux 6.15
REGIONS = 4096  # per call

_libc = ctypes.CDLL(None, use_errno=True)


class _Region(ctypes.Structure):
    _fields_ = (("start", ctypes.c_uint64), ("end", ctypes.c_uint64), ("categories", ctypes.c_uint64))


class _Argument(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            *("size", "flags", "start", "end", "walk_end", "vec", "vec_len", "max_pages"),
            *("category_inverted", "category_mask", "category_anyof_mask", "return_mask"),
        )
    )


def held_ranges(pagemap: int, start: int, end: int) -> list[tuple[int, int]]:
    """Return the ranges that hold something between two addresses of an open /proc/PID/pagemap, in order.

    A kernel that cannot tell (before 6.7) holds everything.
    """
    found: list[tuple[int, int]] = []
    regions = (_Region * REGIONS)()
    excepted = PAGE_IS_PFNZERO | PAGE_IS_GUARD
    while start < end:
        argument = _Argument(
            size=ctypes.sizeof(_Argument),
            start=start,
            end=end,
            vec=ctypes.addressof(regions),
            vec_len=REGIONS,
            category_inverted=excepted,
            category_mask=excepted,
            category_anyof_mask=PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            return_mask=PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        )
        count = _libc.ioctl(pagemap, ctypes.c_ulong(PAGEMAP_SCAN), ctypes.byref(argument))
        if count < 0:
            code = ctypes.get_errno()
            if code == errno.ENOTTY:
                return [*found, (start, end)]
            if code == errno.EINVAL and excepted & PAGE_IS_GUARD:
                excepted = PAGE_IS_PFNZERO  # an older kernel does not know the word
                continue
            raise OSError(code, os.strerror(code))
        for region in regions[:count]:
            if found and found[-1][1] == region.start:
                found[-1] = (found[-1][0], region.end)
            else:
                found.append((region.start, region.end))
        start = argument.walk_end
    return found
