"""Slow work, one thread each, that is never waited for longer than told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Attempts(Generic[Result]):
    """Runs one piece of work per name at a time, each in a thread of its own.

    A program in uninterruptible sleep, as under a drive that hangs, cannot be killed: its thread stays until
    the kernel lets go, and meanwhile the same name is not tried again. The threads are daemons, so they do
    not hold up the end of the process. At most `at_once` work at the same time; one that waited
    `patience_s` seconds for its turn works nevertheless, so that hung ones cannot take all places for ever.
    """

    def __init__(self, at_once: int, patience_s: float) -> None:
        self._places = threading.Semaphore(at_once)
        self._patience_s = patience_s
        self._running: dict[str, Future[Result]] = {}

    def run(self, work: Mapping[str, Callable[[], Result]], limit_s: float) -> dict[str, Future[Result]]:
        """Do all work and return the futures, which are done, failed, or still running after `limit_s` seconds.

        Work whose name still runs from an earlier call is not started: its future is the earlier one when it
        does not end in time, and has no result then.
        """
        late = {name: self._running[name] for name in work if self._is_running(name)}
        futures = {name: self._start(name, deed) for name, deed in work.items() if name not in late}
        wait(futures.values(), timeout=limit_s)
        return {**late, **futures}

    def _is_running(self, name: str) -> bool:
        return name in self._running and not self._running[name].done()

    def _start(self, name: str, deed: Callable[[], Result]) -> Future[Result]:
        future: Future[Result] = Future()
        self._running[name] = future
        threading.Thread(target=self._do, args=(deed, future), name=f"read {name}", daemon=True).start()
        return future

    def _do(self, deed: Callable[[], Result], future: Future[Result]) -> None:
        placed = self._places.acquire(timeout=self._patience_s)
        try:
            future.set_result(deed())
        except BaseException as error:  # noqa: BLE001  the entry point of a thread: told where it is waited for
            future.set_exception(error)
        finally:
            if placed:
                self._places.release()
