"""The part of the machine's cgroup2 tree that holds every process of every lab.

All that a lab starts lives below `lifeboat-lab/NAME/`, so the kernel itself knows what belongs to it and
`cgroup.kill` ends it, without a race and without a list of pids.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from migrator.errors import ExecutionError, PrerequisiteError

KILL_TIMEOUT_S = 20.0


def mount_point() -> Path:
    """Return where this machine has mounted cgroup2 (mountinfo of proc(5): the type follows the dash)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, filesystem = line.partition(" - ")
        if filesystem.split()[0] == "cgroup2":
            return Path(fields.split()[4])
    raise PrerequisiteError("no cgroup2 is mounted on this machine", code="lab-no-cgroup2")


def lab_cgroup(lab: str) -> Path:
    """Return the directory of a lab's cgroup, which may not exist."""
    return mount_point() / "lifeboat-lab" / lab


def create(cgroup: Path) -> None:
    """Make a cgroup below a lab's and hand it the controllers its parents have."""
    cgroup.mkdir(parents=True, exist_ok=True)
    for parent in reversed([path for path in cgroup.parents if "lifeboat-lab" in path.parts]):
        controllers = (parent / "cgroup.controllers").read_text().split()
        if controllers:
            (parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))


def tree(cgroup: Path) -> tuple[Path, ...]:
    """Return a cgroup and all below it; those that vanish meanwhile are not among them, or are gone."""
    return tuple(Path(path) for path, _, _ in os.walk(cgroup))


def processes(cgroup: Path) -> tuple[int, ...]:
    """Return the pids in a cgroup and all below it."""
    found: list[int] = []
    for each in tree(cgroup):
        with suppress(FileNotFoundError):
            found.extend(int(pid) for pid in (each / "cgroup.procs").read_text().split())
    return tuple(found)


def kill(cgroup: Path) -> None:
    """Kill all processes of a cgroup at once and wait until the last is gone; quiet when there is none."""
    if not cgroup.exists():
        return
    (cgroup / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while "populated 1" in (cgroup / "cgroup.events").read_text():
        if time.monotonic() > deadline:
            raise ExecutionError(
                f"processes {processes(cgroup)} do not die", code="lab-unkillable", hint="see /proc/PID/stack"
            )
        time.sleep(0.005)


def remove(cgroup: Path) -> None:
    """Kill a cgroup's processes and remove it with all below it."""
    kill(cgroup)
    if cgroup.exists():
        for directory in sorted(tree(cgroup), reverse=True):
            with suppress(FileNotFoundError):
                directory.rmdir()
