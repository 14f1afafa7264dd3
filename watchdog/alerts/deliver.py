"""Deliver events to webhooks, with a signature where a secret is set."""

from __future__ import annotations

import hashlib
import hmac
import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from migrator.later import Later
from migrator.vital import vital_thread
from watchdog.alerts.enduring import EnduringOutbox
from watchdog.alerts.model import AlertSettings, Event, Webhook
from watchdog.alerts.outbox import Outbox, Parcel

if TYPE_CHECKING:
    import requests
else:
    requests = Later("requests")

LEAST_S, LONGEST_S = 1.0, 60.0  # between two looks; the clock may be set meanwhile
SIGNATURE, EVENT_ID = "X-Lifeboat-Signature", "X-Lifeboat-Event"
"""`sha256=` and the hexadecimal HMAC-SHA256 of the body, as GitHub's webhooks have made usual."""

_log = logging.getLogger(__name__)


class Deliverer:
    """Takes events and delivers them in a thread of its own."""

    def __init__(self, outbox: Outbox | EnduringOutbox, settings: AlertSettings) -> None:
        self._outbox = outbox
        self._settings = settings
        self._woken = threading.Event()
        self._stopping = False
        self._thread = vital_thread("alerts", self._run)

    def start(self) -> None:
        """Begin to deliver, also what an earlier daemon left."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; what is not delivered waits on disk."""
        self._stopping = True
        self._woken.set()
        self._thread.join(5)

    def send(self, event: Event) -> None:
        """Take an event; on return it is on disk, or in memory while an `EnduringOutbox` has no disk."""
        _log.log(logging.WARNING if event.severity.rank else logging.INFO, "%s: %s", event.kind, event.text)
        urls = [hook.url for hook in self._settings.webhook if event.severity.rank >= hook.severity.rank]
        self._outbox.put(event, tuple(dict.fromkeys(urls)))
        self._woken.set()

    def deliver_due(self) -> None:
        """Try every parcel that is due, once; what a receiver would not take now does not delay other receivers."""
        hooks = {hook.url: hook for hook in self._settings.webhook}
        down: dict[str, str] = {}
        for parcel in self._outbox.due(time.time()):
            if parcel.url in down:
                self._outbox.postpone(parcel, down[parcel.url], time.time())
                continue
            hook = hooks.get(parcel.url)
            reason = deliver(parcel.event, hook) if hook else "the receiver is not in the settings any more"
            if not reason:
                self._outbox.delivered(parcel)
                continue
            down[parcel.url] = reason
            self._put_off(parcel, reason)

    def _put_off(self, parcel: Parcel, reason: str) -> None:
        limit = self._settings.attempts
        if self._outbox.failed(parcel, reason, time.time(), limit):
            _log.error("event %s to %s given up after %d attempts: %s", parcel.event.id, parcel.url, limit, reason)
        else:
            _log.warning("event %s to %s not delivered yet: %s", parcel.event.id, parcel.url, reason)

    def _run(self) -> None:
        while not self._stopping:
            self.deliver_due()
            next_at = self._outbox.next_at()
            self._woken.wait(LONGEST_S if next_at is None else min(LONGEST_S, max(LEAST_S, next_at - time.time())))
            self._woken.clear()


def deliver(event: Event, hook: Webhook) -> str:
    """Post one event; return why it failed, or an empty text."""
    body = event.model_dump_json().encode()
    headers = {"Content-Type": "application/json", "User-Agent": "lifeboat", EVENT_ID: event.id}
    try:
        if hook.secret_file:
            headers[SIGNATURE] = sign(body, Path(hook.secret_file).read_bytes().strip())
        verify: str | bool = hook.verify_file or True
        response = requests.post(hook.url, data=body, headers=headers, timeout=hook.timeout_s, verify=verify)
    except (requests.RequestException, OSError) as error:
        return str(error)
    return "" if response.ok else f"the receiver answered {response.status_code}"


def sign(body: bytes, secret: bytes) -> str:
    """Return the signature header's value for a body."""
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
