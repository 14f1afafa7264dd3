"""The disk of the daemon's own files is full or read-only: it alerts and evacuates all the same."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from migrator.errors import ExecutionError, PrerequisiteError
from migrator.model import MigrationOutcome
from migrator.peers.membership import PeerDirectory
from tests.pure.test_alerts import Receiver, event, receiver
from tests.pure.test_daemon import DISK, FakeEngine, House, command, served
from watchdog.alerts import enduring
from watchdog.alerts.deliver import Deliverer
from watchdog.alerts.enduring import EnduringOutbox
from watchdog.alerts.model import AlertSettings, Kind, Webhook
from watchdog.alerts.outbox import Outbox
from watchdog.daemon.daemon import Daemon
from watchdog.daemon.order import Cause, Order
from watchdog.signals.places import StorageFacts
from watchdog.state import HostState

__all__ = ["receiver", "served"]  # fixtures


class Disk:
    """The disk below a directory; `fails` makes it read-only, as the kernel does after an error (EROFS)."""

    def __init__(self, below: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails = False
        self.refused = 0
        for name in ("open", "unlink"):
            monkeypatch.setattr(os, name, self._door(str(below), getattr(os, name)))

    def _door(self, below: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def door(path: Any, *words: Any, **named: Any) -> Any:
            flags = words[0] if words else named.get("flags", 0)
            reads = real.__name__ == "open" and not flags & (os.O_WRONLY | os.O_RDWR)
            if self.fails and not reads and str(path).startswith(below):
                self.refused += 1
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return real(path, *words, **named)

        return door


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Return the disk of the state directory."""
    return Disk(tmp_path / "state", monkeypatch)


def refuse_rows(outbox: object, *, refuse: bool = True) -> None:
    """Make SQLite say "attempt to write a readonly database", or not any more."""
    assert isinstance(outbox, EnduringOutbox)
    assert outbox._disk is not None
    outbox._disk._database.execute(f"PRAGMA query_only = {'ON' if refuse else 'OFF'}")


def break_disk(house: House, disk: Disk) -> Daemon:
    """Make the disk read-only under a daemon that runs."""
    disk.fails = True
    refuse_rows(house.daemon.deliverer._outbox)
    return house.daemon


def mend_disk(house: House, disk: Disk) -> None:
    """Make it writable again."""
    disk.fails = False
    refuse_rows(house.daemon.deliverer._outbox, refuse=False)


def test_a_host_whose_system_disk_fails_alerts_and_is_evacuated(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(tmp_path, FakeEngine(web="beta", db="beta"))
    house.tick()
    daemon = break_disk(house, disk)
    house.read(1.0)
    assert house.tick() is HostState.FAILING
    assert house.kinds() == [Kind.VERDICT]
    assert house.tick() is HostState.EVACUATING
    assert house.engine is not None
    assert house.engine.moved == ["web", "db"]
    assert house.tick() is HostState.EVACUATED
    ended = [Kind.MIGRATION_ENDED, Kind.MIGRATION_ENDED, Kind.EVACUATION_ENDED]
    assert house.kinds() == [Kind.VERDICT, Kind.VERDICT, Kind.EVACUATION_STARTED, *ended, Kind.VERDICT]
    said = [record.message for record in caplog.records if "flags.json cannot be written" in record.message]
    assert len(said) == 1, "once, not at every tick"
    assert len(daemon.ledger.cases) == 1
    mend_disk(house, disk)
    house.tick()
    assert json.loads((tmp_path / "state/flags.json").read_text())["state"] == "evacuated"
    assert json.loads((tmp_path / "state/ledger.json").read_text())["cases"]
    assert not (tmp_path / "state/evacuation.json").exists()
    assert len(house.kinds()) == 7
    after = Outbox(tmp_path / "state/outbox.db")
    assert after.waiting() == 7
    after.close()


def test_the_state_does_not_run_ahead_of_the_deeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path, FakeEngine(web="beta"))
    house.read(1.0)
    assert house.tick() is HostState.FAILING
    begin = house.daemon.evacuations.begin

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(house.daemon.evacuations, "begin", refuse)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            house.tick()
    assert house.daemon.flags.flags.state is HostState.FAILING
    assert house.kinds() == [Kind.VERDICT, Kind.VERDICT], "one of them that it is being evacuated"
    monkeypatch.setattr(house.daemon.evacuations, "begin", begin)
    assert house.tick(2) is HostState.EVACUATED
    assert house.engine is not None
    assert house.engine.moved == ["web"]


