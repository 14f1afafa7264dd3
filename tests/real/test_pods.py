"""Pods: all members move together, with what they share and what they have said to each other, or none does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.crash import (
    ADDRESS,
    CONTAINER,
    FAULTS,
    IN_POD,
    POD,
    TALK,
    TALKER,
    TALKER_PORT,
    Cell,
    stage,
    talked,
)
from tests.lab.host import Host
from tests.lab.image import BASE
from tests.lab.lab import Lab
from tests.lab.leftovers import leftovers
from tests.lab.people import check, inside, inspect, migrate, shell, start, wait
from tests.lab.stops import Turnstile, stop_named
from tests.lab.traffic import PORT, Traffic, ask

pytestmark = pytest.mark.real

WEB = ["python3", "/usr/local/bin/workload", "--memory", "48"]
SHELF = "echo kept > /dev/shm/shelf; head -c 3000000 /dev/urandom > /dev/shm/bulk; md5sum < /dev/shm/bulk"


def pod(host: Host, *options: str, canary: str = "") -> None:
    """Make a pod whose two members talk to each other, one of whom serves."""
    label = ["--label", "lifeboat.canary=yes"]
    network = ["--network", "lan", "--ip", ADDRESS]
    host.run(["podman", "pod", "create", "--name", POD, "--hostname", "shop.test", *network, *options])
    member = ["podman", "run", "--detach", "--pod", POD, "--volume", "both:/both"]
    web = ["--name", "web", "--volume", "own:/own", *(label if canary == "web" else [])]
    host.run([*member, *web, BASE.name, *WEB])
    talk = ["python3", "-c", TALK.read_text(), str(PORT), str(TALKER_PORT)]
    host.run([*member, "--name", TALKER, BASE.name, *talk])


def described(host: Host) -> dict[str, Any]:
    """Return what must be the same wherever the pod is."""
    said = json.loads(host.run(["podman", "pod", "inspect", POD]).output)
    found = said[0] if isinstance(said, list) else said
    infra = inspect(host, found["InfraContainerID"])
    network = infra["NetworkSettings"]["Networks"]["lan"]
    return {
        **{key: found[key] for key in ("Name", "Hostname", "ExitPolicy", "State", "NumContainers")},
        "shared": sorted(found["SharedNamespaces"]),
        "labels": {key: value for key, value in found["Labels"].items() if key != "lifeboat.company"},
        "address": (network["IPAddress"], network["MacAddress"]),
        "shm": infra["HostConfig"]["ShmSize"],
        "hosts": infra["HostConfig"]["ExtraHosts"],
        "members": sorted(item["Name"] for item in found["Containers"] if not item["Name"].endswith("-infra")),
    }


def nothing_left(host: Host) -> None:
    """Assert that a host has nothing of the pod any more."""
    assert host.run(["podman", "ps", "--all", "--quiet"]).output == ""
    assert host.run(["podman", "pod", "ps", "--quiet"]).output == ""
    assert shell(host, "ls /run/netns 2>/dev/null || true") == ""
    assert leftovers(host) == []


def test_a_pod_moves_there_and_back_and_nothing_notices(cluster: Lab, tmp_path: Path) -> None:
    alpha, beta = cluster.host("alpha"), cluster.host("beta")
    pod(alpha, "--label", "shelf=top", "--add-host", "elsewhere:10.0.0.9", "--shm-size", "80m")
    wait("them to talk", lambda: talked(cluster).get("answers", 0) > 100)
    before, counted, there = described(alpha), ask(cluster, ADDRESS, "count"), talked(cluster)
    summed = inside(alpha, "web", "sh", "-c", SHELF)
    inside(alpha, "web", "sh", "-c", "echo common > /both/file; echo own > /own/file; echo layer > /root/file")
    with Traffic(cluster, ADDRESS, tmp_path / "client.json") as traffic:
        for name, source, target in (("web", alpha, beta), (POD, beta, alpha)):
            result = migrate(source, name, target.name)
            assert result.status == 0, result.errors
            nothing_left(source)
            assert described(target) == before
            assert (
                inside(target, TALKER, "sh", "-c", "cat /dev/shm/shelf; md5sum < /dev/shm/bulk")
                == f"kept\n{summed}"
            )
            assert inside(target, TALKER, "cat", "/both/file") == "common\n"
            assert inside(target, "web", "cat", "/own/file", "/root/file") == "own\nlayer\n"
            inside(target, TALKER, "sh", "-c", "echo common > /both/new; mv /both/new /both/file")
            assert inside(target, TALKER, "hostname") == "shop.test\n"
            assert "elsewhere" in inside(target, "web", "cat", "/etc/hosts")
        more = traffic.report()["answers"] + 50
        wait("the client to go on", lambda: traffic.report()["answers"] > more)
        seen = traffic.stop()
    assert (seen["resets"], seen["boots"]) == (0, [counted["boot"]])
    now = talked(cluster)
    assert now["answers"] > there["answers"] + 100
    assert (now["boot"], now["backwards"], now["broken"], now["others"]) == (
        there["boot"],
        0,
        "",
        [counted["boot"]],
    )
    verified = ask(cluster, ADDRESS)
    assert (verified["wrong"], verified["wrong_now"]) == (0, 0)
    assert leftovers(alpha) == []


def test_an_evacuation_takes_a_pod_as_one(cluster: Lab) -> None:
    alpha, beta = cluster.host("alpha"), cluster.host("beta")
    pod(alpha)
    start(alpha, "alone", ["--network=none"], ["environment"])
    wait("them to talk", lambda: talked(cluster).get("answers", 0) > 100)
    done = alpha.run(["lifeboat", "evacuate"], timeout_s=180, check=False)
    assert done.status == 0, done.errors
    history = json.loads(alpha.run(["lifeboat", "history", "--json"]).output)
    assert {item["container"]: item["phase"] for item in history} == dict.fromkeys(("web", TALKER, "alone"), "done")
    assert described(beta)["members"] == sorted(("web", TALKER))
    assert talked(cluster)["broken"] == ""
    nothing_left(alpha)


def test_a_drill_takes_all_of_a_pod_there_and_back(cluster: Lab) -> None:
    """One member is the canary; the others come along, and are not asked back a second time."""
    alpha = cluster.host("alpha")
    pod(alpha, canary="web")
    wait("them to talk", lambda: talked(cluster).get("answers", 0) > 100)
    boot = talked(cluster)["boot"]
    done = alpha.run(["lifeboat", "drill"], timeout_s=240, check=False)
    assert done.status == 0, done.output + done.errors
    assert "came back with its pod" in done.output
    assert described(alpha)["members"] == sorted(("web", TALKER))
    now = talked(cluster)
    assert (now["boot"], now["broken"]) == (boot, "")
    nothing_left(cluster.host("beta"))


REFUSED: dict[str, tuple[list[str], list[str], str, str]] = {
    "pids": (["--share", "net,ipc,pid"], [], "pod-namespaces", "share their pid namespace"),
    "hostnet": (["--network", "host"], [], "host-network", "shares the host's network namespace"),
    "apart": (["--share", "ipc"], [], "pod-namespaces", "do not share their network"),
    "bare": (["--infra=false"], [], "pod-infra", "has no infra container"),
    "narrow": (
        ["--network", "none", "--sysctl", "net.core.somaxconn=64"],
        [],
        "pod-settings",
        "net.core.somaxconn",
    ),
    "queue": (["--network", "none"], ["sysv"], "pod-ipc", "System V"),
    "ring": (["--network", "none", "--security-opt=seccomp=unconfined"], ["io_uring"], "not-dumpable", "io_uring"),
}


def rest(host: Host, name: str, pod: str) -> None:
    """Start a member that does nothing."""
    host.run(["podman", "run", "--detach", "--pod", pod, "--name", name, BASE.name, "sleep", "10000"])


def test_what_keeps_a_pod_is_known_beforehand(cluster: Lab) -> None:
    alpha = cluster.host("alpha")
    for name, (options, features, _, _) in REFUSED.items():
        alpha.run(["podman", "pod", "create", "--name", f"pod-{name}", *options])
        own = ["--security-opt=seccomp=unconfined"] if "seccomp" in str(options) else []
        start(alpha, name, ["--pod", f"pod-{name}", *own], features or ["environment"])
        rest(alpha, f"{name}-two", f"pod-{name}")
    start(alpha, "ended", ["--pod", "new:pod-halved"], ["environment"])
    rest(alpha, "left", "pod-halved")
    shell(alpha, "podman kill ended")
    said = alpha.run(["lifeboat", "check", "--json"], check=False)
    rows = {row["container"]: row for row in json.loads(said.output)}
    for name, (_, _, code, reason) in REFUSED.items():
        found = rows[name]["obstacles"]
        assert not rows[name]["movable"]
        assert any(item["code"] == code and reason in item["reason"] for item in found), (name, found)
        assert not rows[f"{name}-two"]["movable"], name
    assert any("ring of its pod pod-ring cannot move" in item["reason"] for item in rows["ring-two"]["obstacles"])
    assert any("ended of its pod pod-halved is exited" in item["reason"] for item in rows["left"]["obstacles"])
    refused = migrate(alpha, "ring-two", "beta")
    assert refused.status == 3
    assert "io_uring" in refused.errors
    assert check(cluster, "ring-two")["obstacles"] == rows["ring-two"]["obstacles"]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    """One stage for all that goes wrong."""
    with Lab(2, name="pods") as lab, stage(lab, tmp_path_factory.mktemp("pods"), method=IN_POD) as found:
        yield found


@pytest.fixture
def cell(ground: Cell) -> Iterator[Cell]:
    """Return the stage, on which nothing is when the next test comes."""
    try:
        yield ground
    finally:
        ground.put_away()


def test_a_human_resumes_all_of_a_pod(cell: Cell) -> None:
    """Its target dies in the drain; by one word all members run on at the source, with what they had in memory."""
    cell.prepare()
    cell.leave()
    turnstile = Turnstile(cell.source, stop_named("source: drain"), 60)
    cell.move()
    with turnstile.hold():
        cell.target.kill()
    assert cell.wait(lambda: len(cell.entries(cell.source)) >= 2, 60), "nobody was called"
    told = cell.unsettled(cell.source)
    assert sorted(item["container"] for item in told) == sorted((CONTAINER, TALKER))
    resume = ["lifeboat", "recover", told[0]["migration"], "--resume-here"]
    refused = cell.source.run(resume, check=False)
    assert refused.status == 6, refused.errors
    done = cell.source.run([*resume, "--target-is-dead"], check=False)
    assert done.status == 0, done.errors
    assert not cell.unsettled(cell.source)
    verified, before = ask(cell.lab, ADDRESS), talked(cell.lab)
    assert (verified["wrong_now"], cell.seen()["boots"]) == (0, [verified["boot"]])
    assert (before["broken"], before["others"]) == ("", [verified["boot"]])
    wait("them to talk", lambda: talked(cell.lab).get("answers", 0) > before["answers"] + 20)
    cell.lab.boot("beta")
    cell.target.wait_booted()
    cell.target.run(["systemctl", "start", "podman-restart.service", "lifeboatd.service"], check=False)
    assert cell.wait(lambda: not cell.unsettled(cell.target), 60), "the target does not give way"
    assert cell.runs_on() == ["alpha"]
    assert cell.target.run(["podman", "pod", "ps", "--quiet"]).output == ""
    assert leftovers(cell.target) == []


def test_a_human_takes_all_of_a_pod_over(cell: Cell) -> None:
    """Its source dies behind the commit; by one word at the target all members start anew, from their files."""
    cell.prepare()
    cell.leave()
    turnstile = Turnstile(cell.target, stop_named("target: gate open"), 60)
    cell.move()
    with turnstile.hold():
        cell.source.kill()
    assert cell.wait(lambda: len(waiting_for_a_human(cell)) == 2, 90), cell.unsettled(cell.target)
    resume = ["lifeboat", "recover", waiting_for_a_human(cell)[0], "--resume-here", "--source-is-dead"]
    done = cell.target.run(resume, check=False, timeout_s=120)
    assert done.status == 0, done.errors
    assert not cell.unsettled(cell.target)
    wait("them to talk", lambda: talked(cell.lab).get("answers", 0) > 20)
    assert cell.runs_on() == ["beta"]
    assert described(cell.target)["members"] == sorted((CONTAINER, TALKER))
    assert leftovers(cell.target) == []


def waiting_for_a_human(cell: Cell) -> list[str]:
    """Return the migrations to the target whose memory did not come."""
    return [item["migration"] for item in cell.unsettled(cell.target) if item.get("here") == "lost"]


SOURCE, TARGET = {"source"}, {"target"}

# All others: ./run soak matrix --method pod
CELLS: tuple[tuple[str, str, set[str]], ...] = (
    ("source: restore", "one source shim", SOURCE),
    ("source: restore", "target host", SOURCE),
    ("source: COMMIT", "source daemon", TARGET),
    ("target: gate open", "target daemon", TARGET),
    ("source: drain", "network between them, 3 s", TARGET),
    ("source: release", "source host", TARGET),
)


def kill_one(cell: Cell) -> None:
    """Kill the shim of one member only."""
    cell.kill_pid(cell.processes(cell.source, "migrator.shim")[-1])


def fault_named(name: str) -> Any:
    """Return a fault by its name."""
    return next(item for item in FAULTS if item.name == name)


@pytest.mark.parametrize(("stop", "fault", "outcomes"), CELLS, ids=lambda value: str(value).replace(" ", "-"))
def test_never_half_a_pod(cell: Cell, stop: str, fault: str, outcomes: set[str]) -> None:
    chosen = fault_named(fault.removeprefix("one "))
    if fault.startswith("one "):
        chosen = type(chosen)(fault, kill_one)
    verdict = cell.run(stop_named(stop), chosen)
    assert verdict.struck, verdict.said
    assert verdict.wrong == [], verdict
    assert verdict.outcome in outcomes, verdict
