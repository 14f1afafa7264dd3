"""What a committed container needs to be here for good: its memory, and its files on the disks of this host.

What is copied is in this host's page cache first, and a power cut would take it from there, also what the container
had made durable at its source. So the file systems are written out beside the drain, and the source, which has the
only other copy, is not released before that is done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from migrator.errors import ExecutionError
from migrator.pager.sink import SinkState
from migrator.storage.tree import write_out
from migrator.target.drain import Drain, Progress
from migrator.target.record import Record


class Delivery:
    """The memory and the files of one incoming container."""

    def __init__(self, drain: Drain, record: Record, places: Callable[[], Iterable[Path]], *, lazy: bool) -> None:
        """`places` returns where its files lie, when all are here; `lazy`: its memory comes by the page sink."""
        self._drain = drain
        self._record = record
        self._places = places
        self._lazy = lazy
        self._thread: threading.Thread | None = None
        self._written = self._journalled = False
        self.progress = Progress(SinkState.WAITING)
        self.memory_is_here = False
        self.trouble = ""  # why the files cannot be written

    def begin(self, pid: int) -> None:
        """The container with this first pid is open here: let its memory flow, and write its files; idempotent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="write-out", daemon=True)
            self._thread.start()
        if not self._lazy or self._record.was_drained:
            self._has_memory()
        else:
            self._drain.go(pid)

    def look(self) -> Progress:
        """See how far it is; what is complete is journalled."""
        if not self.memory_is_here:
            self.progress = self._drain.look() if self._lazy else Progress(SinkState.DRAINED)
            if self.progress.state is SinkState.DRAINED:
                self._has_memory()
        if self._written and not self._journalled:
            self._record.written()
            self._journalled = True
        return self.progress

    @property
    def complete(self) -> bool:
        """Say whether nothing more is needed of the source, as of the last look."""
        return self.memory_is_here and self._journalled

    def write_files(self) -> None:
        """Return when the files are on disk and the journal says so; raises `ExecutionError` when that fails."""
        if not self._record.was_written:
            self._write()
            if self.trouble:
                raise ExecutionError(self.trouble, code="files-not-written")
            self._record.written()

    def _has_memory(self) -> None:
        if not self.memory_is_here:
            self._record.drained()
            self.memory_is_here = True

    def _write(self) -> None:
        try:
            for place in {path.stat().st_dev: path for path in self._places()}.values():
                write_out(place)
        except OSError as error:
            self.trouble = f"its files cannot be written to the disks here: {error}"
        else:
            self._written, self.trouble = True, ""
