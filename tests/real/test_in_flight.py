"""What is sent to a container while it stands still comes along: no client has to send anything twice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.lab import Lab
from tests.lab.scene import ADDRESS, CONTAINER, Scene

pytestmark = pytest.mark.real

PATIENCE_S = 20
"""The client's kernel waits as long before it sends anything again (rto_min, ip-route(8)), for connections, too."""

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
        found.close()


def test_no_client_sends_anything_twice(scene: Scene) -> None:
    client = scene.lab.client
    client.run(["ip", "route", "replace", f"{ADDRESS}/32", "dev", "eth0", "rto_min", f"{PATIENCE_S}s"])
    crowd = client.spawn([sys.executable, "-c", CROWD, ADDRESS], stdin=subprocess.PIPE)
    try:
        assert crowd.stdout is not None
        assert crowd.stdout.readline() == b"asking\n"
        before = repeated(scene)
        argv = ["lifeboat", "migrate", CONTAINER, "--to", "beta"]
        scene.source.run(argv, timeout_s=180)
        longest_s = float(crowd.communicate(b"\n", timeout=120)[0])
    finally:
        crowd.kill()
        crowd.wait()
        client.run(["ip", "route", "delete", f"{ADDRESS}/32"])
    outcome = scene.lifeboat(scene.source, "history")[0]
    assert outcome["freeze_ms"] / 2000 < longest_s < PATIENCE_S, json.dumps(outcome)
    assert repeated(scene) == before


def repeated(scene: Scene) -> int:
    """Return how many packets the client's kernel has sent again."""
    lines = scene.lab.client.run(["cat", "/proc/net/snmp"]).output.splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])
