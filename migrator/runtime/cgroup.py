"""The cgroup (v2) of a container: freeze it, thaw it, kill it, see who is in it.

We freeze the container ourselves before CRIU comes: CRIU then finds the tree still, does not wait in its
100 ms polling steps, and puts the frozen state back whenever it lets go of the tree without killing it
(`freezer_restore_state`, criu/seize.c). So no death of CRIU can thaw a container that we froze.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from migrator.errors import ExecutionError

CGROUP_ROOT = Path("/sys/fs/cgroup")
OF_A_CONTAINER = re.compile(r"(.*?/libpod-(?:payload-)?[0-9a-f]{64}(?:\.scope)?)(?:/.*)?")
"""As podman names them (libpod, getOCICgroupPath): below its parent or a pod, as a scope, or split in a unit."""


def path_of(process: Path) -> str:
    """Return the path of a process's cgroup v2, empty without one; raises `OSError` when the process is gone.

    `process` is its directory below /proc.
    """
    lines = (process / "cgroup").read_text().splitlines()
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "")


def container_part(path: str) -> str:
    """Return the part of a process's cgroup that is its container's own; all of it when podman did not name it.

    Below it the container may have cgroups of its own, and its first process may sit in one, as systemd does.
    """
    found = OF_A_CONTAINER.fullmatch(path)
    return found[1] if found else path


class Cgroup:
    """One cgroup v2 directory; interface files as in the kernel's Documentation/admin-guide/cgroup-v2.rst."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of_process(cls, pid: int, root: Path = CGROUP_ROOT) -> Cgroup:
        """Return the cgroup of a whole container from the pid of any of its processes.

        Raises `ExecutionError` when the process is gone or the host uses cgroup v1.
        """
        try:
            path = path_of(Path(f"/proc/{pid}"))
        except OSError as error:
            raise ExecutionError(f"process {pid} is gone", code="container-gone") from error
        if not path:
            raise ExecutionError("this host has no cgroup v2", code="no-cgroup-v2", hint="boot with cgroup v2")
        return cls(root / container_part(path).lstrip("/"))

    def freeze(self, timeout_s: float) -> None:
        """Stop every process of the cgroup; return when the kernel says all of them stand still."""
        self.ask_to_freeze()
        deadline = time.monotonic() + timeout_s
        while not self.frozen:
            if time.monotonic() > deadline:
                self.thaw()
                raise ExecutionError(
                    f"{self.path.name} did not freeze within {timeout_s:g} s",
                    code="freeze-timeout",
                    temporary=True,
                )
            time.sleep(0.0005)

    def ask_to_freeze(self) -> None:
        """Set the frozen state without waiting for it."""
        (self.path / "cgroup.freeze").write_text("1")

    @property
    def told_to_freeze(self) -> bool:
        """Say whether the frozen state was asked for, by us or by somebody else (`podman pause`)."""
        return (self.path / "cgroup.freeze").read_text().strip() == "1"

    def thaw(self) -> None:
        """Let the processes run; quiet when the cgroup is gone."""
        try:
            (self.path / "cgroup.freeze").write_text("0")
        except FileNotFoundError:
            return

    def kill(self) -> None:
        """Kill every process of the cgroup, frozen or not; quiet when it is gone."""
        try:
            (self.path / "cgroup.kill").write_text("1")
        except FileNotFoundError:
            return

    def end(self, timeout_s: float) -> None:
        """Kill every process and leave no frozen cgroup behind: a container that comes back needs the same one."""
        self.kill()
        deadline = time.monotonic() + timeout_s
        while self.pids() and time.monotonic() < deadline:
            time.sleep(0.01)
        if not self.pids():
            self.thaw()

    @property
    def frozen(self) -> bool:
        """Say whether all processes stand still (`frozen 1` in cgroup.events)."""
        try:
            return "frozen 1" in (self.path / "cgroup.events").read_text().splitlines()
        except OSError:
            return False

    def pids(self) -> tuple[int, ...]:
        """Return the processes of the cgroup and of those below it."""
        found: list[int] = []
        for procs in (self.path / "cgroup.procs", *self.path.glob("**/cgroup.procs")):
            try:
                found += [int(line) for line in procs.read_text().split()]
            except OSError:
                continue  # a cgroup that vanished while we walked has no processes
        return tuple(dict.fromkeys(found))
