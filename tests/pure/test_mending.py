"""A link for faults that breaks: the tree stands while nobody answers its faults, and never for longer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from migrator.pager.greeting import FAULTS
from migrator.pager.links import Link, SocketLink
from migrator.pager.own_sink import OwnSink
from migrator.pager.sink import SinkState
from migrator.runtime.cgroup import Cgroup

LIMIT_S = 10.0
SOCKETS: list[socket.socket] = []


class Draining(OwnSink):
    """A sink in the middle of its drain, without its processes; its tree's cgroup is a directory."""

    def __init__(self, cgroup: Path, reconnect_limit_s: float) -> None:
        self.state = SinkState.DRAINING
        self.changed = threading.Condition()
        self.links: dict[str, Link] = {FAULTS: link()}
        self.order: Any = SimpleNamespace(reconnect_limit_s=reconnect_limit_s)
        self.guard: Any = SimpleNamespace(dismiss=lambda: None)
        self._inflow: Any = SimpleNamespace(surrender=list, received_bytes=0)
        self._reason, self._froze, self._began_at, self._ended_at = "", False, time.time(), 0.0
        self._cgroup = cgroup
        (cgroup / "cgroup.freeze").write_text("0")

    def _tree(self) -> Cgroup:
        return Cgroup(self._cgroup)

    @property
    def stands(self) -> bool:
        """Say whether its tree is frozen."""
        return Cgroup(self._cgroup).told_to_freeze

    def link_breaks(self) -> threading.Thread:
        """Let the link for faults break; return who mends it."""
        work = lambda: self._mend_faults(self.links[FAULTS], OSError("timed out"))  # noqa: E731
        mender = threading.Thread(target=self._watch, args=(work, FAULTS), daemon=True)
        mender.start()
        return mender


def link() -> Link:
    """Return a link to nobody."""
    SOCKETS.append(socket.create_server(("127.0.0.1", 0)))
    return SocketLink(SOCKETS[-1])


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    yield
    while SOCKETS:
        SOCKETS.pop().close()


def wait_for_it_to_stand(sink: Draining) -> None:
    """Wait until its tree is frozen."""
    deadline = time.monotonic() + LIMIT_S
    while not sink.stands and time.monotonic() < deadline:
        time.sleep(0.001)
    assert sink.stands


def test_a_drain_that_completes_while_the_link_is_mended_lets_the_tree_go(tmp_path: Path) -> None:
    sink = Draining(tmp_path, reconnect_limit_s=0.2)
    mender = sink.link_breaks()
    wait_for_it_to_stand(sink)
    sink.complete()
    mender.join(LIMIT_S)
    assert (sink.state, sink.stands) == (SinkState.DRAINED, False)


def test_a_link_that_breaks_when_all_is_here_does_not_matter(tmp_path: Path) -> None:
    sink = Draining(tmp_path, reconnect_limit_s=0.2)
    sink.complete()
    sink.link_breaks().join(LIMIT_S)
    assert (sink.state, sink.stands) == (SinkState.DRAINED, False)


def test_a_link_that_does_not_come_back_leaves_it_standing(tmp_path: Path) -> None:
    sink = Draining(tmp_path, reconnect_limit_s=0.05)
    sink.link_breaks().join(LIMIT_S)
    assert (sink.state, sink.stands) == (SinkState.LOST, True)


def test_what_somebody_else_froze_stays_frozen(tmp_path: Path) -> None:
    sink = Draining(tmp_path, reconnect_limit_s=LIMIT_S)
    for paused in (False, True):
        (tmp_path / "cgroup.freeze").write_text("01"[paused])
        mender = sink.link_breaks()
        wait_for_it_to_stand(sink)
        while FAULTS in sink.links:
            time.sleep(0.001)
        with sink.changed:
            sink.links[FAULTS] = link()
            sink.changed.notify_all()
        mender.join(LIMIT_S)
        assert sink.stands is paused