def test_an_outbox_that_raises_ends_no_evacuation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path, FakeEngine(web="beta", db="beta"))

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(house.daemon.deliverer._outbox, "put", refuse)
    house.read(1.0)
    assert house.tick(3) is HostState.EVACUATED
    assert house.engine is not None
    assert house.engine.moved == ["web", "db"]


def test_what_nobody_foresaw_of_one_container_stops_no_other(tmp_path: Path) -> None:
    class Broken(FakeEngine):
        def migrate(self, container: str, *words: Any, **named: Any) -> MigrationOutcome:
            if container == "web":
                raise OSError(errno.EROFS, "Read-only file system")
            return super().migrate(container, *words, **named)

    house = House(tmp_path, Broken(web="beta", db="beta"))
    house.read(1.0)
    assert house.tick(3) is HostState.EVACUATED
    assert house.engine is not None
    assert house.engine.moved == ["db"]
    end = next(item for item in house.alerts() if item.kind is Kind.EVACUATION_ENDED)
    assert "still here: web: unexpected: OSError(30" in end.text


def test_an_evacuation_that_cannot_even_be_planned_is_told_once(tmp_path: Path) -> None:
    class Dumb(FakeEngine):
        def containers(self) -> tuple[Any, ...]:
            raise ExecutionError("the journal cannot be used: disk I/O error", code="journal")

    house = House(tmp_path, Dumb(web="beta"), again_s=1e-6)
    house.read(1.0)
    assert house.tick(5) is HostState.EVACUATED
    texts = [item.text for item in house.alerts() if item.kind is Kind.EVACUATION_ENDED]
    assert texts == [f"{house.daemon.host} could not be emptied: the journal cannot be used: disk I/O error"]


def test_when_it_cannot_be_told_what_is_lost_everything_leaves(tmp_path: Path) -> None:
    house = House(tmp_path, FakeEngine(web="beta"))

    def unreadable() -> StorageFacts:
        raise OSError(errno.EIO, "Input/output error")

    concerned = type(house.daemon.losses)(unreadable, lambda: "/").concerned((DISK,), house.engine.containers())  # type: ignore[union-attr]
    assert [item.name for item in concerned.going] == ["web"]


