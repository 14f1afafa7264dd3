"""A suspect host copies ahead: files wait at the target, stay fresh, go when it is well, and are used when not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.lab import admin, drives, signals
from tests.lab.fleet import SETTINGS, Box, Fleet
from tests.lab.lab import Lab

pytestmark = pytest.mark.real

POLICY = """\
[[rule]]
id = "disk-worrying"
signal = "smart.reallocated_sectors"
at_least = 1
verdict = "suspect"
why = "it replaces sectors"

[[rule]]
id = "disk-health-failed"
signal = "smart.health_failed"
is_set = true
verdict = "failing"
why = "the drive itself says that it is failing"
"""
VOLUME = "/var/lib/containers/storage/volumes/web/_data"
STAGED = "/var/lib/lifeboat/staged"
WAIT_S = 30


def version(path: Path) -> tuple[int, int]:
    """Return what changes when anything writes a file anew."""
    status = path.stat()
    return status.st_ino, status.st_ctime_ns


def test_files_wait_at_the_target_of_a_suspect_host(lab: Lab) -> None:
    alpha, beta = lab.host("alpha"), lab.host("beta")
    for host in (alpha, beta):
        host.write("/etc/lifeboat/policies/disks.toml", POLICY)
    fleet = Fleet(lab, f"{SETTINGS}[evacuation]\nwarm_up_s = 2\n")
    fleet.fill(alpha, [Box("web", 1, 16, volume=True)])
    alpha.write(f"{VOLUME}/big", os.urandom(8 << 20))
    alpha.write(f"{VOLUME}/small", "one")
    big, small = beta.path(f"{VOLUME}/big"), beta.path(f"{VOLUME}/small")

    def worry() -> None:
        signals.set_drive(alpha, drives.ata_drive(serial="LAB-alpha", reallocated=50))
        fleet.wait("the staging", lambda: bool(admin.status(alpha)["staged"]), WAIT_S)
        fleet.wait("all of it", lambda: admin.status(alpha)["staged"][0]["fresh_at"], WAIT_S)

    worry()
    assert big.read_bytes() == alpha.path(f"{VOLUME}/big").read_bytes()
    assert fleet.places() == {"web": ["alpha"]}
    signals.set_drive(alpha, drives.ata_drive(serial="LAB-alpha"))
    fleet.wait("it to go", lambda: not (big.parent.exists() or list(beta.path(STAGED).iterdir())), WAIT_S)
    worry()
    alpha.write(f"{VOLUME}/small", "two")
    fleet.wait("it to be fresh", lambda: small.read_text() == "two", WAIT_S)
    staged = version(big)
    alpha.write(f"{VOLUME}/last", "three")
    fleet.break_disk(alpha)
    fleet.wait("the evacuation", lambda: fleet.state(alpha) == "evacuated", 2 * WAIT_S)
    assert fleet.places() == {"web": ["beta"]}
    assert fleet.harms() == []
    assert version(big) == staged, "what waited was used as it was"
    assert beta.read(f"{VOLUME}/last") == "three"
    assert list(beta.path(STAGED).iterdir()) == [], "nothing of it can expire any more"
