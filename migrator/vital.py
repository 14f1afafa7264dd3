"""Threads that nobody misses when they end by a mistake: alerts wait for ever, a certificate is not renewed.

So whatever ends one is written to the log, and it begins again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

AGAIN_S = 5.0

Told = TypeVar("Told")

_log = logging.getLogger(__name__)


def vital_thread(name: str, work: Callable[[], None]) -> threading.Thread:
    """Return a thread, not started yet, that does `work` until that returns; after an error it does so again."""
    return threading.Thread(target=_go_on, args=(name, work), name=name, daemon=True)


def unbroken(tell: Callable[[Told], None]) -> Callable[[Told], None]:
    """Return what tells the same and raises nothing: that nobody can be told ends no work on what is told."""

    def try_to(told: Told) -> None:
        try:
            tell(told)
        except Exception:  # noqa: BLE001  an outbox on a dead disk
            _log.exception("nobody could be told: %s", told)

    return try_to


def _go_on(name: str, work: Callable[[], None]) -> None:
    while True:
        try:
            work()
        except Exception:  # noqa: BLE001  whatever it is, the next one may be well again
            _log.exception("the thread %s failed; it begins again in %g s", name, AGAIN_S)
            time.sleep(AGAIN_S)
        else:
            return
