"""Starting programs in a cgroup and in the namespaces of another process."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from migrator import command
from migrator.errors import ExecutionError
from tests.lab.state import ProcessIdentity, identity

JOIN_CGROUP = ("sh", "-c", 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"', "sh")
"""Joins the cgroup named first, then becomes the program that follows: no process is ever outside."""

CLEAN_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "LANG": "C.UTF-8",
    "TERM": "xterm",
}
"""What programs in a host see: nothing of the machine's own environment."""

START_TIMEOUT_S = 10.0


def in_cgroup(cgroup: Path, argv: Sequence[str]) -> list[str]:
    """Return the command that runs `argv` inside a cgroup."""
    return [*JOIN_CGROUP, str(cgroup), *argv]


def in_host(init: int, argv: Sequence[str], env: Mapping[str, str] | None = None) -> list[str]:
    """Return the command that runs `argv` in all namespaces and the root of a host.

    `--root --wd` are not optional: conmon fails with "Failed to get working directory" without them.
    """
    names = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd"]
    variables = [f"{name}={value}" for name, value in {**CLEAN_ENVIRONMENT, **(env or {})}.items()]
    return ["nsenter", "--target", str(init), *names, "--", "/usr/bin/env", "-i", *variables, *argv]


def in_network(holder: int, argv: Sequence[str]) -> list[str]:
    """Return the command that runs `argv` on this machine but in the network of another process."""
    return ["nsenter", "--target", str(holder), "--net", "--", *argv]


def start_network(cgroup: Path) -> subprocess.Popen[bytes]:
    """Make a network namespace, held by a process that does nothing else; it ends with that process."""
    argv = in_cgroup(cgroup, ["unshare", "--net", "sleep", "infinity"])
    process = command.spawn(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: differs(process.pid, "net"), "unshare did not make a network namespace")
    return process


def start_init(
    launcher_cgroup: Path, boot: Sequence[str], console: IO[bytes]
) -> tuple[subprocess.Popen[bytes], ProcessIdentity]:
    """Run `boot` as PID 1 of new namespaces; return the launcher that waits for it, and PID 1 itself."""
    names = ["--mount", "--uts", "--ipc", "--net", "--pid", "--fork"]
    argv = in_cgroup(launcher_cgroup, ["unshare", *names, "--", *boot])
    process = command.spawn(argv, stdout=console, stderr=console)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: process.poll() is not None or children.read_text().strip() != "", "unshare did not fork")
    if process.poll() is not None:
        raise ExecutionError("unshare failed", code="lab-boot", hint=f"see {console.name}")
    return process, identity(int(children.read_text().split()[0]))


def differs(pid: int, namespace: str) -> bool:
    """Tell whether a process has left our namespace of that kind."""
    try:
        theirs = Path(f"/proc/{pid}/ns/{namespace}").readlink()
    except FileNotFoundError:
        return False
    return theirs != Path(f"/proc/self/ns/{namespace}").readlink()


def wait_until(condition: Callable[[], bool], failure: str, timeout_s: float = START_TIMEOUT_S) -> None:
    """Ask `condition` every few milliseconds until it is true; raise with `failure` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise ExecutionError(failure, code="lab-timeout")
        time.sleep(0.005)
