"""The one door to other programs.

Every external program runs through `run`: an argv list (never a shell string), a mandatory time-out, an
own process group that is killed as a whole, standard input closed or given as bytes, `LC_ALL=C.UTF-8`,
bounded output. Programs that outlive the call (a pager, a parked restore) go through `spawn`.
"""

from __future__ import annotations

import logging
import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from migrator.errors import CommandError

_log = logging.getLogger(__name__)

OUTPUT_LIMIT_BYTES = 16 * 1024 * 1024

SYSTEMD_WORDS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""sd_notify(3), sd_watchdog_enabled(3): podman would write them into a container's description."""
END_WAIT_S = 5.0  # of a program that was killed
LOOK_S = 0.5  # how often `go_on` is asked


@dataclass(frozen=True)
class CommandResult:
    """What a finished program left behind; `output` and `errors` are text, undecodable bytes replaced."""

    argv: tuple[str, ...]
    status: int
    output: str
    errors: str

    @property
    def reason(self) -> str:
        """One sentence saying why the program failed, from its last line of standard error."""
        said = [line.strip() for line in (self.errors or self.output).splitlines() if line.strip()]
        ended = f"signal {-self.status}" if self.status < 0 else f"exit status {self.status}"
        return f"{self.argv[0]}: {said[-1] if said else 'no message'} [{ended}]"


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a program: ours, in the C locale, plus `extra`, without systemd's words to us."""
    ours = {name: value for name, value in os.environ.items() if name not in SYSTEMD_WORDS}
    return {**ours, "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", **(extra or {})}


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    check: bool = True,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    go_on: Callable[[], None] | None = None,
) -> CommandResult:
    """Run a program to its end and return what it said.

    Raises `CommandError` when it cannot be started or exceeds `timeout_s` seconds (the whole process
    group is killed), and, with `check`, when its exit status is not 0. `go_on` is called now and then; what
    it raises ends the program, too.
    """
    process = spawn(argv, stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL, env=env, cwd=cwd)
    try:
        output, errors = _communicate(process, stdin, timeout_s, go_on)
    except subprocess.TimeoutExpired as error:
        give_up(process)
        raise CommandError(
            f"{shlex.join(argv)} did not finish within {timeout_s:g} s",
            code="command-timeout",
            temporary=True,
        ) from error
    except BaseException:
        give_up(process)
        raise
    result = CommandResult(tuple(argv), process.returncode, text(output), text(errors))
    if check and result.status != 0:
        raise CommandError(result.reason, code="command-failed")
    return result


def _communicate(
    process: subprocess.Popen[bytes], stdin: bytes | None, timeout_s: float, go_on: Callable[[], None] | None
) -> tuple[bytes, bytes]:
    deadline = time.monotonic() + timeout_s
    while go_on is not None and (left_s := deadline - time.monotonic()) > LOOK_S:
        go_on()
        try:
            return process.communicate(stdin, timeout=min(LOOK_S, left_s))
        except subprocess.TimeoutExpired:
            stdin = None  # it was taken over by the first call
    return process.communicate(stdin, timeout=max(0.0, deadline - time.monotonic()))


def spawn(
    argv: Sequence[str],
    *,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.PIPE,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program in its own session and return it; raise `CommandError` when it cannot be started."""
    try:
        return subprocess.Popen(
            list(argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment(env),
            cwd=cwd,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise CommandError(
            f"{argv[0]} is not installed", code="command-missing", hint=f"install {argv[0]}"
        ) from error
    except OSError as error:
        raise CommandError(f"{argv[0]} cannot be started: {error.strerror}", code="command-failed") from error


def wait(process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    """Return the exit status of a spawned program, None when it still runs after `timeout_s` seconds.

    The kernel tells when it ends (pidfd_open(2)); Python's own waiting looks every 50 ms, which a freeze
    would feel.
    """
    if process.poll() is None:
        pidfd = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(timeout_s * 1000)
        finally:
            os.close(pidfd)
    return process.poll()


def give_up(process: subprocess.Popen[bytes]) -> None:
    """Kill a spawned program and wait for its end, but not for ever: one in a dead disk's queue does not die."""
    kill_group(process)
    if wait(process, END_WAIT_S) is None:
        _log.error("process %d was killed and does not end: %s", process.pid, process.args)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a spawned program and everything in its process group; quiet when it is gone already."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def text(data: bytes | None) -> str:
    """Decode a program's output, at most `OUTPUT_LIMIT_BYTES` of it."""
    return (data or b"")[:OUTPUT_LIMIT_BYTES].decode("utf-8", "replace")
