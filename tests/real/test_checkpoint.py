"""A suspect host puts whole checkpoints at its targets, and a human starts one when the host is dead."""

from __future__ import annotations

import pytest

from tests.lab import drives, signals
from tests.lab.fleet import SETTINGS, Box, Fleet
from tests.lab.lab import Lab
from tests.real.test_staging import POLICY, VOLUME

pytestmark = pytest.mark.real

WAIT_S = 60
KEPT = "/var/lib/lifeboat/checkpoints"


def test_a_container_starts_from_its_checkpoint_when_its_host_died_suddenly(lab: Lab) -> None:
    alpha, beta = lab.host("alpha"), lab.host("beta")
    for host in (alpha, beta):
        host.write("/etc/lifeboat/policies/disks.toml", POLICY)
    fleet = Fleet(lab, f"{SETTINGS}[evacuation]\nwarm_up_s = 2\ncheckpoint_s = 0.5\n")
    web = Box("web", 1, 16, volume=True)
    fleet.fill(alpha, [web])
    alpha.write(f"{VOLUME}/before", "one")
    signals.set_drive(alpha, drives.ata_drive(serial="LAB-alpha", reallocated=50))

    def kept_at() -> float:
        staged = fleet.lifeboat(alpha, "status")["staged"]
        return float(staged[0]["kept_at"] or 0) if staged else 0.0

    fleet.wait("a checkpoint", lambda: kept_at() > 0, WAIT_S)
    first = kept_at()
    fleet.wait("another one", lambda: kept_at() > first, WAIT_S)
    assert fleet.harms() == [], "it runs on, and was not started anew"
    assert {item["phase"] for item in fleet.lifeboat(alpha, "history")} == {"kept"}
    assert fleet.lifeboat(beta, "recover") == [], "its host answers"

    start = ["lifeboat", "recover", "web", "--resume-here", "--source-is-dead"]
    refused = beta.run(start, check=False)
    assert refused.status == 6
    assert "alpha answers" in refused.errors

    alpha.kill()
    fleet.wait("the host to be missed", lambda: bool(fleet.lifeboat(beta, "recover")), WAIT_S)
    (orphan,) = fleet.lifeboat(beta, "recover")
    assert (orphan["container"], orphan["peer"]) == ("web", "alpha")
    unproved = beta.run(start[:-1], check=False)
    assert unproved.status == 6
    assert "nobody said that it is dead" in unproved.errors
    done = beta.run(start, timeout_s=WAIT_S, check=False)
    assert done.status == 0, done.errors
    assert fleet.places() == {"web": ["beta"]}
    assert fleet.harms() == [], "with the memory of its checkpoint"
    assert beta.read(f"{VOLUME}/before") == "one"
    assert fleet.lifeboat(beta, "recover") == []
    assert not beta.path(KEPT).exists() or list(beta.path(KEPT).iterdir()) == []
