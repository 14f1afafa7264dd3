"""A cluster of etcd on loopback: members that can be killed, started again, and made slow."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import requests

from migrator.command import kill_group, spawn
from migrator.errors import ExecutionError
from tests.lab.root import root

START_TIMEOUT_S = 30.0
LOOPBACK = "127.0.0.1"


class Etcd:
    """Some members; with `pki` they ask for certificates of a lifeboat cluster, and have one."""

    def __init__(self, place: Path, ports: Sequence[tuple[int, int]], pki: Path | None = None) -> None:
        """`ports` are a client's and a peer's port for each member."""
        self._place = place
        self._ports = list(ports)
        self._pki = pki
        self._scheme = "https" if pki else "http"
        self._members: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The URLs for clients."""
        return tuple(f"{self._scheme}://{LOOPBACK}:{client}" for client, _ in self._ports)

    def start(self, *numbers: int) -> None:
        """Start members (all, when none is named), and wait until the cluster can write."""
        for number in numbers or range(len(self._ports)):
            directory = self._place / str(number)
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            log = (self._place / f"{number}.log").open("ab")
            with log:
                self._members[number] = spawn(self._argv(number), stdout=log, stderr=log)
        self.wait_healthy()

    def wait_healthy(self) -> None:
        """Wait until every member that runs has a leader."""
        deadline = time.monotonic() + START_TIMEOUT_S
        for number in self._members:
            while not self._healthy(number):
                if time.monotonic() > deadline:
                    raise ExecutionError(
                        f"etcd {number} does not start: {self._place}/{number}.log", code="lab-etcd"
                    )
                time.sleep(0.05)

    def kill(self, *numbers: int) -> None:
        """Kill members; their files stay."""
        for number in numbers or list(self._members):
            process = self._members.pop(number)
            kill_group(process)
            process.wait()

    def pause(self, *numbers: int) -> None:
        """Let members take connections and answer nothing, as behind a cut cable."""
        for number in numbers:
            self._members[number].send_signal(signal.SIGSTOP)

    def resume(self, *numbers: int) -> None:
        """Let them go on."""
        for number in numbers:
            self._members[number].send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End all."""
        self.kill()

    def _healthy(self, number: int) -> bool:
        client = self._ports[number][0]
        options = {"verify": str(self._pki / "ca.crt"), "cert": str(self._pki / "host.pem")} if self._pki else {}
        with suppress(requests.RequestException):
            url = f"{self._scheme}://{LOOPBACK}:{client}/health"
            told = requests.get(url, timeout=2, verify=options.get("verify"), cert=options.get("cert")).json()
            return bool(told["health"] == "true")
        return False

    def _argv(self, number: int) -> list[str]:
        _, peer = self._ports[number]
        cluster = ",".join(f"m{n}=http://{LOOPBACK}:{port}" for n, (_, port) in enumerate(self._ports))
        argv, data = _program(self._place / str(number))
        argv += ["--name", f"m{number}", "--data-dir", data, "--log-level", "warn", "--logger", "zap"]
        argv += ["--listen-client-urls", self.endpoints[number], "--advertise-client-urls", self.endpoints[number]]
        urls = f"http://{LOOPBACK}:{peer}"
        argv += ["--listen-peer-urls", urls, "--initial-advertise-peer-urls", urls]
        argv += ["--initial-cluster", cluster, "--initial-cluster-state", "new"]
        argv += ["--heartbeat-interval", "50", "--election-timeout", "500", "--unsafe-no-fsync"]
        if self._pki is not None:
            argv += ["--client-cert-auth", "--trusted-ca-file", str(self._pki / "ca.crt")]
            argv += ["--cert-file", str(self._pki / "host.pem"), "--key-file", str(self._pki / "host.pem")]
        return argv


def _program(directory: Path) -> tuple[list[str], str]:
    """Return how to start etcd, this machine's or the hosts', and how it calls its data directory."""
    if shutil.which("etcd"):
        return ["etcd"], str(directory)
    script = 'mount --bind "$1" "$2/mnt" && mount --rbind /tmp "$2/tmp" && shift && exec chroot "$@"'
    inside = ["unshare", "--mount", "--propagation=private", "sh", "-ec", script, "sh", str(directory)]
    return [*inside, str(root()), "etcd"], "/mnt"
