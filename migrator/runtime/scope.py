"""Programs that outlive the daemon: each in a systemd scope of its own.

Restarting or killing lifeboatd ends what is in its cgroup. A parked podman, a shim that holds a frozen
container and a page sink must go on, so they are started through `systemd-run --scope`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from migrator.command import give_up, run, spawn, wait
from migrator.control import ControlClient
from migrator.errors import ExecutionError, LifeboatError
from migrator.runtime.cgroup import Cgroup
from migrator.runtime.criu_log import first_error

START_LIMIT_S = 15.0
OPTIONS = ("--scope", "--quiet", "--collect", "--property=ManagedOOMPreference=omit")
"""A scope goes with its last process. And systemd-oomd is to look elsewhere: it kills whole scopes, a page sink
together with the guard that is there in case that the sink dies. systemd.resource-control(5), systemd 248."""


def end_scope(name: str) -> None:
    """Kill whatever is left in a scope, whoever started it; quiet when there is none."""
    if shutil.which("systemctl"):
        run(["systemctl", "kill", "--signal=KILL", f"{name}.scope"], timeout_s=START_LIMIT_S, check=False)


def enter_scope(name: str, pid: int) -> None:
    """Move a process out of the scope it was started in, into one called `name`; without systemd it stays.

    systemd-run needs no message bus, but moves only what it starts: so that goes ahead, and the process follows.
    Raises `LifeboatError` or `OSError`.
    """
    if not Path("/run/systemd/system").exists() or not shutil.which("systemd-run"):
        return
    ahead = spawn(["systemd-run", *OPTIONS, f"--unit={name}", "cat"], stdin=subprocess.PIPE)
    try:
        deadline = time.monotonic() + START_LIMIT_S
        while (cgroup := Cgroup.of_process(ahead.pid).path).name != f"{name}.scope":
            if ahead.poll() is not None or time.monotonic() > deadline:
                raise ExecutionError(f"systemd makes no scope {name}", code="no-scope")
            time.sleep(0.01)
        (cgroup / "cgroup.procs").write_text(str(pid))
    finally:
        give_up(ahead)


def scope_active(name: str) -> bool:
    """Say whether anything is left in a scope."""
    if not shutil.which("systemctl"):
        return False
    asked = run(["systemctl", "is-active", "--quiet", f"{name}.scope"], timeout_s=START_LIMIT_S, check=False)
    return asked.status == 0


def wait_for_scope(name: str, timeout_s: float) -> None:
    """Return when nothing is left in a scope, whoever started it, or after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while scope_active(name) and time.monotonic() < deadline:
        time.sleep(0.1)


class Scope:
    """One program in its scope, as its starter sees it."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self._name = name
        self._process = process
        self._log = log

    @classmethod
    def start(cls, name: str, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> Scope:
        """Start a program in a scope called `name`; its output goes to `log`."""
        wrapper: list[str] = []
        if Path("/run/systemd/system").exists() and shutil.which("systemd-run"):
            wrapper = ["systemd-run", *OPTIONS, f"--unit={name}"]
        with log.open("ab") as output:
            return cls(name, spawn([*wrapper, *argv], stdout=output, stderr=output, env=env), log)

    @classmethod
    def start_module(cls, name: str, module: str, directory: Path) -> Scope:
        """Start one of our own programs in a scope; its argument is the migration's directory."""
        argv = [sys.executable, "-P", "-m", module, str(directory)]
        return cls.start(name, argv, log=directory / f"{name}.out")

    def control(self, path: Path, what: str) -> ControlClient:
        """Connect to the program's control socket; when it ended instead, say what it said."""
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            try:
                return ControlClient(path, timeout_s=0.05, what=what)
            except LifeboatError:
                if self._process.poll() is not None:
                    raise ExecutionError(f"{what} failed: {self.last_words()}", code="park-failed") from None
                if time.monotonic() > deadline:
                    raise

    def last_words(self) -> str:
        """Return the last line the program wrote."""
        return first_error(self._log) or f"exit status {self._process.returncode}"

    def wait(self, timeout_s: float) -> int | None:
        """Return the exit status, None when the program still runs after `timeout_s` seconds."""
        return wait(self._process, timeout_s)

    def kill(self) -> None:
        """Kill the program and its process group."""
        give_up(self._process)
