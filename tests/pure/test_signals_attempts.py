"""Slow work is never waited for longer than told."""

from __future__ import annotations

import threading
from concurrent.futures import wait

import pytest

from watchdog.signals.attempts import Attempts


def test_work_that_ends_gives_its_result() -> None:
    futures = Attempts[int](2, 1.0).run({"a": lambda: 1, "b": lambda: 2, "c": lambda: 3}, 10)
    assert {name: future.result() for name, future in futures.items()} == {"a": 1, "b": 2, "c": 3}


def test_work_that_fails_keeps_its_error() -> None:
    futures = Attempts[float](1, 1.0).run({"a": lambda: 1 / 0}, 10)
    with pytest.raises(ZeroDivisionError):
        futures["a"].result()


def test_work_that_hangs_is_left_behind_and_not_begun_again() -> None:
    release, calls = threading.Event(), list[str]()

    def hang() -> int:
        calls.append("hang")
        release.wait(60)
        return 1

    attempts = Attempts[int](8, 1.0)
    assert not attempts.run({"a": hang}, 0.01)["a"].done()
    again = attempts.run({"a": hang, "b": lambda: 2}, 0.01)
    assert not again["a"].done()
    wait([again["b"]], 10)
    assert calls == ["hang"]
    release.set()
    wait([again["a"]], 10)
    assert attempts.run({"a": lambda: 3}, 10)["a"].result() == 3


def test_hung_work_cannot_take_all_places_for_ever() -> None:
    release = threading.Event()
    attempts = Attempts[bool](1, 0.01)
    attempts.run({"hung": lambda: release.wait(60)}, 0.01)
    assert attempts.run({"well": lambda: True}, 10)["well"].result()
    release.set()
