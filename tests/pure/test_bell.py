"""The bell wakes who waits: another thread's ringing, a signal handler's, and one that came before."""

from __future__ import annotations

import os
import signal
import threading

from watchdog.daemon.bell import Bell

LONG_S = 30.0


def test_nobody_rings_and_the_wait_ends() -> None:
    assert not Bell().wait(0.01)


def test_a_ring_is_not_lost_when_nobody_waits_yet_and_wakes_once() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    assert bell.wait(LONG_S)
    assert not bell.wait(0.0)


def test_another_thread_wakes() -> None:
    bell = Bell()
    thread = threading.Thread(target=bell.ring)
    thread.start()
    assert bell.wait(LONG_S)
    thread.join()


def test_a_signal_handler_wakes() -> None:
    bell = Bell()
    before = signal.signal(signal.SIGUSR1, lambda *_: bell.ring())
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    assert bell.wait(LONG_S)
    timer.join()
    signal.signal(signal.SIGUSR1, before)
