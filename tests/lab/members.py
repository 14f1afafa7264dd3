"""A cluster of etcd on the lab's hosts: its members are services there, and can be killed one by one."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from migrator.errors import ExecutionError
from tests.lab.host import Host

START_LIMIT_S = 60.0
OPTIONS = ("--log-level", "error", "--heartbeat-interval", "100", "--election-timeout", "1000", "--unsafe-no-fsync")

ASK = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=2).read().decode())"


class Members:
    """The members, one for each place: a host and the port for clients; the port for members is 1000 higher."""

    def __init__(self, places: Sequence[tuple[Host, int]]) -> None:
        self._places = tuple(places)

    @property
    def urls(self) -> tuple[str, ...]:
        """Return the clients' URLs."""
        return tuple(f"http://{host.address}:{port}" for host, port in self._places)

    @property
    def settings(self) -> str:
        """Return the section of lifeboat.toml."""
        return f'[registry]\nkind = "etcd"\nendpoints = {json.dumps(self.urls)}\nlease_s = 5\ntimeout_s = 1\n'

    def start(self) -> None:
        """Start all, and wait until each knows a leader."""
        known = ",".join(f"m{number}={self._inside(number)}" for number in range(len(self._places)))
        for number, (host, _) in enumerate(self._places):
            url, inside = self.urls[number], self._inside(number)
            argv = ["etcd", "--name", f"m{number}", "--data-dir", f"/run/etcd-{number}", *OPTIONS]
            argv += ["--listen-client-urls", url, "--advertise-client-urls", url, "--initial-cluster", known]
            argv += ["--listen-peer-urls", inside, "--initial-advertise-peer-urls", inside]
            host.run(["systemd-run", "--quiet", "--collect", f"--unit=etcd-{number}", *argv])
        deadline = time.monotonic() + START_LIMIT_S
        while not all(self._healthy(number) for number in range(len(self._places))):
            if time.monotonic() > deadline:
                raise ExecutionError("etcd does not come up on the lab's hosts", code="lab-etcd")
            time.sleep(0.2)

    def kill(self, number: int) -> None:
        """Kill one at once."""
        host, _ = self._places[number]
        host.run(["systemctl", "kill", "--signal=KILL", f"etcd-{number}"], check=False)

    def close(self) -> None:
        """Kill all, and remove their files."""
        for number, (host, _) in enumerate(self._places):
            if host.running:
                self.kill(number)
                host.run(["rm", "-rf", f"/run/etcd-{number}"])

    def _inside(self, number: int) -> str:
        host, port = self._places[number]
        return f"http://{host.address}:{port + 1000}"

    def _healthy(self, number: int) -> bool:
        host, _ = self._places[number]
        asked = host.run(["python3", "-c", ASK, f"{self.urls[number]}/health"], check=False)
        return asked.status == 0 and json.loads(asked.output)["health"] == "true"
