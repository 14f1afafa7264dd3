"""Whose turn it is, with real threads; and promises of memory, with their expiry."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrator.errors import ExecutionError
from migrator.planning.limits import Limits
from migrator.source.turns import Turns
from migrator.target.reservations import LONGEST_S, Hold, Reservations

Enter = Callable[[], AbstractContextManager[float]]


class Visitor:
    """A thread that takes a place and keeps it until it is told to go."""

    def __init__(self, enter: Enter) -> None:
        self.inside = threading.Event()
        self.leave = threading.Event()
        self.refused: list[Exception] = []
        self._enter = enter
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            with self._enter():
                self.inside.set()
                assert self.leave.wait(10)
        except ExecutionError as error:
            self.refused.append(error)

    def end(self) -> None:
        """Let it go, and wait until it has."""
        self.leave.set()
        self.thread.join(10)
        assert not self.thread.is_alive()


def nothing() -> None:
    """Go on."""


def test_places_are_limited_and_the_earliest_in_the_plan_is_next() -> None:
    turns = Turns(Limits(at_once=9, away=2, away_per_target=2, freezes=1))
    first, second = (Visitor(lambda order=order: turns.away("b", order, nothing)) for order in (1, 2))  # type: ignore[misc]
    assert first.inside.wait(5)
    assert second.inside.wait(5)
    late = Visitor(lambda: turns.away("b", 9, nothing))
    early = Visitor(lambda: turns.away("b", 3, nothing))
    assert not early.inside.wait(0.3)
    assert not late.inside.is_set()
    first.end()
    assert early.inside.wait(5)
    assert not late.inside.is_set()
    second.end()
    assert late.inside.wait(5)
    early.end()
    late.end()


def test_a_full_target_holds_up_only_what_goes_there() -> None:
    turns = Turns(Limits(at_once=9, away=2, away_per_target=1, freezes=1))
    first = Visitor(lambda: turns.away("b", 1, nothing))
    assert first.inside.wait(5)
    waiting = Visitor(lambda: turns.away("b", 2, nothing))
    other = Visitor(lambda: turns.away("c", 3, nothing))
    assert other.inside.wait(5)
    assert not waiting.inside.is_set()
    first.end()
    assert waiting.inside.wait(5)
    waiting.end()
    other.end()


def test_who_waits_can_be_stopped_and_leaves_no_trace() -> None:
    turns = Turns(Limits(at_once=9, away=1, away_per_target=1, freezes=1))
    stopped = threading.Event()

    def go_on() -> None:
        if stopped.is_set():
            raise ExecutionError("stopped", code="stopped")

    first = Visitor(lambda: turns.freeze("b", 1, nothing))
    assert first.inside.wait(5)
    waiting = Visitor(lambda: turns.freeze("b", 2, go_on))
    stopped.set()
    waiting.thread.join(5)
    assert [str(error) for error in waiting.refused] == ["stopped"]
    third = Visitor(lambda: turns.freeze("b", 3, nothing))
    first.end()
    assert third.inside.wait(5)
    third.end()


def test_an_image_is_sent_once_to_each_target() -> None:
    turns = Turns()
    with turns.image("b", "1") as sent:
        assert not sent
    with turns.image("b", "1") as sent:
        assert sent
    with turns.image("c", "1") as sent:
        assert not sent

    def fail() -> None:
        with turns.image("d", "1"):
            raise ExecutionError("the link broke", code="stream-lost")

    with pytest.raises(ExecutionError):
        fail()
    with turns.image("d", "1") as sent:
        assert not sent


WISHES = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 100), st.floats(0, 400), st.floats(0, 50)), max_size=30
)


@given(WISHES, st.integers(0, 200))
def test_promises_never_exceed_what_is_free(wishes: list[tuple[str, int, float, float]], free: int) -> None:
    """Whoever asks, in whatever order, however long: the sum of promises in force fits."""
    desk, now = Reservations(), 0.0
    for source, size, seconds, passed in wishes:
        now += passed
        held = desk.hold(Hold(source=source, memory_bytes=size, seconds=seconds), free, now)
        assert held.memory_bytes in (0, size)
        assert held.memory_bytes == size or held.reason
        assert sum(desk.held(now).values()) <= free
    assert desk.held(now + LONGEST_S) == {}


def test_a_promise_expires_is_renewed_and_is_used_up() -> None:
    desk = Reservations()
    wish = Hold(source="a", memory_bytes=60, seconds=100)
    assert desk.hold(wish, 100, 0).memory_bytes == 60
    refused = desk.hold(Hold(source="b", memory_bytes=60, seconds=100), 100, 1)
    assert (refused.memory_bytes, "asked for" in refused.reason) == (0, True)
    assert desk.hold(wish, 100, 90).memory_bytes == 60  # the same one again, not another 60
    assert desk.held(150) == {"a": 60}
    desk.take("a", 20)
    assert (desk.held(150), desk.held_for_others("b", 150), desk.held_for_others("a", 150)) == ({"a": 40}, 40, 0)
    assert desk.hold(Hold(source="b", memory_bytes=60, seconds=100), 100, 150).memory_bytes == 60
    assert desk.held(191) == {"b": 60}
    desk.hold(Hold(source="b", memory_bytes=0, seconds=0), 100, 191)
    assert desk.held(191) == {}
