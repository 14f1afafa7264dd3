"""Polls the readers (APScheduler), and wakes at once those whose source or device tells that there is news."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from watchdog.signals.alarms import Alarms
from watchdog.signals.device_events import DeviceEvents
from watchdog.signals.model import Reading
from watchdog.signals.reader import Alarmed, Reader, Telling, sight

WATCHED = EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES | EVENT_JOB_ERROR
JITTER_SHARE = 0.05
GRACE_S = 300  # APScheduler's default of one second drops late jobs without a word
MISSED_TURNS = 3  # a slow reading may cost a turn or two
INSTANCES = 2  # one that reads, and one that waits for it: who is woken while the other is ending is not lost
ALARM_GAP_S = 0.2  # a source that never falls silent is read so often, and takes a reader no more than that

Deliver = Callable[[Sequence[Reading]], None]

_log = logging.getLogger(__name__)


class SignalMonitor:
    """Runs all readers; each in an executor of its own, so that one that hangs delays no other.

    `deliver` is called from the readers' threads, also two at a time. What a reader told before and cannot
    tell any more, because it fails or hangs, is delivered as unreadable.
    """

    def __init__(self, readers: Sequence[Reader], deliver: Deliver) -> None:
        self._readers = {reader.name: reader for reader in readers}
        self._deliver = deliver
        self._turns = {name: _Turn() for name in self._readers}
        self._stopping = threading.Event()
        self._events = DeviceEvents(self.poll_now, tuple(self._readers))
        self._alarms = Alarms(self.poll_now)
        self._scheduler = BackgroundScheduler(
            executors={name: ThreadPoolExecutor(1) for name in self._readers},
            job_defaults={"coalesce": True, "max_instances": INSTANCES, "misfire_grace_time": GRACE_S},
            timezone=UTC,
            daemon=True,
        )
        self._scheduler.add_listener(self._not_read, WATCHED)

    def start(self) -> None:
        """Begin to poll, every reader at once for the first time."""
        for reader in self._readers.values():
            self._scheduler.add_job(
                self._read,
                "interval",
                args=[reader.name],
                seconds=reader.poll_s,
                jitter=int(reader.poll_s * JITTER_SHARE) or None,
                id=reader.name,
                executor=reader.name,
                next_run_time=datetime.now(UTC),
            )
        self._scheduler.start()
        self._events.start()
        self._alarms.start()

    def stop(self) -> None:
        """Stop polling; a reader at work is not waited for."""
        self._stopping.set()
        self._events.stop()
        self._alarms.stop()
        self._scheduler.shutdown(wait=False)

    def poll_now(self, name: str | None = None) -> None:
        """Let one reader, or all, read at once instead of at its next turn; returns before it has read.

        One that is reading already reads once more, for what it reads may be older than the call.
        """
        for each in self._readers if name is None else (name,):
            if self._turns[each].ask_again() and self._scheduler.get_job(each) is not None:
                self._scheduler.modify_job(each, next_run_time=datetime.now(UTC))

    def forget(self, identity: str) -> None:
        """Let all readers forget a device that was replaced, or taken out on purpose."""
        for reader in self._readers.values():
            forget = getattr(reader, "forget", None)
            if forget is not None:
                forget(identity)

    def _read(self, name: str) -> None:
        """Read once, and again for as long as `poll_now` was called meanwhile; then set the reader's alarm."""
        turn, reader = self._turns[name], self._readers[name]
        turn.begin()
        try:
            while turn.is_next():
                readings = reader.read(time.time())
                if readings:
                    turn.told(readings)
                    self._deliver(readings)
                self._tell_others(reader)
                if isinstance(reader, Alarmed):
                    self._stopping.wait(ALARM_GAP_S)  # what floods is read in slices
        finally:
            turn.end()
            self._set_alarm(reader)

    def _tell_others(self, reader: Reader) -> None:
        for name in reader.news() if isinstance(reader, Telling) else ():
            if name in self._readers:
                self.poll_now(name)

    def _set_alarm(self, reader: Reader) -> None:
        alarm = reader.alarm() if isinstance(reader, Alarmed) else None
        if alarm is not None and not self._stopping.is_set():
            self._alarms.arm(reader.name, *alarm)

    def _not_read(self, event: JobEvent) -> None:
        """Tell what a reader that failed or is stuck leaves unreadable."""
        turn = self._turns[event.job_id]
        error = getattr(event, "exception", None)
        if error is not None:
            reason = f"the reader failed: {error!r}"
        elif event.code == EVENT_JOB_MISSED or turn.miss() >= MISSED_TURNS:
            reason = "the reader is stuck"
        else:
            return
        now = time.time()
        _log.warning("%s: %s", event.job_id, reason)
        lost = [Reading(last.signal, last.device, now, None, reason) for last in turn.last()]
        self._deliver([*lost, sight(event.job_id, now, reason)])


class _Turn:
    """Whether a reader is reading, whether it shall read again, and what it told last; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reading = False
        self._wanted = False
        self._missed = 0
        self._told: tuple[Reading, ...] = ()

    def ask_again(self) -> bool:
        """Note that a reading is wanted; return whether nobody is at it."""
        with self._lock:
            self._wanted = self._reading
            return not self._reading

    def begin(self) -> None:
        with self._lock:
            self._reading, self._wanted, self._missed = True, True, 0

    def is_next(self) -> bool:
        """Return whether to read (again); when not, the turn is over."""
        with self._lock:
            wanted, self._wanted = self._wanted, False
            self._reading = wanted
            return wanted

    def end(self) -> None:
        with self._lock:
            self._reading = False

    def told(self, readings: Sequence[Reading]) -> None:
        with self._lock:
            self._told = tuple(reading for reading in readings if reading.signal != "reader.blind")

    def last(self) -> tuple[Reading, ...]:
        with self._lock:
            return self._told

    def miss(self) -> int:
        """Count a turn that could not begin; return how many in a row."""
        with self._lock:
            self._missed += 1
            return self._missed
