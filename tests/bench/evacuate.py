"""Emptying a host, by lifeboat and by podman's own commands one container after the other.

Three hosts, containers of one size on the first, one client connection to each of them. Measured by the
clients: the longest stall of each; by the clock: from the order to the last container served elsewhere.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.lab.fleet import SETTINGS, Box, Fleet
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.traffic import Traffic

CLIENT_INTERVAL_MS = 20
ARCHIVE = "/var/lib/containers/checkpoint.tar"
KEY = "/root/.ssh/id_ed25519"


def main(argv: Sequence[str]) -> int:
    """Run one way or both; print a line for each and write all of it as JSON."""
    parser = argparse.ArgumentParser(prog="./run bench evacuate", description=__doc__)
    parser.add_argument("--containers", type=int, default=20, metavar="N")
    parser.add_argument("--memory", type=int, default=256, metavar="MIB")
    parser.add_argument("--only", choices=("lifeboat", "podman"), help="one way (default: both)")
    parser.add_argument("--at-once", type=int, default=3, metavar="N", help="migrator.at_once")
    parser.add_argument("--away", type=int, default=2, metavar="N", help="migrator.away_at_once, and per target")
    parser.add_argument("--freezes", type=int, default=1, metavar="N", help="migrator.freezes_at_once")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the results to a file")
    arguments = parser.parse_args(argv)
    results = []
    for way in (arguments.only,) if arguments.only else ("podman", "lifeboat"):
        results.append(measure(way, arguments))
        print(summary(results[-1]), flush=True)
        if arguments.json:
            before = json.loads(arguments.json.read_text()) if arguments.json.exists() else []
            arguments.json.write_text(json.dumps([*before, results[-1]], indent=1) + "\n")
    return 0 if all(not result["harm"] for result in results) else 1


def measure(way: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Empty a fresh host in one way and return what was seen."""
    limits = f"at_once = {arguments.at_once}\naway_at_once = {arguments.away}\naway_per_target = {arguments.away}\n"
    settings = f"{SETTINGS}\n[migrator]\n{limits}freezes_at_once = {arguments.freezes}\n"
    boxes = [Box(f"box{number:02}", number, arguments.memory) for number in range(arguments.containers)]
    with Lab(3, name="bench-evacuate") as lab, tempfile.TemporaryDirectory() as directory:
        fleet, source = Fleet(lab, settings), lab.host("alpha")
        fleet.fill(source, boxes)
        clients = [watch(lab, box, Path(directory)) for box in boxes]
        began_at = time.monotonic()
        if way == "podman":
            told = by_podman(source, [lab.host("beta"), lab.host("gamma")], boxes)
        else:
            told = by_lifeboat(fleet, source)
        total_s = time.monotonic() - began_at
        for client in clients:
            more = client.report()["answers"] + 1
            fleet.wait("a client to be served", partial(served, client, more), 30)
        seen = [client.stop() for client in clients]
        harm = fleet.harms()
    return {
        "way": way,
        "containers": arguments.containers,
        "memory_mib": arguments.memory,
        "limits": [arguments.at_once, arguments.away, arguments.freezes] if way == "lifeboat" else None,
        "total_s": round(total_s, 1),
        "stalls_ms": sorted(round(item["longest_stall_ms"]) for item in seen),
        "broken_connections": sum(bool(item["resets"]) for item in seen),
        "harm": harm,
        **told,
    }


def watch(lab: Lab, box: Box, directory: Path) -> Traffic:
    """Start a client of one container."""
    client = Traffic(lab, box.address, directory / f"{box.name}.json", interval_ms=CLIENT_INTERVAL_MS)
    client.start()
    return client


def served(client: Traffic, answers: int) -> bool:
    """Say whether a client has had so many answers."""
    return bool(client.report()["answers"] >= answers)


def by_lifeboat(fleet: Fleet, source: Host) -> dict[str, Any]:
    """Let lifeboat empty the host."""
    planned = fleet.plan(source)
    outcome = fleet.lifeboat(source, "evacuate", timeout_s=900)
    moved = outcome["moved"]
    return {
        "planned_s": planned["ends_s"],
        "freezes_ms": sorted(round(item["freeze_ms"]) for item in moved),
        "phases_s": {
            phase: round(sum(p["duration_s"] for item in moved for p in item["phases"] if p["phase"] == phase), 2)
            for phase in ("prepare", "freeze", "restore", "commit", "drain", "release")
        },
        "waited_s": round(sum(item["waited_s"] for item in moved), 1),
        "drain_bytes_per_s": [round(item["drained_bytes"] / item["drain_s"]) for item in moved if item["drain_s"]],
    }


def by_podman(source: Host, targets: Sequence[Host], boxes: Sequence[Box]) -> dict[str, Any]:
    """Do what an admin would without lifeboat: checkpoint to a file, copy it by scp, restore, announce."""
    source.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", KEY])
    for target in targets:
        target.write("/root/.ssh/authorized_keys", source.read(f"{KEY}.pub"), mode=0o600)
    for number, box in enumerate(boxes):
        target = targets[number % len(targets)]
        checkpoint = ["podman", "container", "checkpoint", "--tcp-established", "--compress", "none"]
        source.run([*checkpoint, "--export", ARCHIVE, box.name], timeout_s=120)
        scp = ["scp", "-q", "-o", "StrictHostKeyChecking=accept-new", ARCHIVE, f"{target.address}:{ARCHIVE}"]
        source.run(scp, timeout_s=120)
        restore = ["podman", "container", "restore", "--tcp-established", "--import", ARCHIVE]
        target.run(restore, timeout_s=120)
        pid = target.run(["podman", "inspect", "--format", "{{.State.Pid}}", box.name]).output.strip()
        announce = ["nsenter", f"--net=/proc/{pid}/ns/net", "arping", "-U", "-c", "1", "-I", "eth0", box.address]
        target.run(announce, check=False)
        source.run(["podman", "rm", "--force", box.name], timeout_s=60)
    return {}


def summary(result: dict[str, Any]) -> str:
    """Return one line for people."""
    stalls = result["stalls_ms"]
    text = f"{result['way']:9} {result['containers']} x {result['memory_mib']} MiB: {result['total_s']} s"
    text += (
        f", stalls {sum(stalls) / 1000:.1f} s in sum, median {stalls[len(stalls) // 2]} ms, worst {stalls[-1]} ms"
    )
    text += f", planned {result['planned_s']} s, limits {result['limits']}" if "planned_s" in result else ""
    return text + (f", HARM: {result['harm']}" if result["harm"] else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
