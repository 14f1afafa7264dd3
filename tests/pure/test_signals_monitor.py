"""The monitor polls each reader by itself, wakes it on demand, and tells blindness."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.monitor import SignalMonitor

DISK = Device(DeviceKind.DISK, "disk:S1", "/dev/sda")
LONG_S = 3600.0
PATIENCE_S = 10.0


class Source:
    """A reader that does what a test tells it."""

    def __init__(self, name: str, deed: Callable[[float], tuple[Reading, ...]], poll_s: float = LONG_S) -> None:
        self.name, self.poll_s, self._deed = name, poll_s, deed

    def read(self, now: float) -> tuple[Reading, ...]:
        """Read."""
        return self._deed(now)


class Delivered:
    """Collects readings; `wait` returns when enough are there."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self._changed = threading.Condition()

    def __call__(self, readings: Sequence[Reading]) -> None:
        with self._changed:
            self.readings += readings
            self._changed.notify_all()

    def wait(self, enough: Callable[[list[Reading]], bool]) -> None:
        """Wait until `enough` holds; fail when it does not in time."""
        with self._changed:
            assert self._changed.wait_for(lambda: enough(self.readings), PATIENCE_S), self.readings


def health(now: float) -> tuple[Reading, ...]:
    return (Reading("smart.health_failed", DISK, now, 0.0),)


@pytest.fixture
def delivered() -> Delivered:
    """What the monitor delivers."""
    return Delivered()


def running(delivered: Delivered, *sources: Source) -> SignalMonitor:
    monitor = SignalMonitor(sources, delivered)
    monitor.start()
    return monitor


def test_every_reader_reads_at_once(delivered: Delivered) -> None:
    monitor = running(delivered, Source("a", health), Source("b", health))
    delivered.wait(lambda found: len(found) == 2)
    monitor.stop()


def test_a_reader_reads_again_by_itself(delivered: Delivered) -> None:
    monitor = running(delivered, Source("a", health, poll_s=0.05))
    delivered.wait(lambda found: len(found) >= 3)
    monitor.stop()


def test_a_reader_that_hangs_delays_no_other(delivered: Delivered) -> None:
    release = threading.Event()

    def hang(now: float) -> tuple[Reading, ...]:
        release.wait(60)
        return ()

    monitor = running(delivered, Source("hung", hang), Source("well", health))
    delivered.wait(lambda found: len(found) == 1)
    release.set()
    monitor.stop()


def test_a_reader_that_fails_leaves_all_it_told_unreadable(delivered: Delivered) -> None:
    answers = [health(1.0)]

    def fail_after_one(now: float) -> tuple[Reading, ...]:
        return answers.pop()

    monitor = running(delivered, Source("a", fail_after_one))
    delivered.wait(lambda found: len(found) == 1)
    monitor.poll_now("a")
    delivered.wait(lambda found: len(found) == 3)
    monitor.stop()
    lost, blind = delivered.readings[1:]
    assert (lost.signal, lost.device, lost.value) == ("smart.health_failed", DISK, None)
    assert (blind.signal, blind.value) == ("reader.blind", None)
    assert "pop from empty list" in blind.reason


def test_a_reader_that_is_stuck_is_told_after_some_turns(delivered: Delivered) -> None:
    release, first = threading.Event(), threading.Event()

    def stick_at_second(now: float) -> tuple[Reading, ...]:
        if first.is_set():
            release.wait(60)
        first.set()
        return health(now)

    monitor = running(delivered, Source("a", stick_at_second, poll_s=0.05))
    delivered.wait(lambda found: any(item.signal == "reader.blind" for item in found))
    assert any(item.signal == "smart.health_failed" and item.value is None for item in delivered.readings)
    release.set()
    monitor.stop()


def test_waking_a_reader_at_work_makes_it_read_once_more(delivered: Delivered) -> None:
    reading, release = threading.Event(), threading.Event()

    def slow(now: float) -> tuple[Reading, ...]:
        reading.set()
        release.wait(60)
        return health(now)

    monitor = running(delivered, Source("a", slow))
    assert reading.wait(PATIENCE_S)
    monitor.poll_now()
    monitor.poll_now("a")
    release.set()
    delivered.wait(lambda found: len(found) == 2)
    monitor.stop()


def test_events_of_the_kernel_can_be_listened_to(delivered: Delivered) -> None:
    monitor = SignalMonitor([Source("smart", health)], delivered)
    monitor.start()
    delivered.wait(lambda found: len(found) == 1)
    began = time.monotonic()
    monitor.stop()
    assert time.monotonic() - began < PATIENCE_S


class Follower(Source):
    """A reader whose source is a pipe: it reads all there is, and is woken when there is more."""

    def __init__(self) -> None:
        self.tell, self.hear = socket.socketpair()
        self.hear.setblocking(False)
        super().__init__("follower", self._take)

    def alarm(self) -> tuple[int, int]:
        """Wake when something was said."""
        return self.hear.fileno(), select.EPOLLIN

    def _take(self, now: float) -> tuple[Reading, ...]:
        try:
            said = self.hear.recv(1 << 20)
        except BlockingIOError:
            said = b""
        return (Reading("kernel.io_errors", DISK, now, float(len(said))),)


def test_a_reader_is_woken_by_its_own_source(delivered: Delivered) -> None:
    follower = Follower()
    monitor = running(delivered, follower)
    delivered.wait(lambda found: len(found) == 1)
    follower.tell.send(b"x")
    delivered.wait(lambda found: found[-1].value == 1)
    follower.tell.send(b"xx")
    delivered.wait(lambda found: found[-1].value == 2)
    monitor.stop()
    follower.tell.close()
    follower.hear.close()


def test_a_source_that_floods_delays_no_other_and_is_read_in_slices(delivered: Delivered) -> None:
    follower = Follower()
    monitor = running(delivered, follower, Source("other", health, poll_s=1))
    stopping = threading.Event()
    sent = 0

    def flood() -> None:
        nonlocal sent
        while not stopping.is_set():
            follower.tell.send(b"x" * 100)
            sent += 1

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    delivered.wait(lambda found: sum(item.signal == "smart.health_failed" for item in found) >= 3)
    stopping.set()
    follower.hear.recv(1 << 20)  # the sender may wait for room
    thread.join()
    slices = sum(item.signal == "kernel.io_errors" for item in delivered.readings)
    assert 2 <= slices < sent
    monitor.stop()
    follower.tell.close()
    follower.hear.close()
