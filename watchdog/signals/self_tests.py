"""Starts the drives' own self-tests from time to time, when the settings ask for it; the results come with SMART.

One drive an hour, so that a shelf of disks never tests itself all at once; a long test counts as a short one too.
When each was started last is kept in a file, over restarts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from migrator.errors import LifeboatError
from watchdog.signals.model import Reading
from watchdog.signals.smart_answer import Drive
from watchdog.signals.smart_scan import self_test

POLL_S = 3600.0
DAY_S = 86400.0
SHORT, LONG = "short", "long"
TRIED_AGAIN_S = DAY_S  # a drive that refuses, as one that does not know self-tests, is left alone so long

_log = logging.getLogger(__name__)


class SelfTests:
    """Looks once an hour which drive is due. It reads nothing; the monitor runs it like a reader."""

    name = "self-tests"
    poll_s = POLL_S

    def __init__(
        self,
        drives: Callable[[], Sequence[Drive]],
        file: Path,
        *,
        short_s: float,
        long_s: float,
        start: Callable[[Drive, str], str] = self_test,
    ) -> None:
        """`short_s` and `long_s` are the times between two tests of a kind; `drives` are those that are awake."""
        self._drives, self._file, self._start = drives, file, start
        self._every = {LONG: long_s, SHORT: short_s}
        self._started: dict[str, dict[str, float]] = _load(file)

    def read(self, now: float) -> tuple[Reading, ...]:
        """Start the test that is most overdue, if any."""
        for drive, kind in due(self._drives(), self._started, self._every, now):
            try:
                said = self._start(drive, kind)
            except LifeboatError as error:
                _log.warning("%s self-test of %s: %s", kind, drive.name, error.message)
                self._put_off(drive, now)
                continue
            _log.info("%s self-test of %s: %s", kind, drive.name, said)
            begun = (LONG, SHORT) if kind == LONG else (SHORT,)
            self._note(drive, dict.fromkeys(begun, now))
            break
        return ()

    def _put_off(self, drive: Drive, now: float) -> None:
        """Leave a drive alone for a day, with either test."""
        known = self._started.get(drive.name, {})
        put_off = {kind: now - every_s + TRIED_AGAIN_S for kind, every_s in self._every.items()}
        self._note(drive, {kind: max(at, known.get(kind, at)) for kind, at in put_off.items()})

    def _note(self, drive: Drive, started: Mapping[str, float]) -> None:
        self._started.setdefault(drive.name, {}).update(started)
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file.write_text(json.dumps(self._started))
        except OSError as error:
            _log.error("%s cannot be written: %s", self._file, error)


def due(
    drives: Sequence[Drive], started: dict[str, dict[str, float]], every: dict[str, float], now: float
) -> list[tuple[Drive, str]]:
    """Return which drives are due for which test, the most overdue first; each once, long before short. Pure.

    A clock that was set back makes nothing due for ever: a start in the future counts as none.
    """
    found: dict[str, tuple[float, Drive, str]] = {}
    for kind in (LONG, SHORT):
        for drive in drives:
            at = started.get(drive.name, {}).get(kind, 0.0)
            late_s = now - (at if at <= now else 0.0) - every[kind]
            if late_s >= 0 and drive.name not in found:
                found[drive.name] = (late_s, drive, kind)
    return [(drive, kind) for _, drive, kind in sorted(found.values(), key=lambda item: -item[0])]


def _load(file: Path) -> dict[str, dict[str, float]]:
    try:
        found = json.loads(file.read_text())
        return {str(name): {str(kind): float(at) for kind, at in kinds.items()} for name, kinds in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
