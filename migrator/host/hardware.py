"""What the kernel tells about this host."""

from __future__ import annotations

import mmap
import struct
from functools import cache
from pathlib import Path

AT_MINSIGSTKSZ = 51
"""Of the auxiliary vector (arch/x86/include/uapi/asm/auxvec.h): the size of a signal frame, which Linux makes from
that of the xsave area (`init_sigframe_size`, arch/x86/kernel/signal.c). CRIU wants the area equal on both hosts."""

LISTEN = "0A"  # state TCP_LISTEN in /proc/net/tcp (include/net/tcp_states.h)
HUGE_PAGE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
"""How large a huge page is (Documentation/admin-guide/mm/transhuge.rst); there is none where this is not."""

SHARED_DEVICES = ("tty", "vcs", "loop", "ram", "pts", "shm", "mqueue", "hugepages", "fd", "core", "initctl", "log")
"""What every host has in /dev, or what is no device."""


def memory() -> dict[str, int]:
    """Return /proc/meminfo in bytes (it says kB and means KiB)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    pairs = (line.split(":") for line in lines)
    return {name: int(rest.split()[0]) * 1024 for name, rest in pairs}


def spare_bytes(headroom_percent: float) -> int:
    """Return the memory that nobody uses, less a share of all that is kept back."""
    found = memory()
    return found["MemAvailable"] - int(found["MemTotal"] * headroom_percent / 100)


def broken_bytes() -> int:
    """Return the free memory that lies in pieces smaller than a huge page; all of it where there are none."""
    huge = int(HUGE_PAGE.read_text()) if HUGE_PAGE.exists() else 1 << 62
    return broken_bytes_of(Path("/proc/buddyinfo").read_text(), mmap.PAGESIZE, huge)


def broken_bytes_of(table: str, page: int, huge: int) -> int:
    """Return the same by a text of /proc/buddyinfo, which has of each zone the free pieces of 1, 2, 4, ... pages.

    The format is that of Documentation/filesystems/proc.rst.
    """
    rows = [line.partition("zone")[2].split()[1:] for line in table.splitlines()]
    sizes = [(int(count), page << order) for row in rows for order, count in enumerate(row)]
    return sum(count * size for count, size in sizes if size < huge)


@cache
def processor() -> tuple[str, tuple[str, ...]]:
    """Return the model and the flags of the first processor in /proc/cpuinfo."""
    first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    flags = fields.get("flags") or fields.get("Features", "")
    return fields.get("model name", fields.get("CPU part", "")), tuple(sorted(flags.split()))


@cache
def signal_frame_bytes() -> int:
    """Return AT_MINSIGSTKSZ of this host, 0 where the kernel does not tell it."""
    return auxiliary_value(Path("/proc/self/auxv").read_bytes(), AT_MINSIGSTKSZ)


def auxiliary_value(vector: bytes, wanted: int) -> int:
    """Return one value of an auxiliary vector of 64-bit pairs, 0 when it is not there."""
    pairs: dict[int, int] = dict(struct.iter_unpack("QQ", vector))
    return pairs.get(wanted, 0)


def listening_ports() -> frozenset[int]:
    """Return the TCP ports that something listens on in this network namespace."""
    tables = [file.read_text() for name in ("tcp", "tcp6") if (file := Path("/proc/net") / name).exists()]
    return ports_of(tables)


def ports_of(tables: list[str]) -> frozenset[int]:
    """Return the listening ports in texts of /proc/net/tcp."""
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return frozenset(int(row[1].rsplit(":", 1)[1], 16) for row in rows if len(row) > 3 and row[3] == LISTEN)


def devices() -> tuple[str, ...]:
    """Return the device files in /dev and one level below that not every host has."""
    found = []
    for entry in sorted(Path("/dev").iterdir()):
        if entry.name.startswith(SHARED_DEVICES) or entry.is_symlink():
            continue
        inside = sorted(entry.iterdir()) if entry.is_dir() else [entry]
        found += [str(item) for item in inside if item.is_char_device() or item.is_block_device()]
    return tuple(found)
