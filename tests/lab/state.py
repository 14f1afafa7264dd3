"""What is written down about a running lab, so that others can enter it and clear it away."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.lab import cgroups
from tests.lab.settings import DATA, STATE


@dataclass(frozen=True)
class ProcessIdentity:
    """A process that cannot be confused with a later one of the same pid."""

    pid: int
    start: int
    """Start time in clock ticks after boot (proc_pid_stat(5), field 22)."""

    @property
    def alive(self) -> bool:
        """Tell whether this very process still runs."""
        return start_time(self.pid) == self.start


@dataclass
class LabState:
    """One lab: its processes are those in its cgroup; `owner` is who must be alive for it to be wanted."""

    name: str
    owner: ProcessIdentity | None
    layers: list[str] = field(default_factory=list)
    store: str = ""
    processes: dict[str, ProcessIdentity] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file this is kept in."""
        return STATE / self.name / "state.json"

    @property
    def data(self) -> Path:
        """Where the files of its hosts are."""
        return DATA / self.name

    def save(self) -> None:
        """Write it down, all or nothing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(self)))
        temporary.replace(self.path)


def start_time(pid: int) -> int | None:
    """Return the start time of a process in clock ticks after boot, or None when there is no such one."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = line.rpartition(")")[2].split()
    return None if state == "Z" else int(fields[18])


def identity(pid: int) -> ProcessIdentity:
    """Return the identity of a process that is running."""
    start = start_time(pid)
    if start is None:
        raise ProcessLookupError(pid)
    return ProcessIdentity(pid, start)


def load(name: str) -> LabState | None:
    """Return what is written down about a lab, or None."""
    path = STATE / name / "state.json"
    if not path.exists():
        return None
    data = json.loads(path.read_text())
    return LabState(
        name=data["name"],
        owner=ProcessIdentity(**data["owner"]) if data["owner"] else None,
        layers=data["layers"],
        store=data["store"],
        processes={key: ProcessIdentity(**value) for key, value in data["processes"].items()},
    )


def labs() -> Iterator[str]:
    """Name every lab of which anything is left: notes, files or processes."""
    bases = (STATE, DATA, cgroups.lab_cgroup("x").parent)
    yield from sorted({path.name for base in bases if base.exists() for path in base.iterdir() if path.is_dir()})


def layers_in_use() -> set[str]:
    """Return the cached directories that running labs have mounted."""
    return {layer for name in labs() if (state := load(name)) for layer in state.layers}


def clear(name: str) -> None:
    """End every process of a lab and remove its cgroup, files and notes; safe to repeat."""
    cgroups.remove(cgroups.lab_cgroup(name))
    remove_tree(DATA / name)
    remove_tree(STATE / name)


def clear_abandoned() -> tuple[str, ...]:
    """Clear every lab whose owner was killed; labs that somebody left up on purpose have no owner."""
    cleared = []
    for name in labs():
        state = load(name)
        if state is None or (state.owner is not None and not state.owner.alive):
            clear(name)
            cleared.append(name)
    return tuple(cleared)


def remove_tree(path: Path) -> None:
    """Remove a directory tree if it is there."""
    if path.exists():
        shutil.rmtree(path)


def owner() -> ProcessIdentity:
    """Return the identity of this process."""
    return identity(os.getpid())
