"""What must survive a restart besides readings and journal: the admin's words and the host's state."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from migrator.model import Value
from watchdog.daemon.kept import KeptFile
from watchdog.policy.quiet import Silence
from watchdog.state import HostState


class Flags(Value):
    """One file, `flags.json`."""

    cordoned: bool = False
    paused: bool = False
    state: HostState = HostState.HEALTHY
    storm: str = ""  # why nothing is moved on signals alone; only an admin ends it
    storm_reset_at: float = 0.0  # Unix seconds; what turned bad before does not count
    stuck: tuple[str, ...] = ()  # which containers could not be moved and why, as admins were told
    blind: tuple[str, ...] = ()  # what cannot be read, as admins were told
    told: tuple[str, ...] = ()  # rules that have fired, each with its device, as admins were told
    silences: tuple[Silence, ...] = ()
    forgotten: tuple[str, ...] = ()  # identities of devices that were replaced


class FlagFile:
    """The flags, in memory and on disk."""

    def __init__(self, path: Path) -> None:
        self.file = KeptFile(path)
        self._lock = threading.Lock()
        self._flags = self._read()

    @property
    def flags(self) -> Flags:
        """Return the flags of now."""
        return self._flags

    def change(self, **values: Any) -> Flags:
        """Change some flags; they are in force at once, and on disk too unless `file.check` says otherwise."""
        with self._lock:
            self._flags = self._flags.model_copy(update=values)
            self.file.keep(self._flags.model_dump_json().encode())
            return self._flags

    def _read(self) -> Flags:
        try:
            found = Flags.model_validate_json(self.file.path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return Flags()
        # An evacuation that a restart cut short is begun again for what is still here.
        again = HostState.FAILING if found.state is HostState.EVACUATING else found.state
        return found.model_copy(update={"state": again})
