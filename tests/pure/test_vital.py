"""Threads that must not end by a mistake."""

from __future__ import annotations

import threading

import pytest

from migrator import vital
from migrator.vital import unbroken, vital_thread

LIMIT_S = 20.0


def test_after_a_mistake_it_begins_again_and_it_ends_when_its_work_does(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vital, "AGAIN_S", 0.0)
    todo = [KeyError("one"), OSError("two"), None]
    done = threading.Event()

    def work() -> None:
        if error := todo.pop(0):
            raise error
        done.set()

    thread = vital_thread("caretaker", work)
    thread.start()
    assert done.wait(LIMIT_S)
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    assert not todo
    assert "KeyError: 'one'" in caplog.text
    assert "caretaker" in caplog.text


def test_who_cannot_be_told_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    def tell(word: str) -> None:
        told.append(word)
        if word == "full":
            raise OSError("no space left on device")

    telling = unbroken(tell)
    for word in ("full", "better"):
        telling(word)
    assert told == ["full", "better"]
    assert "nobody could be told: full" in caplog.text
