"""The kernel's log as records: /dev/kmsg (Documentation/ABI/testing/dev-kmsg)."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KMSG = Path("/dev/kmsg")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
RECORD_BYTES = 8192  # CONSOLE_EXT_LOG_MAX; a smaller buffer makes the kernel answer EINVAL
KERNEL = 0  # syslog facility; other records were written by programs, and anybody may imitate the kernel
MOST_AT_ONCE = 5000

PREFIX = re.compile(
    r"^(?:\w{3}\s+\w+ (?:[\d:.]+ )?\S+ kernel: |\d{4}-\d\d-\d\dT\S+ \S+ kernel: |\S+ kernel: )?"
    r"(?:<\d+>)?(?:\[\s*\d+\.\d+\]\s?)?(?:\[\s*[CT]\d+\]\s?)?"
)
"""What dmesg, journalctl and syslog put ahead of a line."""


@dataclass(frozen=True)
class Record:
    """One record; `device` is its DEVICE= field (b8:0, +scsi:0:0:0:0), if it has one."""

    sequence: int
    facility: int
    text: str
    device: str = ""


def parse_record(raw: bytes) -> Record | None:
    """Return a record, or None for bytes that are none. Pure."""
    head, separator, body = raw.decode("utf-8", "replace").partition(";")
    fields = head.split(",")
    if not separator or len(fields) < 4 or not (fields[0].isdigit() and fields[1].isdigit()):
        return None
    text, *properties = body.split("\n")
    device = next((line.strip()[7:] for line in properties if line.strip().startswith("DEVICE=")), "")
    return Record(int(fields[1]), int(fields[0]) >> 3, text, device)


def plain_lines(text: str) -> Iterator[Record]:
    """Return the records in a saved log: dmesg, journalctl, syslog, or /dev/kmsg itself. Pure."""
    for number, line in enumerate(text.splitlines()):
        record = parse_record(line.encode())
        if record is None:
            yield Record(number, KERNEL, PREFIX.sub("", line, count=1))
        elif record.facility == KERNEL:
            yield record


class Kmsg:
    """The log, opened at its oldest record; each is returned once."""

    def __init__(self, descriptor: int) -> None:
        """Take over an open descriptor that does not block."""
        self.descriptor = descriptor
        self.lost = 0  # records that were overwritten before they were read
        self._next: int | None = None

    @classmethod
    def open(cls, path: Path = KMSG) -> Kmsg:
        """Open the log; raises OSError when that is not allowed."""
        return cls(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))

    def records(self) -> Iterator[Record]:
        """Return what is new, at most `MOST_AT_ONCE`; raises OSError when the log cannot be read any more."""
        for _ in range(MOST_AT_ONCE):
            try:
                raw = os.read(self.descriptor, RECORD_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.EPIPE:
                    continue  # the next one that is still there comes next; the gap shows in its number
                raise
            if not raw:
                return
            record = parse_record(raw)
            if record is not None:
                self._count_gap(record)
                yield record

    def _count_gap(self, record: Record) -> None:
        if self._next is not None:
            self.lost += max(record.sequence - self._next, 0)
        self._next = record.sequence + 1

    def close(self) -> None:
        """Close the log."""
        os.close(self.descriptor)


def boot_id(path: Path = BOOT_ID) -> str:
    """Return what tells this boot from others."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
