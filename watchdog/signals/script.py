"""An admin's own program as a source: it ends with 0 for fine, 1 for a problem, anything else for "I do not know".

What it writes first is the reason. It is killed with all it has started when it takes too long or is done, and
of its output only the beginning is kept, however much it writes. It never runs twice at a time.
"""

from __future__ import annotations

import os
import select
import subprocess
import time

from migrator.command import kill_group, spawn, text
from migrator.errors import CommandError
from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.settings import Script

FINE, PROBLEM = 0, 1
KEPT_BYTES = 4096
CHUNK_BYTES = 65536
LONGEST_REASON = 200
GRACE_S = 5.0  # for a program that was killed to be gone
STILL_THERE = "it was killed for taking too long, and is still not gone"


class ScriptReader:
    """Runs one program."""

    def __init__(self, script: Script) -> None:
        self.name = f"script {script.name}"
        self.poll_s = script.poll_s
        self._script = script
        self._running: subprocess.Popen[bytes] | None = None
        self._device = Device(
            DeviceKind.SCRIPT, f"script:{script.name}", f"script {script.name}", {"script": script.name}
        )

    def read(self, now: float) -> tuple[Reading, ...]:
        """Run the program and return its verdict; unreadable when there is none."""
        value, reason = self._run()
        return (Reading("script.problem", self._device, now, value, reason),)

    def _run(self) -> tuple[float | None, str]:
        if self._running is not None and self._running.poll() is None:
            return None, STILL_THERE
        try:
            process = spawn(self._script.command, stderr=subprocess.STDOUT)
        except CommandError as error:
            return None, error.message
        self._running = process
        said, ended = _listen(process, time.monotonic() + self._script.timeout_s)
        kill_group(process)  # also what a program that has ended leaves behind
        first = next((line.strip() for line in said.splitlines() if line.strip()), "")[:LONGEST_REASON]
        if not _is_gone(process):
            return None, STILL_THERE
        self._running = None
        if not ended:
            return None, f"it did not end within {self._script.timeout_s:g} s"
        if process.returncode in (FINE, PROBLEM):
            return float(process.returncode), first
        how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit status {process.returncode}"
        return None, f"{how}: {first}" if first else how


def _listen(process: subprocess.Popen[bytes], deadline: float) -> tuple[str, bool]:
    """Read what a program writes until it ends or the time is over; return its beginning, and whether it ended.

    A program may end while something it has started still holds its output, and may close it long before its end.
    """
    assert process.stdout is not None  # noqa: S101  spawn made a pipe
    output = process.stdout.fileno()
    os.set_blocking(output, False)
    kept = b""
    exits = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(output, select.POLLIN)
        poll.register(exits, select.POLLIN)
        while (left_s := deadline - time.monotonic()) > 0:
            ready = {descriptor for descriptor, _ in poll.poll(left_s * 1000)}
            if output in ready:
                chunk = os.read(output, CHUNK_BYTES)
                kept += chunk[: KEPT_BYTES - len(kept)]
                if not chunk:
                    poll.unregister(output)
            elif exits in ready:
                return text(kept), True
        return text(kept), False
    finally:
        os.close(exits)
        process.stdout.close()


def _is_gone(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        return False
    return True
