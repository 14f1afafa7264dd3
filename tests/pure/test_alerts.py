"""Alerts: to a real receiver, signed, once each, through failures and restarts."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from watchdog.alerts.deliver import EVENT_ID, SIGNATURE, Deliverer
from watchdog.alerts.model import AlertSettings, Event, Kind, Severity, Webhook
from watchdog.alerts.outbox import FIRST_RETRY_S, LONGEST_RETRY_S, Outbox


class Receiver:
    """A webhook receiver on the loopback; `status` is what it answers."""

    def __init__(self) -> None:
        self.status = 200
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.headers.append(dict(self.headers))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def events(self) -> list[Event]:
        """Return what has come."""
        return [Event.model_validate_json(body) for body in self.bodies]

    def close(self) -> None:
        """Go away: nobody listens any more."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Return a receiver that listens."""
    found = Receiver()
    yield found
    found.close()


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """Return an empty outbox."""
    found = Outbox(tmp_path / "outbox.db")
    yield found
    found.close()


def event(text: str = "a disk fails", severity: Severity = Severity.CRITICAL) -> Event:
    """Return an event of alpha."""
    return Event(host="alpha", severity=severity, kind=Kind.VERDICT, text=text)


def deliverer(outbox: Outbox, *hooks: Webhook, attempts: int = 50) -> Deliverer:
    """Return a deliverer whose thread is not started: tests say when it looks."""
    return Deliverer(outbox, AlertSettings(webhook=hooks, attempts=attempts))


def make_due(outbox: Outbox) -> None:
    """Let all waiting time pass."""
    with outbox._lock, outbox._database:
        outbox._database.execute("UPDATE parcel SET next_at = 0")


def test_the_body_is_the_event_and_the_signature_is_of_the_body(
    receiver: Receiver, outbox: Outbox, tmp_path: Path
) -> None:
    secret = tmp_path / "key"
    secret.write_bytes(b"s3cret\n")
    sent = event()
    alerts = deliverer(outbox, Webhook(url=receiver.url, secret_file=str(secret)))
    alerts.send(sent)
    alerts.deliver_due()
    assert receiver.events() == [sent]
    assert {"id", "at", "host", "severity", "kind", "text", "signals", "plan", "outcome"} == set(
        json.loads(receiver.bodies[0])
    )
    headers = receiver.headers[0]
    assert headers[EVENT_ID] == sent.id
    assert headers[SIGNATURE] == "sha256=" + hmac.new(b"s3cret", receiver.bodies[0], hashlib.sha256).hexdigest()
    assert outbox.waiting() == 0


def test_what_was_delivered_is_not_delivered_again_after_a_restart(receiver: Receiver, tmp_path: Path) -> None:
    hook = Webhook(url=receiver.url)
    before = Outbox(tmp_path / "outbox.db")
    alerts = deliverer(before, hook)
    first, second = event("first"), event("second")
    alerts.send(first)
    alerts.deliver_due()
    alerts.send(second)  # the daemon dies here
    before.close()
    after = Outbox(tmp_path / "outbox.db")
    again = deliverer(after, hook)
    again.send(first)  # a daemon that came back may say the same once more
    again.deliver_due()
    again.deliver_due()
    assert receiver.events() == [first, second]
    after.close()


def test_a_receiver_that_refuses_gets_it_later_and_less_and_less_often(receiver: Receiver, outbox: Outbox) -> None:
    receiver.status = 503
    alerts = deliverer(outbox, Webhook(url=receiver.url))
    alerts.send(event())
    pauses = []
    for _ in range(12):
        alerts.deliver_due()
        (row,) = outbox._database.execute("SELECT next_at FROM parcel").fetchall()
        pauses.append(row[0] - time.time())
        alerts.deliver_due()  # not due yet
        make_due(outbox)
    assert len(receiver.bodies) == 12
    assert pauses[0] == pytest.approx(FIRST_RETRY_S, abs=0.5)
    rounded = [round(pause, 1) for pause in pauses]
    assert rounded == sorted(rounded)
    assert pauses[-1] == pytest.approx(LONGEST_RETRY_S, abs=0.5)
    receiver.status = 204
    alerts.deliver_due()
    assert outbox.waiting() == 0
    assert len({found.id for found in receiver.events()}) == 1


def test_after_so_many_attempts_an_event_is_given_up(receiver: Receiver, outbox: Outbox) -> None:
    receiver.status = 500
    alerts = deliverer(outbox, Webhook(url=receiver.url), attempts=3)
    alerts.send(event())
    for _ in range(5):
        alerts.deliver_due()
        make_due(outbox)
    assert len(receiver.bodies) == 3
    assert outbox.waiting() == 0


def test_a_receiver_that_is_down_is_tried_once_per_look_and_delays_nobody(
    receiver: Receiver, outbox: Outbox
) -> None:
    gone = Receiver()
    gone.status = 500
    alerts = deliverer(outbox, Webhook(url=gone.url), Webhook(url=receiver.url))
    sent = [event(str(number)) for number in range(5)]
    for each in sent:
        alerts.send(each)
    alerts.deliver_due()
    assert len(gone.bodies) == 1
    assert receiver.events() == sent
    gone.status = 200
    make_due(outbox)
    alerts.deliver_due()
    assert [found.text for found in gone.events()[1:]] == [each.text for each in sent]
    gone.close()


def test_a_receiver_gets_only_what_is_urgent_enough_for_it(receiver: Receiver, outbox: Outbox) -> None:
    alerts = deliverer(outbox, Webhook(url=receiver.url, severity=Severity.WARNING))
    for severity in Severity:
        alerts.send(event(severity=severity))
    alerts.deliver_due()
    assert [found.severity for found in receiver.events()] == [Severity.WARNING, Severity.CRITICAL]


def test_a_missing_key_is_a_reason_to_wait_not_to_send_unsigned(receiver: Receiver, outbox: Outbox) -> None:
    alerts = deliverer(outbox, Webhook(url=receiver.url, secret_file="/is/not/there"))
    alerts.send(event())
    alerts.deliver_due()
    assert receiver.bodies == []
    assert outbox.waiting() == 1


def test_the_thread_delivers_by_itself_what_an_earlier_daemon_left(receiver: Receiver, tmp_path: Path) -> None:
    hook = Webhook(url=receiver.url)
    left = Outbox(tmp_path / "outbox.db")
    deliverer(left, hook).send(event())
    left.close()
    outbox = Outbox(tmp_path / "outbox.db")
    alerts = deliverer(outbox, hook)
    alerts.start()
    deadline = time.monotonic() + 10
    while outbox.waiting() and time.monotonic() < deadline:
        time.sleep(0.01)
    alerts.stop()
    assert len(receiver.bodies) == 1
    outbox.close()
