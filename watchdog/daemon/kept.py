"""Small files of the daemon that are written whole, on a disk that may be the very one that fails."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from migrator.errors import ExecutionError
from migrator.peers.authority import write_secret

_log = logging.getLogger(__name__)


class KeptFile:
    """One file. A disk that refuses it (full, or read-only) costs what a restart would know, never the work."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._data: bytes | None = None
        self._refused = ""  # why the disk did not take the newest, empty when it is there

    def keep(self, data: bytes | None) -> None:
        """Write the file, or remove it (None); what the disk refuses is logged once, and `keep_again` has it."""
        with self._lock:
            self._data = data
            self._try()

    def keep_again(self) -> None:
        """Try once more what the disk has refused."""
        with self._lock:
            if self._refused:
                self._try()

    @property
    def trouble(self) -> str:
        """Return what whoever ordered it should know, empty when it is on disk."""
        if not self._refused:
            return ""
        return f"it holds now, but is not on disk, and a restart of lifeboatd may forget it: {self._refused}"

    def check(self) -> None:
        """Raise `ExecutionError` when the newest is not on disk; it holds all the same."""
        if trouble := self.trouble:
            hint = "lifeboatd writes it as soon as the disk takes it"
            raise ExecutionError(trouble, code="not-on-disk", hint=hint, temporary=True)

    def _try(self) -> None:
        try:
            if self._data is None:
                self.path.unlink(missing_ok=True)
            else:
                write_secret(self.path, self._data)
        except OSError as error:
            if not self._refused:
                _log.error("%s cannot be written, and is tried again: %s", self.path, error)
            self._refused = str(error)
        else:
            if self._refused:
                _log.info("%s is written again", self.path)
            self._refused = ""
