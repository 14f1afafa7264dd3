"""What a committed container needs to be here for good: its memory, and its files on the disks of this host.

What is copied is in this host's page cache first, and a power cut would take it from there, also what the container
had made durable at its source. So the file systems are written out beside the drain, and the source, which has the
only other copy, is not released before that is done. What could not be written is journalled and stays so: another
try would not hear of it (migrator.storage.disks).
"""

from __future__ import annotations

import logging
import threading

from migrator.errors import ExecutionError, LifeboatError
from migrator.model import Method
from migrator.pager.sink import SinkState
from migrator.storage.disks import Disks
from migrator.target.drain import Drain, Progress
from migrator.target.record import Record

WRITE_WAIT_S = 45.0  # less than its source waits for the answer

_log = logging.getLogger(__name__)


class Delivery:
    """The memory and the files of one incoming container."""

    def __init__(self, drain: Drain, record: Record, disks: Disks, method: Method) -> None:
        """By the lazy method its memory comes by the page sink, by all others it is here at the commit."""
        self._drain = drain
        self._record = record
        self._disks = disks
        self._lazy = method is Method.LAZY
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._written = self._journalled = False
        self.progress = Progress(SinkState.WAITING)
        self.memory_is_here = False
        self.trouble = ""  # why the files cannot be written

    def get_ready(self) -> None:
        """Nothing has come yet: begin to listen for failures of its disks; raises `ExecutionError`."""
        try:
            self._disks.hold()
        except OSError as error:
            raise ExecutionError(f"its files have no place here: {error}", code="no-place") from error

    def write_ahead(self) -> None:
        """Write what has come so far, so that little is left for the freeze; raises `ExecutionError`."""
        try:
            self._disks.write_out()
        except OSError as error:
            raise ExecutionError(_unwritten(error), code="files-not-written") from error

    def begin(self, pid: int) -> None:
        """The container with this first pid is open here: let its memory flow, and write its files; idempotent."""
        if not self._lazy or self._record.was_drained:
            self._has_memory()
        else:
            self._drain.go(pid)
        self.files_are_safe()  # behind it, for the container waits for its memory

    def look(self) -> Progress:
        """See how far it is; what is complete is journalled."""
        if not self.memory_is_here:
            self.progress = self._drain.look() if self._lazy else Progress(SinkState.DRAINED)
            if self.progress.state is SinkState.DRAINED:
                self._has_memory()
        self.files_are_safe()
        return self.progress

    @property
    def complete(self) -> bool:
        """Say whether nothing more is needed of the source, as of the last look."""
        return self.memory_is_here and self._journalled

    def files_are_safe(self) -> bool:
        """Say whether the files are on disk, and the journal says so; see to it that they will be."""
        with self._lock:
            if not self._journalled and not (self._thread is not None and self._thread.is_alive()):
                self._follow_up()
            return self._journalled

    def _follow_up(self) -> None:
        """Nobody writes now: journal how that ended, or begin."""
        if self._written:
            self._record.written()
        elif self.trouble:
            self._record.unwritten(self.trouble)
        self._journalled = self._record.was_written  # perhaps by an earlier daemon, or a human's word
        self.trouble = "" if self._journalled else self._record.unwritten_for
        if not (self._journalled or self.trouble):
            self._thread = threading.Thread(target=self._write, name="write-out", daemon=True)
            self._thread.start()

    def write_files(self) -> None:
        """Return when the files are on disk and the journal says so; raises `ExecutionError` when that fails."""
        if not self.files_are_safe():
            if self._thread is not None:
                self._thread.join(WRITE_WAIT_S)  # it goes on after that, and may be asked for again
            if not self.files_are_safe():
                why = self.trouble or f"its files are not on disk after {WRITE_WAIT_S:g} s"
                raise ExecutionError(why, code="files-not-written", temporary=not self.trouble)

    def trust_files(self) -> None:
        """A human says that they are right, whatever the disks said."""
        self._record.written()

    def close(self) -> None:
        """It is over."""
        self._disks.close()

    def _has_memory(self) -> None:
        if not self.memory_is_here:
            self._record.drained()
            self.memory_is_here = True

    def _write(self) -> None:
        try:
            self._disks.write_out()
        except OSError as error:
            self.trouble = _unwritten(error)
        except LifeboatError as error:  # podman does not say where they are: it is asked again at the next look
            _log.warning("the files are not written yet: %s", error)
        else:
            self._written = True


def _unwritten(error: OSError) -> str:
    return f"its files cannot be written to the disks here: {error}"
