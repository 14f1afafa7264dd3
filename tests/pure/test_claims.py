"""A container is moved, or looked after, by one at a time."""

from __future__ import annotations

import threading

import pytest

from migrator.errors import PrerequisiteError
from migrator.source import claims
from migrator.source.claims import Claims

LIMIT_S = 20.0


def test_who_has_to_waits_for_the_other_s_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "AGAIN_S", 0.01)
    all_of_them = Claims()
    had = threading.Event()

    def look_after() -> None:
        with all_of_them.wait_for("a"):
            had.set()

    with all_of_them.claim("a", "web"):
        with pytest.raises(PrerequisiteError, match="web is being moved already"), all_of_them.claim("a", "web"):
            pass
        waiting = threading.Thread(target=look_after, daemon=True)
        waiting.start()
        assert not had.wait(0.1)
    assert had.wait(LIMIT_S)
    waiting.join(LIMIT_S)
    with all_of_them.claim("a", "web"):
        pass


def test_what_fails_while_it_is_held_is_told_and_gives_it_back() -> None:
    all_of_them = Claims()
    with pytest.raises(PrerequisiteError, match="another"), all_of_them.wait_for("a"):
        raise PrerequisiteError("another", code="already-moving")
    with all_of_them.claim("a", "web"):
        pass
