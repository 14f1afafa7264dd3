"""Events of the kernel's tracepoints, in an instance of our own (Documentation/trace/{events,ftrace}.rst)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TRACEFS = Path("/sys/kernel/tracing")
INSTANCE = "lifeboat"
BUFFER_KB = 64  # of each processor; the few events we ask for are small
CHUNK_BYTES = 65536
MOST_CHUNKS = 64  # in one reading; what floods is read in slices
LINE = re.compile(r":\s(?P<name>\w+):\s(?P<text>.*)$")


@dataclass(frozen=True)
class TraceEvent:
    """One event as the kernel prints it: `mce_record`, and its fields as text."""

    name: str
    text: str


def parse_event(line: str) -> TraceEvent | None:
    """Return the event in a line of trace_pipe; None for what is none. Pure.

    A line is `task-pid [processor] flags time: name: fields`.
    """
    found = LINE.search(line)
    return TraceEvent(found["name"], found["text"]) if found else None


class Tracing:
    """The instance; what happened before it is opened again, as after a restart of ours, is still in it."""

    def __init__(self, tracefs: Path, events: Sequence[str], instance: str = INSTANCE) -> None:
        """`events` are `system/name`; those the kernel does not have are left out.

        Only one program may read an instance.
        """
        self._tracefs, self._events = tracefs, tuple(events)
        self._instance = tracefs / "instances" / instance
        self._pipe: int | None = None
        self._rest = b""
        self.heard: frozenset[str] = frozenset()

    @property
    def descriptor(self) -> int | None:
        """Return what becomes readable with an event; None before the first call of `events`."""
        return self._pipe

    def events(self) -> Iterator[TraceEvent]:
        """Return what has happened since; raises OSError when the kernel has no tracing or forbids it."""
        if self._pipe is None:
            self._open()
        for _ in range(MOST_CHUNKS):
            try:
                chunk = os.read(self._pipe or 0, CHUNK_BYTES)
            except BlockingIOError:
                return
            if not chunk:
                return
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                event = parse_event(line.decode("utf-8", "replace"))
                if event is not None:
                    yield event

    def _open(self) -> None:
        there = [event for event in self._events if (self._tracefs / "events" / event).is_dir()]
        if not there:
            raise FileNotFoundError(2, f"{self._tracefs} has none of {', '.join(self._events)}")
        instance = self._instance
        instance.mkdir(exist_ok=True)
        # Since 5.16 a reader is only woken when the buffer is half full, unless this is 0.
        for name, value in (("buffer_size_kb", BUFFER_KB), ("buffer_percent", 0)):
            if (instance / name).exists():
                (instance / name).write_text(f"{value}\n")
        for event in there:
            (instance / "events" / event / "enable").write_text("1\n")
        self._pipe = os.open(instance / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.heard = frozenset(event.split("/")[1] for event in there)
