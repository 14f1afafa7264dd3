"""Jobs: migrations and evacuations under way, with their progress, for whoever watches."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from migrator.errors import LifeboatError, told_of

KEPT_JOBS = 50


@dataclass
class Job:
    """One job; `lines` grows while it runs and ends with a line that has `ended`."""

    what: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    lines: list[dict[str, Any]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    ended: bool = False
    stopping: bool = False  # begin nothing more
    cancelled: threading.Event = field(default_factory=threading.Event)  # and give up what is not committed
    left: bool = False  # the daemon stops: nobody is told its end

    def say(self, line: dict[str, Any]) -> None:
        """Add a line."""
        with self.changed:
            self.lines.append(line)
            self.changed.notify_all()

    def end(self, line: dict[str, Any]) -> None:
        """Add the last line."""
        with self.changed:
            self.lines.append({**line, "ended": True})
            self.ended = True
            self.changed.notify_all()

    def follow(self) -> Iterator[dict[str, Any]]:
        """Return every line, waiting for those to come; without the last one when the daemon stops before it."""
        number = 0
        while True:
            with self.changed:
                while number >= len(self.lines) and not self.ended and not self.left:
                    self.changed.wait(1.0)
                fresh, ended = self.lines[number:], self.ended or self.left
            yield from fresh
            number += len(fresh)
            if ended and number >= len(self.lines):
                return


class Jobs:
    """The jobs of this daemon."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def start(self, what: str, work: Callable[[Job], dict[str, Any]]) -> Job:
        """Run `work` in a thread; what it returns or raises becomes the last line."""
        job = Job(what)
        with self._lock:
            self._jobs[job.id] = job
            for old in list(self._jobs)[:-KEPT_JOBS]:
                del self._jobs[old]
        threading.Thread(target=self._run, args=(job, work), name=what, daemon=True).start()
        return job

    def running(self) -> tuple[Job, ...]:
        """Return the jobs that have not ended."""
        with self._lock:
            return tuple(job for job in self._jobs.values() if not job.ended)

    def leave(self) -> None:
        """The daemon stops: let nobody who follows a job keep it waiting."""
        for job in self.running():
            with job.changed:
                job.left = True
                job.changed.notify_all()

    def _run(self, job: Job, work: Callable[[Job], dict[str, Any]]) -> None:
        try:
            job.end(work(job))
        except LifeboatError as error:
            job.end(told_of(error))
        except BaseException as error:
            job.end({"error": repr(error), "code": "internal", "hint": "", "status": 70})
            raise
