"""A failing data disk: what lies on it leaves, the rest of the host stays where it is."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.lab import admin, cluster, drives, signals
from tests.lab.data_disk import data_disk, disk_below_root
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.people import ask, start

pytestmark = pytest.mark.real

SETTINGS = '[signals]\nsmart_poll_s = 1\nedac = false\n\n[migrator]\nbind_mounts = "sync"\n'
PLACE = "/srv/data"
WAIT_S = 90.0


def lifeboat(host: Host, *words: str) -> Any:
    """Run the command and return its JSON."""
    return json.loads(host.run(["lifeboat", *words, "--json"]).output)


def wait(host: Host, happened: Callable[[Any], bool]) -> Any:
    """Wait until the host's status is as it shall be, and return it."""
    deadline = time.monotonic() + WAIT_S
    while not happened(found := admin.status(host)):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def running(host: Host) -> list[str]:
    """Return what runs on a host."""
    return sorted(host.run(["podman", "ps", "--format", "{{.Names}}"]).output.split())


def test_only_what_lies_on_a_failing_data_disk_leaves(lab: Lab) -> None:
    alpha, beta = lab.host("alpha"), lab.host("beta")
    with data_disk(alpha, PLACE) as disk, disk_below_root(alpha):
        for name in (disk, "sda"):
            signals.set_drive(alpha, drives.ata_drive(name, serial=f"LAB-{name}"))
        cluster.start(lab, SETTINGS)
        alpha.run(["mkdir", f"{PLACE}/files"])
        for name, volume in (("archive", f"{PLACE}/files:/files"), ("web", "pages:/pages")):
            start(alpha, name, ["--network=none", "--volume", volume], ["deleted"])
        alpha.run(["lifeboat", "pause"])
        signals.set_drive(alpha, drives.ata_drive(disk, serial=f"LAB-{disk}", passed=False))
        status = wait(alpha, lambda found: bool(found["verdict"] == "failing"))
        assert (status["affected"], status["affected_containers"]) == ([f"/dev/{disk}"], ["archive"])
        affects = {item["device"]: item["affects"] for item in lifeboat(alpha, "signals")}
        assert (affects[f"/dev/{disk}"], affects["/dev/sda"]) == (["archive"], "host")
        plan = lifeboat(alpha, "plan")["migrations"]
        going = {item["container"]: (item["target"], item["kept"]) for item in plan}
        assert going == {"archive": ("beta", False), "web": (None, True)}, [item["reason"] for item in plan]
        alpha.run(["lifeboat", "resume"])
        wait(alpha, lambda found: bool(found["state"] == "evacuated" and not found["jobs"]))
        assert (running(alpha), running(beta)) == (["web"], ["archive"])
        assert (set(ask(alpha, "web").values()), set(ask(beta, "archive").values())) == ({"ok"}, {"ok"})
        alpha.run(["systemctl", "stop", "lifeboatd.service"])
