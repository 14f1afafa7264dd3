"""Why a host is not chosen, and which of those that could be is."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from migrator.choice.filters import reject
from migrator.choice.labels import LABELS, wishes
from migrator.choice.need import Need, Room
from migrator.choice.score import Link, fixed_score, room_score
from migrator.health import Verdict
from migrator.host.hardware import AT_MINSIGSTKSZ, auxiliary_value, ports_of
from migrator.model import Method, NetworkFacts, Pager, Treatment, VolumeMount
from migrator.runtime.census import census_of
from tests.pure.values import GIB, container, host


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"host": "a"}, "same-host"),
        ({"verdict": Verdict.SUSPECT}, "target-unhealthy"),
        ({"cordoned": True}, "target-cordoned"),
        ({"evacuating": True}, "target-evacuating"),
        ({"architecture": "aarch64"}, "target-architecture"),
        ({"cpu_flags": ("sse",)}, "target-lacks-cpu-flags"),
        ({"signal_frame_bytes": 3632}, "target-xsave-differs"),
        ({"kernel": "5.15"}, "target-kernel-older"),
        ({"kernel": "6.18", "criu": "4.1.2"}, "target-criu-too-old"),
        ({"criu": "4.1.1"}, "target-criu-differs"),
        ({"criu": ""}, "target-lacks-criu"),
        ({"runc": ""}, "target-lacks-runc"),
        ({"podman": ""}, "target-lacks-podman"),
        ({"networks": ()}, "target-lacks-network"),
        ({"networks": (NetworkFacts(name="lan", driver="bridge"),)}, "target-network-differs"),
        ({"container_names": ("web",)}, "target-name-taken"),
        ({"memory_available_bytes": GIB}, "target-lacks-memory"),
        ({"reserved_bytes": 7 * GIB}, "target-lacks-memory"),
        ({"held": {"other": 7 * GIB}}, "target-lacks-memory"),
        ({"disk_available_bytes": 1}, "target-lacks-disk"),
        ({"ports": (8080,)}, "target-port-taken"),
        ({"devices": ()}, "target-lacks-device"),
        ({"shared_paths": ("/srv/other",)}, "target-lacks-mount"),
        ({"labels": {"rack": "r1"}}, "target-lacks-label"),
    ],
)
def test_a_target_is_rejected_with_its_reason(changes: dict[str, object], code: str) -> None:
    bind = VolumeMount(
        kind="bind", name="", source="/srv/www", destination="/www", writable=True, treatment=Treatment.LEAVE
    )
    demanding = container(
        published_ports=(8080,), devices=("/dev/kvm",), volumes=(bind,), labels={"lifeboat.require": "rack=r2"}
    )
    fine = {
        "devices": ("/dev/kvm",),
        "shared_paths": ("/srv",),
        "labels": {"rack": "r2"},
        "signal_frame_bytes": 2048,
    }
    source = host(
        "a",
        shared_paths=("/srv/www/",),
        signal_frame_bytes=2048,
        criu="4.1.1" if "6.18" in changes.values() else "4.2.1",
    )
    able = host("b", **{**fine, "criu": source.criu})
    assert reject(demanding, source, able, Method.LAZY) == ()
    able = host(str(changes.get("host", "b")), **{**fine, **{k: v for k, v in changes.items() if k != "host"}})
    codes = [item.code for item in reject(demanding, source, able, Method.LAZY)]
    assert codes == [code]
    assert all(item.reason for item in reject(demanding, source, able, Method.LAZY))


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        ({"lifeboat.pin": "c, d"}, "pinned-elsewhere"),
        ({"lifeboat.pin": "b"}, ""),
        ({"lifeboat.forbid": "x,b"}, "forbidden"),
        ({"lifeboat.require": "rack=r1"}, "target-lacks-label"),
    ],
)
def test_an_admin_s_labels_are_kept(labels: dict[str, str], code: str) -> None:
    found = reject(container(labels=labels), host("a"), host("b"), Method.LAZY)
    assert [item.code for item in found] == ([code] if code else [])


def test_what_is_held_for_the_source_itself_is_free_for_it() -> None:
    target = host("b", held={"a": 7 * GIB})
    assert reject(container(), host("a"), target, Method.LAZY) == ()
    assert [item.code for item in reject(container(), host("c"), target, Method.LAZY)] == ["target-lacks-memory"]


def test_an_older_criu_may_not_read_what_a_newer_one_wrote_and_crius_own_pager_wants_the_same() -> None:
    newer, older = host("b", criu="4.3"), host("b", criu="4.1.1")
    by_criu = host("a", pager=Pager.CRIU)
    assert [item.code for item in reject(container(), by_criu, newer, Method.LAZY)] == ["target-criu-differs"]
    assert reject(container(), by_criu, newer, Method.FULL) == ()
    assert reject(container(), host("a"), newer, Method.LAZY) == ()
    for method in Method:
        assert [item.code for item in reject(container(), host("a"), older, method)] == ["target-criu-differs"]


def test_labels_that_are_not_understood_are_told() -> None:
    odd = {
        "lifeboat.priority": "high",
        "lifeboat.evacuate": "maybe",
        "lifeboat.method": "fast",
        "lifeboat.fallback": "none",
        "lifeboat.pni": "b",
    }
    found = wishes({**odd, "lifeboat.require": "rack", "other": "x"})
    assert (found.priority, found.stays, found.method) == (0, False, None)
    assert len(found.problems) == 6
    assert wishes({"lifeboat.fallback": "checkpoint", "lifeboat.bind-mounts": "sync"}).problems == ()
    assert any("no such label: lifeboat.pni" in problem for problem in found.problems)
    assert all(name.startswith("lifeboat.") for name in LABELS)


@pytest.mark.parametrize(
    "worse",
    [
        {"load": 1.0},
        {"nearness": 0.9},
        {"image_ids": ()},
        {"labels": {"rack": "r1"}},
        {"labels": {"psu": "a"}},
        {"kernel": "6.1"},
    ],
)
def test_what_makes_a_host_worse(worse: dict[str, object]) -> None:
    source = host("a", labels={"rack": "r1", "psu": "a"})
    need = Need.of([container()], [Method.LAZY])
    good: dict[str, object] = {"image_ids": ("1",), "labels": {"rack": "r2", "psu": "b"}}
    scores = [
        fixed_score(need, source, host("b", **{**good, **changes}), Link(), ("rack", "psu"))
        for changes in ({}, worse)
    ]
    assert scores[0] > scores[1]


def test_a_fast_near_and_empty_host_is_better() -> None:
    need = Need.of([container()], [Method.LAZY])
    near, far = Link(500e6, 0.2), Link(50e6, 8.0)
    assert fixed_score(need, host("a"), host("b"), near, ()) > fixed_score(need, host("a"), host("b"), far, ())
    full, empty = host("b", memory_available_bytes=GIB), host("b")
    assert room_score(Room.of(empty, "a", 10)) > room_score(Room.of(full, "a", 10))


def test_podman_s_list_of_containers() -> None:
    listed: list[dict[str, Any]] = [
        {
            "Names": ["web"],
            "State": "running",
            "Labels": {"lifeboat.apart": "front"},
            "Ports": [{"host_port": 8080, "container_port": 80, "range": 2, "protocol": "tcp"}],
        },
        {"Names": ["old"], "State": "exited", "Labels": None, "Ports": [{"host_port": 9, "range": 1}]},
    ]
    found = census_of(listed)
    assert (found.names, found.ports, found.apart) == (("old", "web"), (8080, 8081), ("front",))


def test_what_the_kernel_tells() -> None:
    vector = struct.pack("QQQQ", 6, 4096, AT_MINSIGSTKSZ, 3632)
    assert auxiliary_value(vector, AT_MINSIGSTKSZ) == 3632
    assert auxiliary_value(vector, 99) == 0
    table = (
        "  sl  local_address rem_address   st\n"
        "   0: 0100007F:1D13 00000000:0000 0A 0 0\n   1: 0100007F:0050 0100007F:9999 01 0 0\n"
    )
    assert ports_of([table]) == {7443}
