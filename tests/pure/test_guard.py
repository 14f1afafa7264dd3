"""The guard of the page sink: what the sink held stays held when the sink is killed."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from migrator.pager import userfault
from migrator.pager.guard import NAME, Guard

UFFDIO_API, UFFD_API = 0xC018AA3F, 0xAA
UFFDIO_REGISTER, MODE_MISSING = 0xC020AA00, 1
NEW_DESCRIPTOR = 0xAA00  # USERFAULTFD_IOC_NEW, _IO(0xAA, 0x00)
READ_ZEROS = 42
LONG_ENOUGH_S = 1.0
LIMIT_S = 20.0


@pytest.fixture(autouse=True)
def _userfaultfd() -> None:
    """Skip where this kernel, or this user, has none."""
    try:
        os.close(os.open("/dev/userfaultfd", os.O_RDWR))
    except OSError as error:
        pytest.skip(f"userfaultfd cannot be used here: {error}")


def container(sink: Callable[[int], None]) -> int:
    """Start a process with a missing page, whose userfaultfd only a sink has; it ends as soon as it can read."""
    pid = os.fork()
    if pid:
        return pid
    device = os.open("/dev/userfaultfd", os.O_RDWR)
    descriptor = fcntl.ioctl(device, NEW_DESCRIPTOR, os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, UFFDIO_API, struct.pack("<QQQ", UFFD_API, 0, 0))
    area = mmap.mmap(-1, userfault.PAGE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    what = struct.pack("<QQQQ", address, userfault.PAGE_BYTES, MODE_MISSING, 0)
    fcntl.ioctl(descriptor, UFFDIO_REGISTER, what)
    sink_pid = os.fork()
    if sink_pid == 0:
        sink(descriptor)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(sink_pid, 0)
    os.close(descriptor)
    os._exit(READ_ZEROS if ctypes.string_at(address, 1) == b"\0" else 0)


def guarded(channel: int) -> Callable[[int], None]:
    """Return a sink that gives its userfaultfd to a guard, tells the guard's pid, and dies."""

    def sink(descriptor: int) -> None:
        guard = Guard()
        guard.hold(descriptor)
        os.write(channel, str(guard._pid).encode())

    return sink


def gone(pid: int) -> bool:
    """Say whether there is no such process, or only what its parent has not read yet."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_without_a_guard_a_dead_sink_means_zeros() -> None:
    pid = container(lambda _: None)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == READ_ZEROS


def test_with_a_guard_the_page_stays_missing_until_the_tree_is_dead() -> None:
    read, write = os.pipe()
    pid = container(guarded(write))
    guard = int(os.read(read, 32))
    deadline = time.monotonic() + LONG_ENOUGH_S
    while time.monotonic() < deadline:
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        time.sleep(0.02)
    assert not gone(guard)
    assert Path(f"/proc/{guard}/cmdline").read_bytes().rstrip(b"\0") == NAME, "not to be killed by the sink's name"
    assert Path(f"/proc/{guard}/comm").read_bytes().strip() == NAME
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    deadline = time.monotonic() + 10
    while not gone(guard):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for descriptor in (read, write):
        os.close(descriptor)


def test_it_holds_nothing_open_of_the_sinks() -> None:
    """Whoever calls a sink that is dead must hear so: the listening end of its control socket goes with it."""
    ours, theirs = socket.socketpair()
    guard = Guard()
    ours.close()
    theirs.settimeout(LIMIT_S)
    assert theirs.recv(1) == b"", "nobody else has the other end"
    theirs.close()
    guard.dismiss()
    guard._channel.close()
