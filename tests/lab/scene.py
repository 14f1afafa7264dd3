"""The scene of the main job: two hosts with lifeboatd, a container on the first, a client that watches it,
a webhook receiver. The demo shows it, real tests play in it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from migrator.command import kill_group
from migrator.errors import CommandError, ExecutionError
from tests.lab import cluster, drives, signals
from tests.lab.host import Host
from tests.lab.image import BASE
from tests.lab.lab import Lab
from tests.lab.traffic import Traffic, ask

CONTAINER, ADDRESS = "web", "10.77.0.130"
RECEIVER_PORT = 8099
POLL_S = 2.0  # how often the lab's disks are read; on a real host every five minutes are enough
PROGRAMS = Path(__file__).parent


class Scene:
    """Everything the main job needs, in a lab that is up."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.source, self.target = lab.host("alpha"), lab.host("beta")
        self.events_file = directory / "events.jsonl"
        self._programs: list[subprocess.Popen[bytes]] = []
        self._traffic = Traffic(lab, ADDRESS, directory / "client.json")

    def settings(self, method: str, pager: str = "", freeze_limit_s: float = 30) -> str:
        """Return lifeboat.toml of the lab's hosts; no `pager` leaves that to the default."""
        receiver = f"http://{self.lab.client.address}:{RECEIVER_PORT}/"
        return (
            f'[signals]\nsmart_poll_s = {POLL_S}\nedac = false\n\n[migrator]\nmethod = "{method}"\n'
            f"freeze_limit_s = {freeze_limit_s:g}\n"
            f"{f'pager = {json.dumps(pager)}' if pager else ''}\n\n"
            f'[[alerts.webhook]]\nurl = "{receiver}"\n'
        )

    def start_daemons(self, method: str, *, pager: str = "", freeze_limit_s: float = 30) -> None:
        """Give both hosts a healthy disk, one cluster and a running lifeboatd; listen for alerts."""
        self.events_file.touch()
        argv = [sys.executable, str(PROGRAMS / "receiver.py"), str(RECEIVER_PORT), str(self.events_file)]
        self._programs.append(self.lab.client.spawn(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        for host in self.lab.hosts.values():
            signals.set_drive(host, drives.ata_drive(serial=f"LAB-{host.name}"))
        cluster.start(self.lab, self.settings(method, pager, freeze_limit_s))

    def start_container(self, memory_mib: int, *options: str) -> None:
        """Start the container on the source, with options for its workload, and wait until it serves."""
        argv = ["podman", "run", "--detach", "--name", CONTAINER, "--network", "lan", "--ip", ADDRESS]
        workload = ["python3", "/usr/local/bin/workload", "--memory", str(memory_mib), *options]
        self.source.run([*argv, BASE.name, *workload], timeout_s=60)
        self.wait("the container to serve", lambda: self.ask("count") is not None, 120)

    def start_client(self) -> None:
        """Let a client hold one connection, and wait until it is well under way."""
        self._traffic.start()
        self.wait("the client's first answers", lambda: self.client_report().get("answers", 0) > 100, 60)

    def break_disk(self) -> None:
        """Let the source's disk go bad: unreadable sectors, and the drive itself says that it is failing."""
        bad = drives.ata_drive(serial="LAB-alpha", pending=168, passed=False)
        signals.set_drive(self.source, bad)

    def ask(self, request: str, timeout_s: float = 600) -> dict[str, Any] | None:
        """Ask the container one thing over a connection of its own; None when nobody answers."""
        try:
            return ask(self.lab, ADDRESS, request, timeout_s=timeout_s)
        except CommandError:
            return None

    def end_client(self) -> dict[str, Any]:
        """End the client and return what it saw."""
        return self._traffic.stop()

    def client_report(self) -> dict[str, Any]:
        """Return what the client has seen so far."""
        return self._traffic.report()

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
        self._traffic.stop()
        for program in self._programs:
            kill_group(program)
            program.wait()
