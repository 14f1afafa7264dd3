"""A host full of containers of several kinds, in a lab of several hosts, and what became of each of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from migrator.errors import CommandError, ExecutionError, LifeboatError
from tests.lab import admin, cluster, drives, signals
from tests.lab.host import Host
from tests.lab.image import BASE
from tests.lab.lab import Lab
from tests.lab.traffic import ask

SETTINGS = "[signals]\nsmart_poll_s = 2.0\nedac = false\n"
AT_ONCE = 4
SELDOM_S = 3.0
START_TIMEOUT_S = 120
CALM_WORKLOAD = (
    "exec(open('/usr/local/bin/workload').read().replace('ROUND_PAUSE_S = 0.002', 'ROUND_PAUSE_S = 0.2'))"
)
"""The usual workload takes a tenth of a processor; twenty of them would leave nothing for what is tested."""


@dataclass(frozen=True)
class Box:
    """One container: with memory it is a workload that can be asked, without it writes to its layer and sleeps."""

    name: str
    number: int
    memory_mib: int = 0
    volume: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Return its address on the lab's network."""
        return f"10.77.0.{100 + self.number}"

    def argv(self) -> list[str]:
        """Return the command that starts it."""
        argv = ["podman", "run", "--detach", "--name", self.name, "--network", "lan", "--ip", self.address]
        argv += [f"--label={name}={value}" for name, value in self.labels.items()]
        argv += ["--volume", f"{self.name}:/data"] if self.volume else []
        if self.memory_mib:
            return [*argv, BASE.name, "python3", "-c", CALM_WORKLOAD, "--memory", str(self.memory_mib)]
        place = "/data" if self.volume else "/root"
        return [*argv, BASE.name, "sh", "-c", f"echo {self.name} > {place}/written; exec sleep 100000"]


class Fleet:
    """A cluster whose hosts have disks that can go bad."""

    def __init__(self, lab: Lab, settings: str = SETTINGS) -> None:
        self.lab = lab
        self.boxes: list[Box] = []
        self._boots: dict[str, str] = {}
        for host in lab.hosts.values():
            signals.set_drive(host, drives.ata_drive(serial=f"LAB-{host.name}"))
        cluster.start(lab, settings)

    def fill(self, host: Host, boxes: Sequence[Box]) -> None:
        """Start containers on a host and wait until they serve."""

        def start(box: Box) -> None:
            host.run(box.argv(), timeout_s=START_TIMEOUT_S)
            if box.memory_mib:
                self.wait(f"{box.name} to serve", lambda: self._boot(box) != "", 60)

        with ThreadPoolExecutor(AT_ONCE) as workers:
            list(workers.map(start, boxes))
        self.boxes += boxes

    def break_disk(self, host: Host) -> None:
        """Let a host's disk say that it is failing."""
        signals.set_drive(host, drives.ata_drive(serial=f"LAB-{host.name}", pending=168, passed=False))

    def lifeboat(self, host: Host, *words: str, timeout_s: float = 60) -> Any:
        """Run the command on a host and return its JSON."""
        return json.loads(host.run(["lifeboat", *words, "--json"], timeout_s=timeout_s).output)

    def plan(self, host: Host) -> Any:
        """Return a host's plan, also one in which something has no target."""
        return json.loads(host.run(["lifeboat", "plan", "--json"], timeout_s=60, check=False).output)

    def state(self, host: Host) -> str:
        """Return a host's state."""
        return str(admin.status(host)["state"])

    def places(self) -> dict[str, list[str]]:
        """Return on which hosts each container runs, by podman's word.

        A host that is down, or whose podman waits for a migration, is left out.
        """
        found: dict[str, list[str]] = {box.name: [] for box in self.boxes}
        for host in self.lab.hosts.values():
            for name in self._running(host):
                found.setdefault(name, []).append(host.name)
        return found

    def _running(self, host: Host) -> list[str]:
        try:
            return host.run(["podman", "ps", "--format", "{{.Names}}"], timeout_s=30).output.split()
        except LifeboatError:
            return []

    def harms(self, boxes: Sequence[Box] | None = None) -> list[str]:
        """Return what is wrong with containers, all or the given ones; nothing when each is well on one host."""
        places = self.places()
        with ThreadPoolExecutor(AT_ONCE) as workers:
            found = workers.map(
                lambda box: self._harm(box, places[box.name]), self.boxes if boxes is None else boxes
            )
            return [harm for harm in found if harm]

    def _harm(self, box: Box, hosts: Sequence[str]) -> str:
        if len(hosts) != 1:
            return f"{box.name} runs on {hosts}"
        if box.memory_mib:
            found = self._asked(box, "verify")
            if found is None:
                return f"{box.name} does not answer"
            if found["boot"] != self._boots[box.name]:
                return f"{box.name} was started anew"
            return f"{box.name}: {found['wrong']} pages were wrong" if found["wrong"] or found["wrong_now"] else ""
        place = "/data" if box.volume else "/root"
        host = self.lab.host(hosts[0])
        written = host.run(["podman", "exec", box.name, "cat", f"{place}/written"], check=False).output.strip()
        return "" if written == box.name else f"{box.name} lost its file"

    def wait(self, what: str, happened: Callable[[], bool], timeout_s: float, every_s: float = 0.2) -> float:
        """Wait until something happened and return how long it took; raises `ExecutionError` when it did not.

        Looking is work for the hosts' processors, too: who waits for long looks seldom.
        """
        began_at = time.monotonic()
        while not happened():
            if time.monotonic() - began_at > timeout_s:
                raise ExecutionError(f"waited {timeout_s:g} s for {what}", code="lab-timeout")
            time.sleep(every_s)
        return time.monotonic() - began_at

    def _boot(self, box: Box) -> str:
        """Remember by what name a container calls this run of it; empty while it does not answer."""
        self._boots[box.name] = str((self._asked(box) or {}).get("boot", ""))
        return self._boots[box.name]

    def _asked(self, box: Box, request: str = "count") -> dict[str, Any] | None:
        try:
            return ask(self.lab, box.address, request)
        except CommandError:
            return None


def mixed_boxes(count: int = 20) -> list[Box]:
    """Return containers of several kinds, sizes and priorities."""
    boxes = []
    for number in range(count):
        labels = {"lifeboat.priority": str(number % 3)}
        if number % 5 == 0:
            labels["lifeboat.apart"] = "front"
        if number % 7 == 3:
            labels["lifeboat.method"] = "full"
        memory = 8 + 4 * (number % 4) if number % 3 else 0
        boxes.append(Box(f"box{number:02}", number, memory, volume=number % 4 == 0, labels=labels))
    return boxes
