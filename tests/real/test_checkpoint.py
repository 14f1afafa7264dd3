"""A suspect host puts whole checkpoints at its targets, and a human starts one when the host is dead."""

from __future__ import annotations

import time
from pathlib import Path
from subprocess import DEVNULL

import pytest

from tests.lab import admin, drives, signals
from tests.lab.fleet import SETTINGS, Box, Fleet
from tests.lab.lab import Lab
from tests.lab.stops import Turnstile, stop_named
from tests.lab.traffic import Traffic
from tests.real.test_staging import POLICY, VOLUME

pytestmark = pytest.mark.real

WAIT_S = 60
SUSPECT = drives.ata_drive(serial="LAB-alpha", reallocated=50)
KEPT = "/var/lib/lifeboat/checkpoints"


def suspects(lab: Lab, settings: str) -> Fleet:
    """Return a cluster in which replaced sectors make a host suspect, that copies ahead very often."""
    for host in lab.hosts.values():
        host.write("/etc/lifeboat/policies/disks.toml", POLICY)
    return Fleet(lab, f"{SETTINGS}[evacuation]\nwarm_up_s = 2\n{settings}")


def kept_at(fleet: Fleet) -> float:
    """Return of when the checkpoint of alpha's only container is, 0 without one."""
    staged = admin.status(fleet.lab.host("alpha"))["staged"]
    return float(staged[0]["kept_at"] or 0) if staged else 0.0


def test_a_container_starts_from_its_checkpoint_when_its_host_died_suddenly(lab: Lab, tmp_path: Path) -> None:
    alpha, beta = lab.host("alpha"), lab.host("beta")
    fleet = suspects(lab, "checkpoint_s = 0.5\n")
    web = Box("web", 1, 16, volume=True)
    fleet.fill(alpha, [web])
    alpha.write(f"{VOLUME}/before", "one")
    signals.set_drive(alpha, SUSPECT)
    fleet.wait("a checkpoint", lambda: kept_at(fleet) > 0, WAIT_S)
    first = kept_at(fleet)
    fleet.wait("another one", lambda: kept_at(fleet) > first, WAIT_S)
    assert fleet.harms() == [], "it runs on, and was not started anew"
    assert {item["phase"] for item in fleet.lifeboat(alpha, "history")} == {"kept"}
    assert fleet.lifeboat(beta, "recover") == [], "its host answers"

    turnstile = Turnstile(alpha, stop_named("source: freeze"), WAIT_S)
    with turnstile.hold():
        alpha.run(["systemctl", "kill", "--signal=KILL", "lifeboatd"])
    second = time.time()
    fleet.wait("systemd", lambda: alpha.run(["lifeboat", "status"], check=False).status == 0, WAIT_S)
    fleet.wait("one after that", lambda: kept_at(fleet) > second, WAIT_S)
    assert fleet.harms() == [], "whoever dies, it runs on"

    start = ["lifeboat", "recover", "web", "--resume-here", "--source-is-dead"]
    refused = beta.run(start, check=False)
    assert refused.status == 6
    assert "alpha answers" in refused.errors

    peer = Traffic(lab, web.address, tmp_path / "peer.json")
    peer.start()
    alpha.kill()
    fleet.wait("the host to be missed", lambda: bool(admin.situations(beta)), WAIT_S)
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
    fleet.wait("its old peer to be told", lambda: bool(peer.report()["error"]), WAIT_S)
    assert peer.stop()["resets"] == 1, "a connection of the past ends and does not go on"
    assert fleet.lifeboat(beta, "recover") == []
    assert not beta.path(KEPT).exists() or list(beta.path(KEPT).iterdir()) == []


def kept_once(lab: Lab) -> Fleet:
    """Return a cluster with a container that has a checkpoint, with `one` in its file `old`, and now `two`."""
    alpha = lab.host("alpha")
    fleet = suspects(lab, 'checkpoint_s = 600\n[migrator]\nreconnect_limit_s = 3\nfallback = "checkpoint"\n')
    fleet.fill(alpha, [Box("web", 1, 64, volume=True)])
    alpha.write(f"{VOLUME}/old", "one")
    signals.set_drive(alpha, SUSPECT)
    fleet.wait("a checkpoint", lambda: kept_at(fleet) > 0, WAIT_S)
    alpha.write(f"{VOLUME}/old", "two")
    return fleet


def test_one_whose_memory_was_lost_in_the_drain_goes_back_to_its_checkpoint(lab: Lab) -> None:
    alpha, beta = lab.host("alpha"), lab.host("beta")
    fleet = kept_once(lab)
    alpha.write(f"{VOLUME}/new", "three")
    turnstile = Turnstile(alpha, stop_named("source: drain"), WAIT_S)
    move = alpha.spawn(["lifeboat", "migrate", "web", "--to", "beta"], stdout=DEVNULL, stderr=DEVNULL)
    with turnstile.hold():
        alpha.kill()
    move.wait(WAIT_S)
    fleet.wait("it to go back", lambda: "done" in str(admin.history(beta)), WAIT_S)
    assert fleet.places() == {"web": ["beta"]}
    assert fleet.harms() == [], "with the memory of its checkpoint"
    assert beta.read(f"{VOLUME}/old") == "one"
    assert not beta.path(f"{VOLUME}/new").exists()
    (aside,) = beta.path("/var/lib/lifeboat/lost").iterdir()
    assert (aside / "volume:web/new").read_text() == "three", "what was written since is kept"
    assert (aside / "layer").is_dir()
    assert "goes back to its checkpoint" in str(fleet.lifeboat(beta, "history"))


def test_a_host_that_takes_none_starts_none_from_its_checkpoint(lab: Lab) -> None:
    alpha, beta = lab.host("alpha"), lab.host("beta")
    fleet = kept_once(lab)
    parked, drain = (Turnstile(alpha, stop_named(name), WAIT_S) for name in ("source: parked", "source: drain"))
    move = alpha.spawn(["lifeboat", "migrate", "web", "--to", "beta"], stdout=DEVNULL, stderr=DEVNULL)
    with parked.hold():
        beta.run(["lifeboat", "cordon"])
    with drain.hold():
        alpha.kill()
    move.wait(WAIT_S)

    def said() -> str:
        return beta.run(["journalctl", "--unit=lifeboatd", "--output=cat", "--no-pager"]).output

    fleet.wait("a human to be called", lambda: "could not go back" in said(), WAIT_S)
    assert "beta takes no container: it is cordoned" in said()
    assert beta.read(f"{VOLUME}/old") == "two", "nothing was touched"
    beta.run(["lifeboat", "uncordon"])
    fleet.wait("it to go back", lambda: "done" in str(admin.history(beta)), WAIT_S)
    assert fleet.harms() == [], "with the memory of its checkpoint"
    assert beta.read(f"{VOLUME}/old") == "one"
    assert said().count("could not go back") == 1, "it is told once"
