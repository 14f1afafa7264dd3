"""The scene of the main job: two hosts with lifeboatd, a container on the first, a client that watches it,
a webhook receiver. The demo shows it, real tests play in it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from migrator.command import kill_group
from migrator.errors import ExecutionError
from tests.lab import cluster, drives, signals
from tests.lab.host import Host
from tests.lab.image import BASE
from tests.lab.lab import Lab

CONTAINER, ADDRESS, PORT = "web", "10.77.0.130", 7000
RECEIVER_PORT = 8099
POLL_S = 2.0  # how often the lab's disks are read; on a real host every five minutes are enough
PROGRAMS = Path(__file__).parent


class Scene:
    """Everything the main job needs, in a lab that is up."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.source, self.target = lab.host("alpha"), lab.host("beta")
        self.report_file = directory / "client.json"
        self.events_file = directory / "events.jsonl"
        self._programs: list[subprocess.Popen[bytes]] = []
        self._client: subprocess.Popen[bytes] | None = None

    def settings(self, method: str) -> str:
        """Return lifeboat.toml of the lab's hosts."""
        receiver = f"http://{self.lab.client.address}:{RECEIVER_PORT}/"
        return (
            f'[signals]\nsmart_poll_s = {POLL_S}\nedac = false\n\n[migrator]\nmethod = "{method}"\n\n'
            f'[[alerts.webhook]]\nurl = "{receiver}"\n'
        )

    def start_daemons(self, method: str) -> None:
        """Give both hosts a healthy disk, one cluster and a running lifeboatd; listen for alerts."""
        self.events_file.touch()
        argv = [sys.executable, str(PROGRAMS / "receiver.py"), str(RECEIVER_PORT), str(self.events_file)]
        self._programs.append(self.lab.client.spawn(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        for host in self.lab.hosts.values():
            signals.set_drive(host, drives.ata_drive(serial=f"LAB-{host.name}"))
        cluster.start(self.lab, self.settings(method))

    def start_container(self, memory_mib: int) -> None:
        """Start the container on the source, and wait until it serves."""
        argv = ["podman", "run", "--detach", "--name", CONTAINER, "--network", "lan", "--ip", ADDRESS]
        workload = ["python3", "/usr/local/bin/workload", "--memory", str(memory_mib)]
        self.source.run([*argv, BASE.name, *workload], timeout_s=60)
        self.wait("the container to serve", lambda: self.ask("count") is not None, 120)

    def start_client(self) -> None:
        """Let a client hold one connection, and wait until it is well under way."""
        argv = [sys.executable, str(PROGRAMS / "client.py"), ADDRESS, str(PORT)]
        argv += ["--output", str(self.report_file)]
        self._client = self.lab.client.spawn(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._programs.append(self._client)
        self.wait("the client's first answers", lambda: self.client_report().get("answers", 0) > 100, 60)

    def break_disk(self) -> None:
        """Let the source's disk go bad: unreadable sectors, and the drive itself says that it is failing."""
        bad = drives.ata_drive(serial="LAB-alpha", pending=168, passed=False)
        signals.set_drive(self.source, bad)

    def ask(self, request: str, timeout_s: float = 600) -> dict[str, Any] | None:
        """Ask the container one thing over a connection of its own; None when nobody answers."""
        argv = [sys.executable, str(PROGRAMS / "client.py"), ADDRESS, str(PORT), "--ask", request]
        result = self.lab.client.run(argv, timeout_s=timeout_s, check=False)
        return json.loads(result.output) if result.status == 0 else None

    def end_client(self) -> dict[str, Any]:
        """End the client and return what it saw."""
        if self._client is not None:
            self._client.send_signal(signal.SIGTERM)
            self._client.wait(30)
        return self.client_report()

    def client_report(self) -> dict[str, Any]:
        """Return what the client has seen so far."""
        return dict(json.loads(self.report_file.read_text())) if self.report_file.exists() else {}

    def events(self) -> list[dict[str, Any]]:
        """Return the alerts the receiver got, in order."""
        return [json.loads(line) for line in self.events_file.read_text().splitlines()]

    def lifeboat(self, host: Host, *words: str) -> Any:
        """Run the command on a host and return its JSON."""
        return json.loads(host.run(["lifeboat", *words, "--json"], timeout_s=60).output)

    def running_on(self) -> list[str]:
        """Return the names of the hosts on which podman says that the container runs."""
        argv = ["podman", "ps", "--filter", f"name=^{CONTAINER}$", "--format", "{{.Names}}"]
        return [host.name for host in self.lab.hosts.values() if host.run(argv).output.strip() == CONTAINER]

    def wait(self, what: str, happened: Callable[[], bool], timeout_s: float) -> None:
        """Wait until something happened; raises `ExecutionError` when it did not in time."""
        deadline = time.monotonic() + timeout_s
        while not happened():
            if time.monotonic() > deadline:
                raise ExecutionError(f"waited {timeout_s:g} s for {what}", code="lab-timeout")
            time.sleep(0.1)

    def close(self) -> None:
        """End the programs outside the hosts."""
        for program in self._programs:
            kill_group(program)
            program.wait()