def test_an_admin_is_told_that_a_word_is_not_on_disk(
    served: House, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    served.tick()
    disk.fails = True
    status, told = command(capsys, "pause")
    assert (status, told["code"]) == (4, "not-on-disk")
    assert "it holds now, but is not on disk" in told["error"]
    assert "Read-only file system" in told["error"]
    assert served.daemon.flags.flags.paused
    with pytest.raises(ExecutionError, match="it holds now"):
        served.daemon.ledger.missed("/dev/sdx", "")
    with pytest.raises(ExecutionError, match="it holds now"):
        served.daemon.judgement.silence("disk-health-failed", 3600.0, "x")
    assert served.daemon.judgement.silences()
    disk.fails = False
    served.tick()
    assert served.start().flags.flags.paused
    assert command(capsys, "resume")[0] == 0


def test_whoever_orders_an_evacuation_is_told_what_a_restart_forgets(tmp_path: Path, disk: Disk) -> None:
    house = House(tmp_path, FakeEngine(web="beta"))
    daemon = break_disk(house, disk)
    job = daemon.evacuate(Order(cause=Cause.ADMIN))
    lines = [str(line.get("message", "")) for line in job.follow()]
    assert house.engine is not None
    assert house.engine.moved == ["web"]
    assert [line for line in lines if line.startswith("flags.json: it holds now, but is not on disk")]
    assert [line for line in lines if line.startswith("evacuation.json: it holds now, but is not on disk")]
    assert daemon.health().cordoned


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[EnduringOutbox]:
    """Return an outbox whose disk is well."""
    found = EnduringOutbox(tmp_path / "outbox.db")
    yield found
    found.close()


def alerts(outbox: EnduringOutbox, receiver: Receiver) -> Deliverer:
    """Return a deliverer whose thread is not started."""
    return Deliverer(outbox, AlertSettings(webhook=(Webhook(url=receiver.url),)))


def test_what_the_disk_refuses_is_delivered_in_order_and_once(
    outbox: EnduringOutbox, receiver: Receiver, tmp_path: Path
) -> None:
    deliverer = alerts(outbox, receiver)
    sent = [event(text) for text in ("first", "second", "third")]
    deliverer.send(sent[0])
    refuse_rows(outbox)
    for item in sent[1:]:
        deliverer.send(item)
    for _ in range(3):
        deliverer.deliver_due()
    assert receiver.events() == sent, "also that the first was delivered is remembered"
    assert outbox.waiting() == 0
    refuse_rows(outbox, refuse=False)
    deliverer.deliver_due()
    after = Outbox(tmp_path / "outbox.db")
    assert {row[6] for row in after.rows()} == {"delivered"}
    assert len(after.rows()) == 3
    after.close()
    assert outbox._memory.rows() == ()


def test_what_the_disk_refuses_is_tried_again_like_the_others(
    outbox: EnduringOutbox, receiver: Receiver, tmp_path: Path
) -> None:
    refuse_rows(outbox)
    deliverer = alerts(outbox, receiver)
    receiver.status = 503
    sent = event()
    deliverer.send(sent)
    for _ in range(2):
        deliverer.deliver_due()
    assert len(receiver.bodies) == 1, "not before its time"
    found = outbox.next_at()
    assert found is not None
    assert 1 < found - time.time() < 3
    refuse_rows(outbox, refuse=False)
    deliverer.deliver_due()
    receiver.status = 200
    after = Outbox(tmp_path / "outbox.db")
    (parcel,) = after.due(found)
    assert (parcel.event, parcel.attempts) == (sent, 1), "the disk has it now, with its attempts"
    after.close()


def test_memory_has_an_end(
    outbox: EnduringOutbox, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(enduring, "KEPT_PARCELS", 2)
    refuse_rows(outbox)
    deliverer = alerts(outbox, receiver)
    sent = [event(text) for text in ("first", "second", "third")]
    for item in sent:
        deliverer.send(item)
    deliverer.deliver_due()
    assert receiver.events() == sent[1:]
    assert "1 alerts are lost: more than 2 wait in memory" in caplog.text
    assert caplog.text.count("cannot be used, alerts are kept in memory") == 1


def test_an_outbox_that_cannot_be_opened_is_opened_later(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no directory")
    outbox = EnduringOutbox(tmp_path / "state/outbox.db")
    deliverer = alerts(outbox, receiver)
    deliverer.start()
    sent = event()
    deliverer.send(sent)
    deadline = time.monotonic() + 10
    while not receiver.bodies and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    deliverer.stop()
    assert receiver.events() == [sent]
    (tmp_path / "state").unlink()
    outbox.close()
    after = Outbox(tmp_path / "state/outbox.db")
    assert len(after.rows()) == 1
    after.close()


def test_a_daemon_that_starts_on_such_a_disk_watches_and_alerts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(tmp_path, None)
    monkeypatch.setattr(PeerDirectory, "joined", property(lambda _: True))
    monkeypatch.setattr(PeerDirectory, "host", property(lambda _: "alpha"))
    (tmp_path / "state/journal.db").mkdir()  # SQLite: "unable to open database file", as on a read-only disk
    for _ in range(3):
        house.daemon._join_cluster()
    assert caplog.text.count("nothing can be moved until it can") == 1
    house.read(1.0)
    assert house.tick(2) is HostState.FAILING
    (alert,) = house.alerts()
    assert "failing, but the journal" in alert.text
    assert "cannot be used: unable to open database file" in alert.text
    with pytest.raises(PrerequisiteError, match="nothing can be moved: the journal"):
        house.daemon.moving()


def test_what_a_daemon_before_has_left_is_taken_up_when_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path, None)
    monkeypatch.setattr(PeerDirectory, "joined", property(lambda _: True))
    monkeypatch.setattr(PeerDirectory, "host", property(lambda _: "alpha"))
    engine = FakeEngine()
    answers = iter([ExecutionError("disk I/O error", code="journal"), None])
    recovered: list[str] = []

    def recover(*_: object) -> None:
        if error := next(answers):
            raise error
        recovered.append("recovered")

    def opened() -> None:
        house.daemon.engine = house.daemon._unrecovered = engine  # type: ignore[assignment]

    monkeypatch.setattr(engine, "recover", recover, raising=False)
    monkeypatch.setattr(house.daemon, "_open", opened)
    for _ in range(4):
        house.daemon._join_cluster()
    assert recovered == ["recovered"]
