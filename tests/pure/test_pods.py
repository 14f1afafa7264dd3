"""Pods: what is known of one, what keeps it, with which words it is made anew, and what of it a target takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from migrator.admission import admit
from migrator.admission.rules import Joined, Places, Terms
from migrator.container.here import Look
from migrator.container.obstacles import Surroundings, obstacles
from migrator.container.pods import PodHere, carried, pod_of, with_fellows
from migrator.errors import PrerequisiteError
from migrator.model import (
    ContainerFacts,
    Method,
    NetworkAttachment,
    Obstacle,
    PodFacts,
    PublishedPort,
    Treatment,
    VolumeMount,
)
from migrator.network.gate import shut_rules
from migrator.protocol.journal import Side
from migrator.protocol.messages import ParkRequest, Proposal
from migrator.runtime import pods, tombstone
from migrator.runtime.pods import create_pod, mount_source
from migrator.runtime.specification import cgroup_of, share_memory
from migrator.settings import MigratorSettings
from migrator.target.desk import Desk
from migrator.target.reception import Reception
from tests.pure.halls import hall_in
from tests.pure.values import container, pod

DATA = Path(__file__).parents[1] / "data/podman-5.4.2"
STORAGE = Path("/var/lib/containers/storage")
PLACES = Places(STORAGE, Path("/run/containers/storage"), STORAGE / "volumes")
HERE = Joined("e" * 64, "f" * 64)


def recorded(name: str) -> dict[str, Any]:
    """Return what podman said."""
    found: dict[str, Any] = json.loads((DATA / f"pod.{name}.json").read_text())
    return found


def here(pod_changes: dict[str, Any] | None = None, infra: dict[str, Any] | None = None) -> PodHere:
    """Return the recorded pod, a little different."""
    found = recorded("infra")
    for key, value in (infra or {}).items():
        found = {**found, key: {**found[key], **value} if isinstance(value, dict) else value}
    return PodHere({**recorded("pod"), **(pod_changes or {})}, found)


def test_what_is_known_of_a_pod() -> None:
    facts, (cold,) = pod_of(here())
    assert facts is not None
    assert (facts.name, facts.hostname, facts.shares) == ("shop", "shop", ("ipc", "net", "uts"))
    assert len(facts.members) == 2
    assert facts.infra not in facts.members
    assert (facts.labels, facts.shared_memory_bytes) == ({"a": "b"}, 65536000)
    assert (cold.code, cold.methods) == ("in-pod", (Method.COLD,))


def test_ports_of_a_pod() -> None:
    bindings = {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "10.0.0.1", "HostPort": "81"}],
        "53/udp": None,
    }
    facts, _ = pod_of(here(infra={"HostConfig": {"PortBindings": bindings}}))
    assert facts is not None
    assert facts.ports == (
        PublishedPort(host_port=8080, container_port=80),
        PublishedPort(host_port=81, container_port=80, host_address="10.0.0.1"),
    )


STOPPED = [{"Id": "1" * 64, "Name": "web", "State": "exited"}]

KEPT: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({"SharedNamespaces": ["net", "pid"]}, {}, "pod-namespaces", "share their pid namespace"),
    ({"SharedNamespaces": ["ipc"]}, {}, "pod-namespaces", "do not share their network"),
    ({}, {"HostConfig": {"NetworkMode": "host"}}, "host-network", "the host's network namespace"),
    ({}, {"HostConfig": {"UsernsMode": "private"}}, "pod-namespaces", "a user namespace of its own"),
    ({"Containers": STOPPED}, {}, "pod-member-stopped", "web of its pod shop is exited"),
    ({"Labels": {"PODMAN_SYSTEMD_UNIT": "shop-pod.service"}}, {}, "pod-of-unit", "started by a systemd unit"),
    ({}, {"ImageName": "registry/pause:1"}, "pod-infra", "an infra image of its own"),
    ({"memory_limit": 1 << 30}, {}, "pod-settings", "memory_limit"),
    ({"something_new": True}, {}, "pod-settings", "something_new"),
    ({"InfraConfig": {"NoManageHosts": True}}, {}, "pod-settings", "NoManageHosts"),
    ({}, {"Mounts": [{"Destination": "/data"}]}, "pod-settings", "mount at /data"),
    ({"Name": "-x"}, {}, "pod-settings", "cannot be described to another host"),
]


@pytest.mark.parametrize(("changes", "infra", "code", "reason"), KEPT)
def test_what_keeps_a_pod(changes: dict[str, Any], infra: dict[str, Any], code: str, reason: str) -> None:
    _, found = pod_of(here(changes, infra))
    assert any(item.code == code and reason in item.reason and item.methods == tuple(Method) for item in found), (
        found
    )


def test_a_pod_without_infra_and_one_with_settings_of_the_kernel() -> None:
    facts, found = pod_of(PodHere(recorded("pod"), {}))
    assert facts is None
    assert found[0].code == "pod-infra"
    _, found = pod_of(PodHere(recorded("pod"), recorded("infra"), ("net.ipv4.ping_group_range", "kernel.sem")))
    assert "kernel.sem" in found[0].reason
    assert "ping" not in found[0].reason


def member(number: int, **changes: object) -> ContainerFacts:
    """Return a member of a pod of two."""
    return container(f"m{number}", **{"id": "ab"[number] * 64, "pod": pod(), **changes})  # type: ignore[arg-type]


def codes(found: Sequence[Obstacle]) -> list[str]:
    """Return the codes of obstacles."""
    return [item.code for item in found]


def test_what_keeps_one_member_keeps_all() -> None:
    device = Obstacle(code="device", reason="uses the device /dev/kmsg", methods=tuple(Method))
    stays, kept, alone = with_fellows([member(0), member(1, obstacles=(device,)), container("alone")])
    assert codes(stays.obstacles) == ["pod-member-stays"]
    assert stays.obstacles[0].reason == "m1 of its pod peas cannot move: uses the device /dev/kmsg"
    assert codes(kept.obstacles) == ["device"]
    assert alone.obstacles == ()
    lazy = Obstacle(code="runtime-not-lazy", reason="crun", methods=(Method.LAZY,))
    assert with_fellows([member(0), member(1, obstacles=(lazy,))])[0].obstacles == ()  # it goes by another rung
    labelled = with_fellows([member(0), member(1, labels={"lifeboat.evacuate": "no"})])
    assert [codes(item.obstacles) for item in labelled] == [["pod-member-stays"], []]


def test_a_volume_that_members_share_is_carried_by_one() -> None:
    data = VolumeMount(kind="volume", name="data", source="/v", destination="/data", writable=True)
    bound = data.model_copy(update={"name": "bound", "options": {"o": "bind", "device": "/srv"}})
    users = {"data": ("b" * 64, "a" * 64), "bound": ("b" * 64, "a" * 64)}
    both = [
        item.model_copy(update={"volumes": (data, bound)}) for item in (member(0), member(1), container("alone"))
    ]
    treated = [[mount.treatment for mount in carried(item, users)] for item in both]
    assert treated == [
        [Treatment.COPY, Treatment.COPY],
        [Treatment.LEAVE, Treatment.COPY],
        [Treatment.COPY, Treatment.COPY],
    ]
    assert [codes(item.obstacles) for item in with_fellows(both)] == [["volume-in-use"], ["volume-in-use"], []]
    found = obstacles(both[0], {}, Surroundings(f"/libpod-{'a' * 64}", volume_users=users))
    assert codes(found) == []
    others = {"data": ("9" * 64,)}
    found = obstacles(both[0], {}, Surroundings(f"/libpod-{'a' * 64}", volume_users=others))
    assert codes(found) == ["volume-in-use"]


def test_what_of_its_place_in_a_pod_keeps_a_member() -> None:
    described = {"Pod": "c" * 64, "HostConfig": {"NetworkMode": f"container:{'d' * 64}"}}
    own = Surroundings(cgroup=f"/sys/fs/cgroup/libpod_parent/x/libpod-{'a' * 64}")
    facts = member(0)

    def found(facts: ContainerFacts, inspected: dict[str, Any], **changes: Any) -> list[str]:
        return codes(obstacles(facts, {**described, **inspected}, Surroundings(own.cgroup, **changes)))

    assert found(facts, {}) == []
    assert found(facts, {"HostConfig": {"NetworkMode": "container:other"}}) == ["joined-namespace"]
    assert found(facts, {"Dependencies": ["d" * 64]}) == []
    assert found(facts, {"Dependencies": ["d" * 64, "9" * 64]}) == ["pod-member-needs"]
    assert found(facts, {}, shared_objects=("System V semaphores",)) == ["pod-ipc"]
    unit = facts.model_copy(update={"labels": {"PODMAN_SYSTEMD_UNIT": "web.service"}})
    assert found(unit, {}) == ["pod-of-unit"]


def test_the_words_that_make_it_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[list[str]] = []

    class Answer:
        output = "1234\n"

    def run(argv: Sequence[str], **_: object) -> Answer:
        said.append(list(argv))
        return Answer()

    monkeypatch.setattr(pods, "run", run)
    networks = (
        NetworkAttachment(
            network="lan",
            driver="macvlan",
            interface="eth0",
            mac="02:00:00:00:00:01",
            addresses=("10.0.0.5/24", "fd00::5/64"),
        ),
        NetworkAttachment(
            network="vlan", driver="ipvlan", interface="eth1", mac="02:00:00:00:00:02", addresses=("10.1.0.5/24",)
        ),
    )
    facts = pod(
        labels={"a": "b c", pods.COMPANY: "old"},
        ports=(PublishedPort(host_port=8080, container_port=80, host_address="::1", protocol="udp"),),
        hosts=("db:10.0.0.9",),
        dns_servers=("10.0.0.8",),
        shared_memory_bytes=1 << 20,
    )
    assert create_pod(facts, networks, "m1") == "1234"
    assert said[0] == [
        *("podman", "pod", "create", "--name=peas", "--hostname=peas", "--share=ipc,net,uts"),
        *("--exit-policy=continue", "--label=a=b c", "--label=lifeboat.company=m1"),
        "--network=lan:interface_name=eth0,ip=10.0.0.5,ip=fd00::5,mac=02:00:00:00:00:01",
        "--network=vlan:interface_name=eth1,ip=10.1.0.5",
        *("--publish=[::1]:8080:80/udp", "--shm-size=1048576b", "--dns=10.0.0.8", "--add-host=db:10.0.0.9"),
    ]
    create_pod(pod(), (), "m1")
    assert "--network=none" in said[1]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id", "c"),
        ("infra", "../x"),
        ("name", "--privileged"),
        ("hostname", "a b"),
        ("shares", ("pid",)),
        ("exit_policy", "x"),
        ("dns_servers", ("x",)),
        ("dns_options", ("--x",)),
        ("hosts", ("--x",)),
        ("members", ()),
        ("members", ("a",)),
    ],
)
def test_a_peer_cannot_slip_in_a_word(key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        pod(**{key: value})  # type: ignore[arg-type]


def facts_of_recorded() -> ContainerFacts:
    """Return what the source of the recorded pod proposes of its member."""
    facts, _ = pod_of(here())
    config = recorded("config")
    return ContainerFacts(
        id=config["id"],
        name=config["name"],
        image=config["rootfsImageName"],
        image_id=config["rootfsImageID"],
        runtime="runc",
        running=True,
        pod=facts,
    )


def asked(
    facts: ContainerFacts, config: dict[str, Any], spec: dict[str, Any], joined: Joined | None
) -> ParkRequest:
    """Ask a target for the member of a pod."""
    request = ParkRequest(configuration=json.dumps(config), specification=json.dumps(spec), network_status="{}")
    return admit(facts, request, Terms(joined=joined), PLACES)


def test_a_member_is_taken_into_the_pod_that_was_made_for_it() -> None:
    taken = asked(facts_of_recorded(), recorded("config"), recorded("spec"), HERE)
    config, spec = json.loads(taken.configuration), json.loads(taken.specification)
    assert (config["pod"], config["netNsCtr"], config["ipcNsCtr"]) == (HERE.pod, HERE.infra, HERE.infra)
    lent = f"{STORAGE}/overlay-containers/{HERE.infra}/userdata/shm"
    assert (config["ShmDir"], mount_source(spec, "/dev/shm")) == (lent, lent)
    assert spec["linux"]["cgroupsPath"] == f"/libpod_parent/{HERE.pod}/libpod-{config['id']}"
    assert not any(item.get("path") for item in spec["linux"]["namespaces"])
    pod_there = facts_of_recorded().pod
    assert pod_there is not None
    for text in (taken.configuration, taken.specification):
        assert pod_there.id not in text
        assert pod_there.infra not in text


@pytest.mark.parametrize("key", ["pod", "netNsCtr", "ipcNsCtr", "utsNsCtr"])
def test_a_member_joins_nothing_else(key: str) -> None:
    config = {**recorded("config"), key: "9" * 64}
    with pytest.raises(PrerequisiteError, match=key):
        asked(facts_of_recorded(), config, recorded("spec"), HERE)
    with pytest.raises(PrerequisiteError, match=key):
        asked(facts_of_recorded(), recorded("config"), recorded("spec"), None)


def test_a_member_mounts_no_other_files_of_its_pod() -> None:
    spec = recorded("spec")
    source = mount_source(spec, "/etc/hosts").replace("userdata/hosts", "userdata/config.json")
    spec["mounts"].append({"destination": "/x", "type": "bind", "source": source, "options": ["bind"]})
    with pytest.raises(PrerequisiteError, match="mount of"):
        asked(facts_of_recorded(), recorded("config"), spec, HERE)


def test_a_container_without_a_pod_names_no_namespace_of_a_process() -> None:
    facts = facts_of_recorded().model_copy(update={"pod": None})
    with pytest.raises(PrerequisiteError, match="network namespace '/proc/285/ns/net'"):
        asked(facts, recorded("config"), recorded("spec"), None)


def proposal(migration: str, company: tuple[str, ...], together: PodFacts | None) -> Proposal:
    """Return a proposal of a member."""
    return Proposal(
        migration=migration,
        source="alpha",
        container=container(migration, id=f"{migration:0<64}", pod=together),
        method=Method.LAZY,
        copy_image=False,
        epoch=1,
        company=company,
    )


def test_a_proposal_names_those_it_is_decided_with() -> None:
    assert proposal("m1", ("m1", "m2"), pod()).together == ("m1", "m2")
    assert proposal("m1", (), None).together == ("m1",)
    for company, together in ((("m2",), pod()), ((), pod()), (("m1",), None)):
        with pytest.raises(ValidationError, match="among"):
            proposal("m1", company, together)


def test_journals_of_before_tell_of_no_pod() -> None:
    old = json.loads(container().model_dump_json())
    assert ContainerFacts.model_validate({**old, "pod": ""}).pod is None


def test_a_pod_hears_nothing_over_loopback_behind_its_gate() -> None:
    assert 'iif "lo" accept' in shut_rules()
    assert 'iif "lo" accept' not in shut_rules(loopback=False)
    assert 'oif "lo" accept' in shut_rules(loopback=False)  # or a sender would be told


def test_the_infra_container_has_a_ban_of_its_own(tmp_path: Path) -> None:
    tombstone.ban_infra(tmp_path, "f" * 64)
    assert (tmp_path / tombstone.BANS / ("f" * 64)).exists()
    tombstone.lift_infra(tmp_path, "f" * 64)
    tombstone.lift_infra(tmp_path, "f" * 64)
    assert not list((tmp_path / tombstone.BANS).iterdir())


@pytest.mark.parametrize(
    ("path", "cgroup"),
    [
        ("/libpod_parent/abc/libpod-1", "/libpod_parent/abc/libpod-1"),
        (
            "machine-libpod_pod_abc.slice:libpod:1",
            "/machine.slice/machine-libpod_pod_abc.slice/libpod-1.scope",
        ),
        ("", ""),
    ],
)
def test_the_cgroup_that_runc_makes(path: str, cgroup: str) -> None:
    assert cgroup_of({"linux": {"cgroupsPath": path}}) == cgroup


def test_a_member_gets_the_memory_of_its_pod(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"mounts": [{"destination": "/dev/shm", "source": "/own"}, {"destination": "/x"}]}))
    share_memory(file, "/lent")
    assert mount_source(json.loads(file.read_text()), "/dev/shm") == "/lent"
    assert mount_source(json.loads(file.read_text()), "/y") == ""


def test_a_pod_counts_as_one_of_those_that_come_at_once(tmp_path: Path) -> None:
    hall = hall_in(tmp_path, MigratorSettings(incoming_at_once=1))
    desk = Desk(hall, lambda: "", lambda: 0)
    desk.take_up(Reception(hall, proposal("m1", ("m1", "m2"), pod())))
    for migration, company, code in (
        ("m3", ("m3", "m4"), "target-busy"),
        ("m2", ("m1", "m2"), "target-lacks-memory"),  # for which only now it was looked
    ):
        with pytest.raises(PrerequisiteError) as refused:
            desk.reserve(proposal(migration, company, pod()))
        assert refused.value.code == code


@pytest.mark.parametrize(("others", "in_use"), [((), False), (("stranger",), True)])
def test_a_fellow_that_came_first_does_not_take_its_volume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: tuple[str, ...], in_use: bool
) -> None:
    mount = VolumeMount(kind="volume", name="both", source="/v/both", destination="/data", writable=True)
    first, second = (member(number, pod=pod()).model_copy(update={"volumes": (mount,)}) for number in (0, 1))
    described = {"Mountpoint": str(tmp_path), "Options": {}}
    listed = [{"Id": identifier, "State": "running"} for identifier in others]
    monkeypatch.setattr("migrator.runtime.podman.image_ids", lambda: ())
    monkeypatch.setattr("migrator.runtime.podman.networks", lambda: ())
    monkeypatch.setattr("migrator.runtime.podman.volume_names", lambda: ("both",))
    monkeypatch.setattr("migrator.runtime.podman.inspect_volume", lambda _: described)
    monkeypatch.setattr("migrator.runtime.podman.listed", lambda *_, **__: listed)
    monkeypatch.setattr("migrator.container.here.taken_addresses", lambda: ())
    hall = hall_in(tmp_path, MigratorSettings())
    coming = proposal("m2", ("m1", "m2"), pod()).model_copy(update={"container": second})
    hall.journal.begin("m2", Side.TARGET, second.name, coming.model_dump_json())
    assert hall.known.volume_users("both") == (second.id, *others)
    assert Look(hall).here(first).volumes["both"].in_use == in_use


def test_nobody_decides_about_migrations_of_others(tmp_path: Path) -> None:
    """A word about one of a company is one about all: so all have to be its own source's."""
    hall = hall_in(tmp_path, MigratorSettings())
    journal = hall.journal
    desk = Desk(hall, lambda: "it is full", lambda: 1 << 40)
    foreign = proposal("m2", ("m2",), pod()).model_copy(update={"source": "gamma"})
    journal.begin("m2", Side.TARGET, "db", foreign.model_dump_json())
    with pytest.raises(PrerequisiteError, match="m2 is no migration of alpha") as refused:
        desk.reserve(proposal("m1", ("m1", "m2"), pod()))
    assert refused.value.code == "not-yours"
    with pytest.raises(PrerequisiteError, match="it is full"):
        desk.reserve(proposal("m1", ("m1", "m3"), pod()))
    assert journal.decision("m2") is None
