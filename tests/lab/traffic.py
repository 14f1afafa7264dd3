"""The client of `tests.lab.client`, started and ended on the lab's network."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from migrator.errors import ExecutionError
from tests.lab.lab import Lab
from tests.lab.settings import CHECKOUT

CLIENT = CHECKOUT / "tests/lab/client.py"
PORT = 7000
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0


def ask(lab: Lab, address: str, what: str = "verify", *, timeout_s: float = 120) -> dict[str, Any]:
    """Ask the workload one thing on a connection of its own (`count`, `verify` or `stop`)."""
    argv = [sys.executable, str(CLIENT), address, str(PORT), "--ask", what]
    answer: dict[str, Any] = json.loads(lab.client.run(argv, timeout_s=timeout_s).output)
    return answer


class Traffic:
    """One TCP connection with a request every few milliseconds, from `__enter__` until `stop`."""

    def __init__(self, lab: Lab, address: str, output: Path, *, interval_ms: float = 5) -> None:
        self.lab = lab
        self.output = output
        interval = f"--interval-ms={interval_ms}"
        self.argv = [sys.executable, str(CLIENT), address, str(PORT), "--output", str(output), interval]
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Start and wait for the first answers; raises `ExecutionError` when there are none."""
        self.output.unlink(missing_ok=True)
        self.process = self.lab.client.spawn(self.argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.report().get("answers"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ExecutionError(f"the client gets no answer: {self.report()}", code="lab-no-answer")
            time.sleep(0.02)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def report(self) -> dict[str, Any]:
        """Return what the client has seen so far (fields in `tests.lab.client`); empty before the first."""
        return json.loads(self.output.read_text()) if self.output.exists() else {}

    @property
    def running(self) -> bool:
        """Tell whether the client still holds its connection."""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> dict[str, Any]:
        """End the client and return its last report; a second time is harmless."""
        if self.process is not None:
            if self.process.poll() is None:
                self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.report()
