"""What is sent to a container while it stands still comes along: no client has to send anything twice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrator.peers import reach
from tests.lab.lab import Lab
from tests.lab.scene import ADDRESS, CONTAINER, Scene
from tests.lab.stops import Turnstile, stop_named

pytestmark = pytest.mark.real

RTO_S = 20
"""The client's kernel waits as long before it sends anything again (rto_min, ip-route(8)), for connections, too."""

MIGRATE = ["lifeboat", "migrate", CONTAINER, "--to", "beta"]

CROWD = """
import socket, sys, threading, time

waits = []

def ask(again):
    link = socket.create_connection((sys.argv[1], 7000), 60)
    reader = link.makefile("rb")
    while again:
        time.sleep(0.1)
        began = time.monotonic()
        link.sendall(b"count\\n")
        assert reader.readline()
        waits.append(time.monotonic() - began)

for _ in range(40):
    threading.Thread(target=ask, args=(True,), daemon=True).start()
while len(waits) < 400:
    time.sleep(0.01)
print("asking", flush=True)
sys.stdin.readline()
enough = len(waits) + 2000
while len(waits) < enough:
    time.sleep(0.01)
print(max(waits), flush=True)
"""
"""Forty clients of which each asks something ten times a second, so that some ask at any moment."""


@pytest.fixture
def scene(lab: Lab, tmp_path: Path) -> Iterator[Scene]:
    """Both daemons run, the container serves."""
    found = Scene(lab, tmp_path)
    try:
        found.start_daemons("lazy")
        found.start_container(64)
        yield found
    finally:
        lab.heal()
        found.close()


class Crowd:
    """The clients, who ask from the beginning on."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._process = scene.lab.client.spawn([sys.executable, "-c", CROWD, ADDRESS], stdin=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"asking\n"
        self._before = repeated(scene)

    def longest_s(self) -> float:
        """Return how long one of them waited at most, when all have gone on asking for a while."""
        return float(self._process.communicate(b"\n", timeout=120)[0])

    def sent_again(self) -> int:
        """Return how many packets they have sent again."""
        return repeated(self._scene) - self._before

    def close(self) -> None:
        """Send them home."""
        self._process.kill()
        self._process.wait()


@pytest.fixture
def crowd(scene: Scene) -> Iterator[Crowd]:
    """Clients whose kernel is in no hurry to send anything again."""
    client = scene.lab.client
    client.run(["ip", "route", "replace", f"{ADDRESS}/32", "dev", "eth0", "rto_min", f"{RTO_S}s"])
    try:
        found = Crowd(scene)
        try:
            yield found
        finally:
            found.close()
    finally:
        client.run(["ip", "route", "delete", f"{ADDRESS}/32"])


def test_no_client_sends_anything_twice(scene: Scene, crowd: Crowd) -> None:
    scene.source.run(MIGRATE, timeout_s=180)
    longest_s = crowd.longest_s()
    outcome = scene.lifeboat(scene.source, "history")[0]
    assert outcome["freeze_ms"] / 2000 < longest_s < RTO_S, json.dumps(outcome)
    assert crowd.sent_again() == 0


def test_nor_when_the_container_stays_where_it_is(scene: Scene, crowd: Crowd) -> None:
    """The network between the hosts is cut while it stands still: it is given back, and hears what was asked."""
    turnstile = Turnstile(scene.source, stop_named("source: restore"), 60)
    with scene.source.spawn(MIGRATE) as moving:
        with turnstile.hold():
            scene.lab.cut("alpha", "beta")
        moving.communicate(timeout=60)
    assert moving.returncode != 0
    assert scene.source.run(["podman", "inspect", "--format", "{{.State.Status}}", CONTAINER]).output == "running\n"
    assert reach.PATIENCE_S / 2 < crowd.longest_s() < RTO_S
    assert crowd.sent_again() == 0


def repeated(scene: Scene) -> int:
    """Return how many packets the client's kernel has sent again."""
    lines = scene.lab.client.run(["cat", "/proc/net/snmp"]).output.splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])
