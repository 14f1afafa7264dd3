"""What containers are made of and where they fit: decisions, and readers of texts the kernel writes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from migrator.container.fit import HEADROOM_BYTES, Here, PathHere, Remains, UnitHere, VolumeHere, refusals
from migrator.container.mounts import parse, shared_storage, treat
from migrator.container.obstacles import Surroundings, obstacles
from migrator.container.processes import GHOST_LIMIT_BYTES, Held, Neighbour, held_descriptors, neighbours
from migrator.container.rules import StorageRules
from migrator.container.verdicts import Asked, ContainerVerdict, TargetVerdict, judge, notes
from migrator.container.watches import find, kernel_device, watched_paths
from migrator.model import (
    ContainerFacts,
    Method,
    NetworkAttachment,
    NetworkFacts,
    Rejection,
    Treatment,
    UnitFile,
    VolumeMount,
)
from migrator.planning.plan import Assumptions, plan_evacuation
from migrator.runtime.cgroup import container_part
from migrator.runtime.specification import prepare_binds
from migrator.settings import BindMounts, MigratorSettings
from tests.pure.values import container, host
from tests.pure.values import obstacles as obstacles_of
from watchdog.daemon.readiness import change, stuck

ID = "0123456789abcdef" * 4

MOUNTINFO = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
90 22 0:50 / /srv/www rw,relatime shared:9 - nfs4 filer:/export/web rw,vers=4.2,addr=10.0.0.9
91 22 0:51 / /srv/ceph rw,relatime - ceph 10.0.0.1:6789:/vol rw
92 90 254:2 / /srv/www/local rw - xfs /dev/vdb rw
93 22 0:50 /sub /mnt/with\\040space rw - nfs filer:/export/web rw
"""


def mount(**changes: object) -> VolumeMount:
    """Return a bind mount."""
    values = {"kind": "bind", "name": "", "source": "/srv/x", "destination": "/x", "writable": True}
    return VolumeMount.model_validate({**values, **changes})


def test_shared_storage_has_one_name_on_every_host() -> None:
    mounted = parse(MOUNTINFO)
    assert shared_storage("/srv/www/a/b", mounted) == "nfs4 filer:/export/web /a/b"
    assert shared_storage("/mnt/with space/b", mounted) == "nfs4 filer:/export/web /sub/b"
    assert shared_storage("/srv/www", mounted) == "nfs4 filer:/export/web /"
    assert shared_storage("/srv/www/local/x", mounted) == ""  # a local disk over a place of the shared one
    assert shared_storage("/srv/wwwx", mounted) == ""
    assert shared_storage("/etc", mounted) == ""


def named(**changes: object) -> dict[str, object]:
    """Return what makes a mount a named volume."""
    return {"kind": "volume", "name": "v", **changes}


SYNC = StorageRules(bind_mounts=BindMounts.SYNC)


@pytest.mark.parametrize(
    ("changes", "rules", "storage", "kind", "treatment"),
    [
        ({}, StorageRules(), "", "directory", Treatment.REFUSE),
        ({}, SYNC, "", "directory", Treatment.COPY),
        ({}, SYNC, "", "other", Treatment.REFUSE),
        ({}, SYNC, "", "socket", Treatment.REFUSE),
        ({"source": "/run/podman/podman.sock"}, SYNC, "", "absent", Treatment.REFUSE),
        ({}, StorageRules(), "nfs4 filer:/x /", "directory", Treatment.LEAVE),
        ({}, StorageRules(shared_paths=("/srv",)), "", "directory", Treatment.LEAVE),
        ({"writable": False}, StorageRules(), "", "file", Treatment.COMPARE),
        ({}, StorageRules(), "", "file", Treatment.REFUSE),
        ({"kind": "image", "name": "i"}, SYNC, "", "directory", Treatment.REFUSE),
        (named(), StorageRules(), "", "directory", Treatment.COPY),
        (named(driver="rclone"), SYNC, "", "directory", Treatment.REFUSE),
        (named(options={"type": "tmpfs", "device": "tmpfs"}), SYNC, "", "directory", "copy-late"),
        (named(options={"type": "ext4", "device": "/dev/vdb"}), SYNC, "", "x", Treatment.REFUSE),
        (named(options={"type": "nfs", "device": ":/x"}), SYNC, "nfs4 f:/x /", "x", Treatment.LEAVE),
        (named(options={"o": "bind", "device": "/srv/x"}), StorageRules(), "", "directory", "refuse"),
        (named(options={"o": "rw,bind", "device": "/srv/x"}), SYNC, "", "directory", "copy"),
    ],
)  # fmt: skip
def test_what_happens_to_a_mount(
    changes: dict[str, Any], rules: StorageRules, storage: str, kind: str, treatment: Treatment
) -> None:
    treated = treat(mount(**changes), rules, storage, kind)
    assert treated.treatment == treatment
    assert bool(treated.reason) == (treated.treatment is Treatment.REFUSE)


def test_a_label_changes_the_rules_of_one_container() -> None:
    settings = MigratorSettings()
    assert StorageRules.of(settings, {"lifeboat.bind-mounts": "sync"}).bind_mounts is BindMounts.SYNC
    assert StorageRules.of(settings, {"lifeboat.bind-mounts": "typo"}) == StorageRules()


VOLUME = VolumeMount(kind="volume", name="v", source="/v", destination="/v", writable=True)
NFS = "nfs4 filer:/export/web /a"


def there(*, has_files: bool = False, in_use: bool = False) -> dict[str, Any]:
    """Return a host that has the volume."""
    return {"volumes": {"v": VolumeHere({}, has_files=has_files, in_use=in_use)}}


def disk() -> VolumeMount:
    """Return a volume that is a disk of the source, whatever the source says of it."""
    return VOLUME.model_copy(update={"options": {"type": "ext4", "device": "/dev/sda"}})


def lan(subnet: str) -> dict[str, Any]:
    """Return a host whose network `lan` has this subnet."""
    return {"networks": (NetworkFacts(name="lan", driver="macvlan", subnets=(subnet,)),)}


@pytest.mark.parametrize(
    ("changes", "here", "code"),
    [
        ({}, {}, None),
        ({"secrets": ("s",)}, {"secrets": frozenset("t")}, "target-lacks-secret"),
        ({"secrets": ("s",)}, {"secrets": frozenset("s")}, None),
        ({"published_ports": (80,)}, {"ports": frozenset([80])}, "target-port-taken"),
        ({}, {"addresses": frozenset(["10.0.0.5"])}, "target-address-taken"),
        ({}, lan("10.1.0.0/24"), "target-subnet-differs"),
        ({}, lan("10.0.0.0/24"), None),
        ({"volumes": (VOLUME,)}, there(has_files=True), "target-volume-taken"),
        ({"volumes": (VOLUME,)}, there(), None),
        ({"volumes": (VOLUME,)}, there(has_files=True, in_use=True), "target-volume-in-use"),
        (
            {"volumes": (VOLUME,)},
            {**there(has_files=True), "remains": Remains(frozenset("v"))},
            None,
        ),
        (
            {"volumes": (VOLUME,)},
            {"volumes": {"v": VolumeHere({"type": "tmpfs"}, has_files=False, in_use=False)}},
            "target-volume-differs",
        ),
        (
            {"volumes": (mount(source="/srv/www/a", treatment=Treatment.LEAVE, storage=NFS),)},
            {"mounted": parse(MOUNTINFO), "paths": {"/srv/www/a": PathHere(exists=True)}},
            None,
        ),
        (
            {"volumes": (mount(source="/srv/ceph", treatment=Treatment.LEAVE, storage=NFS),)},
            {"mounted": parse(MOUNTINFO), "paths": {"/srv/ceph": PathHere(exists=True)}},
            "target-storage-differs",
        ),
        (
            {"volumes": (mount(treatment=Treatment.LEAVE),)},
            {"paths": {"/srv/x": PathHere(exists=False)}, "shared_paths": ("/srv",)},
            "target-lacks-path",
        ),
        ({"volumes": (mount(treatment=Treatment.LEAVE),)}, {}, "target-lacks-mount"),
        ({"volumes": (mount(),)}, {"paths": {"/srv/x": PathHere(exists=False)}}, "target-refuses-bind"),
        ({"volumes": (disk(),)}, {}, "target-refuses-volume"),
        (
            {"volumes": (mount(treatment=Treatment.COMPARE, digest="a"),)},
            {"paths": {"/srv/x": PathHere(exists=True, digest="b")}},
            "target-file-differs",
        ),
        (
            {"volumes": (mount(treatment=Treatment.COMPARE, digest="a"),)},
            {"paths": {"/srv/x": PathHere(exists=True, digest="a")}},
            None,
        ),
        (
            {"volumes": (mount(),)},
            {"paths": {"/srv/x": PathHere(exists=True, has_files=True)}, "sync": True},
            "target-path-taken",
        ),
        (
            {"volumes": (mount(),)},
            {
                "paths": {"/srv/x": PathHere(exists=True, has_files=True)},
                "remains": Remains(paths=frozenset(["/srv/x"])),
                "sync": True,
            },
            None,
        ),
        ({"disk_bytes": 2}, {"storage_free_bytes": HEADROOM_BYTES + 1}, "target-lacks-disk"),
        ({"image_bytes": 2}, {"storage_free_bytes": HEADROOM_BYTES + 3, "has_image": False}, "target-lacks-disk"),
        ({"image_bytes": 2}, {"storage_free_bytes": HEADROOM_BYTES + 3}, None),
    ],
)  # fmt: skip
def test_where_a_container_fits(changes: dict[str, Any], here: dict[str, Any], code: str | None) -> None:
    found = refusals(container(**changes), Here(host="beta", **here))
    assert [item.code for item in found] == ([code] if code else [])
    assert all(item.host == "beta" and item.reason for item in found)


@pytest.mark.parametrize(
    ("host_config", "code"),
    [
        ({}, None),
        ({"NetworkMode": "bridge", "PidMode": "private", "IpcMode": "shareable"}, None),
        ({"NetworkMode": "host"}, "host-network"),
        ({"PidMode": "host"}, "host-pid"),
        ({"IpcMode": "host"}, "host-ipc"),
        ({"IpcMode": "container:abc"}, "joined-namespace"),
        ({"NetworkMode": "ns:/run/netns/x"}, "joined-namespace"),
    ],
)
def test_namespaces_of_others(host_config: dict[str, str], code: str | None) -> None:
    found = obstacles(container(), {"HostConfig": host_config}, Surroundings(cgroup="/sys/fs/cgroup/web"))
    assert [item.code for item in found] == ([code] if code else [])


def codes(facts: ContainerFacts, surroundings: Surroundings, inspected: dict[str, Any] | None = None) -> list[str]:
    """Return the codes of all obstacles."""
    return [item.code for item in obstacles(facts, inspected or {}, surroundings)]


def in_unit(**files: str) -> ContainerFacts:
    """Return a container of a unit of Quadlet; files by their names, with an underscore for the dot."""
    named = files or {"web_container": WEB}
    if "web_container" in named:
        named = {"data_volume": "[Volume]\nVolumeName=v\n", **named}
    named = dict(sorted(named.items(), key=lambda item: not item[0].endswith("container")))
    listed = [{"name": name.replace("_", "."), "text": text} for name, text in named.items()]
    unit = {"unit": "web.service", "files": listed}
    return container(
        quadlet=unit, labels={"PODMAN_SYSTEMD_UNIT": "web.service"}, volumes=(VOLUME,), published_ports=(80,)
    )


WEB = """\
[Unit]
Description=a web server; with a semicolon
[Container]
Image=docker.io/library/nginx:1
ContainerName=web
Volume=v:/v
Volume=data.volume:/data:ro
Network=lan:ip=10.0.0.5
PublishPort=80:8080
AddCapability=NET_ADMIN
# a comment
Exec=sh -c \\
  "sleep 1"
[Service]
Restart=always
[Install]
WantedBy=multi-user.target
"""


@pytest.mark.parametrize(
    "line",
    [
        "PodmanArgs=--privileged",
        "Volume=/:/host",
        "Volume=other:/v",
        "Network=host",
        "PublishPort=22:22",
        "PublishPort=8080",
        "AddCapability=SYS_ADMIN",
        "Image=--privileged",
        "Secret=root",
        "EnvironmentFile=/etc/shadow",
        "AddDevice=/dev/sda",
        "Notify=true",
        "ContainerName=other",
        "Exec=true ; /bin/sh -c evil",
        "[Service]\nExecStartPre=/bin/sh -c evil",
        "[Service]\nEnvironment=LD_PRELOAD=/evil",
        "[Unit]\nWants=reboot.target",
        "[Install]\nWantedBy=sysinit.target",
        "[Install]\nAlias=sshd.service",
        "[Kube]\nYaml=/evil",
        "ServiceName=sshd",
        "Volume=other.volume:/data",
        "Volume=/etc.volume:/data",
        "Network=other.network",
        "Annotation=a=b run.oci.keep_original_groups=1",
        "Secret=s other",
    ],
)
def test_a_unit_may_not_do_more_than_its_container(line: str) -> None:
    facts = in_unit(web_container=f"{WEB}[Container]\n{line}\n")
    (refused,) = refusals(facts, Here("beta"))
    assert refused.code == "target-refuses-unit"
    assert line.rpartition("\n")[2] in refused.reason
    assert refusals(facts, Here("beta", privileged=True)) == ()
    known = UnitHere("/etc/containers/systemd/web.container", {"web.container": f"{WEB}[Container]\n{line}\n"})
    assert refusals(facts, Here("beta", unit=known)) == ()


@pytest.mark.parametrize(
    "text",
    [
        "Label=a\\ \nPodmanArgs=--privileged",  # systemd: a space after the backslash ends the line
        "Label=a\\\\\nPodmanArgs=--privileged",  # two backslashes are one, and no more
        "Label=a\\\r\nPodmanArgs=--privileged",
        "Label=a\\\n# x\nPodmanArgs=--privileged",
        "Label=a\\\n\nPodmanArgs=--privileged",
        "\\\n[Service]\nExecStartPre=evil",
        "Label=a\x0bPodmanArgs=--privileged",
        "Label=a\x00",
        "PodmanArgs",
    ],
)
def test_nothing_hides_where_two_read_differently(text: str) -> None:
    facts = in_unit(web_container=f"{WEB}[Container]\n{text}\n")
    for here in (Here("beta"), Here("beta", privileged=True)):
        (refused,) = refusals(facts, here)
        assert "line of a unit file" in refused.reason or "clearly" in refused.reason, refused


def test_a_file_names_only_what_the_container_has() -> None:
    for text, fine in (("VolumeName=v", True), ("VolumeName=other", False), ("Copy=false", False)):
        facts = in_unit(web_container=WEB, data_volume=f"[Volume]\n{text}\n")
        assert [item.code for item in refusals(facts, Here("beta"))] == ([] if fine else ["target-refuses-unit"])
    mine = VOLUME.model_copy(update={"name": "systemd-data"})
    facts = in_unit(web_container=WEB.replace("Volume=v:/v\n", ""), data_volume="[Volume]\n")
    assert refusals(facts.model_copy(update={"volumes": (mine,)}), Here("beta")) == ()


def test_a_unit_comes_along_where_its_name_is_free() -> None:
    assert refusals(in_unit(), Here("beta")) == ()
    with_volume = in_unit(web_container=WEB, data_volume="[Volume]\nVolumeName=v\n")
    assert refusals(with_volume, Here("beta")) == ()
    taken = Here("beta", unit=UnitHere("/usr/lib/systemd/system/web.service"))
    assert [item.code for item in refusals(in_unit(), taken)] == ["target-unit-taken"]
    other = Here("beta", unit=UnitHere("/etc/containers/systemd/web.container", {"web.container": "[Container]\n"}))
    assert [item.code for item in refusals(in_unit(), other)] == ["target-unit-differs"]
    for files in ({"sshd_container": WEB}, {"web_container": WEB, "sshd_container": WEB}):
        assert [item.code for item in refusals(in_unit(**files), Here("beta", privileged=True))] == [
            "target-refuses-unit"
        ]


@pytest.mark.parametrize(
    "name", ["../web.container", "web.service", "web.container.d/../../x.conf", "web@.container"]
)
def test_a_peer_cannot_name_another_file(name: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        UnitFile(name=name, text="")


def test_other_obstacles() -> None:
    own = Surroundings(cgroup="/sys/fs/cgroup/web")
    assert codes(container(), Surroundings(cgroup="/sys/fs/cgroup/user.slice")) == ["no-own-cgroup"]
    assert codes(container(), own, {"Pod": "p"}) == ["in-pod"]  # of which another member moves
    cgroup = "/sys/fs/cgroup/system.slice/web.service/libpod-payload-web"
    (stays,) = obstacles(
        container(), {}, Surroundings(cgroup=cgroup, unit_stays="web.service is not one of Quadlet's")
    )
    assert (stays.code, set(stays.methods)) == ("split-cgroup", set(Method))
    assert stays.reason.endswith("cannot move along: web.service is not one of Quadlet's")
    (moves,) = obstacles(in_unit(), {}, Surroundings(cgroup=cgroup))
    assert moves.methods == (Method.COLD,)
    assert codes(container(devices=("/dev/ttyUSB0",)), own) == ["device"]
    assert codes(container(devices=("/dev/fuse",)), own) == []
    held = Surroundings(cgroup="web", held=(Held(7, "db", "holds an io_uring"),))
    assert obstacles(container(), {}, held)[0].reason == "process 7 (db) holds an io_uring"
    assert codes(container(), Surroundings("web", neighbours=(Neighbour(8, "sleep", "net"),))) == [
        "shared-namespace"
    ]
    shared = Surroundings("web", volume_users={"v": ("web", "other")})
    assert codes(container(volumes=(VOLUME,)), shared) == ["volume-in-use"]
    crun = obstacles(container(runtime="crun"), {}, own)
    assert [item.methods for item in crun] == [(Method.LAZY,)]
    assert container(obstacles=crun).unsupported == {"lazy": crun[0].reason}
    assert codes(container(runtime="kata"), own) == ["runtime"]


def fake_process(
    proc: Path, pid: int, links: dict[str, str], status: str = "TracerPid:\t0\n", maps: str = ""
) -> None:
    """Write what /proc has of a process."""
    directory = proc / str(pid)
    (directory / "fd").mkdir(parents=True)
    (directory / "fdinfo").mkdir()
    for name, target in links.items():
        (directory / "fd" / name).symlink_to(target)
    for name, text in (("maps", maps), ("status", status), ("comm", "program\n")):
        (directory / name).write_text(text)


def test_a_neighbour_is_told_by_its_cgroup_not_by_a_list_that_ages(tmp_path: Path) -> None:
    def process(pid: str, net: str, cgroup: str, program: str = "python3") -> None:
        (tmp_path / pid / "ns").mkdir(parents=True)
        (tmp_path / pid / "ns/net").symlink_to(f"net:[{net}]")
        (tmp_path / pid / "cgroup").write_text(f"0::{cgroup}\n")
        (tmp_path / pid / "comm").write_text(f"{program}\n")

    own = f"/machine.slice/libpod-{'a' * 64}.scope"
    process("1", "1", "/init.scope")
    process("self", "1", "/system.slice/lifeboatd.service")
    process("10", "7", f"{own}/container/init.scope")  # systemd
    process("11", "7", f"{own}/container")  # forked since
    process("12", "7", f"{own}/container/system.slice/db.service")
    process("13", "7", "/system.slice/lifeboatd.service", "nsenter")  # we, having a look
    process("14", "1", f"/machine.slice/libpod-{'b' * 64}.scope/container")
    assert neighbours(10, tmp_path) == ()
    process("15", "7", f"{own}-two", "sleep")
    assert neighbours(10, tmp_path) == (Neighbour(15, "sleep", "net"),)


@pytest.mark.parametrize(
    ("process", "whole"),
    [
        (f"/libpod_parent/libpod-{ID}", f"/libpod_parent/libpod-{ID}"),
        (f"/libpod_parent/{ID}/libpod-{ID}/init", f"/libpod_parent/{ID}/libpod-{ID}"),
        (f"/machine.slice/libpod-{ID}.scope/container/init.scope", f"/machine.slice/libpod-{ID}.scope"),
        (f"/system.slice/web.service/libpod-payload-{ID}/a/b", f"/system.slice/web.service/libpod-payload-{ID}"),
        (
            f"/system.slice/web.service/libpod-payload-{ID}/libpod-{ID}",
            f"/system.slice/web.service/libpod-payload-{ID}",
        ),
        ("/user.slice/own", "/user.slice/own"),
        ("/", "/"),
    ],
)
def test_a_container_is_all_of_its_cgroups(process: str, whole: str) -> None:
    """A container within a container (podman in podman) is a part of the outer one."""
    assert container_part(process) == whole


def test_descriptors_that_criu_refuses(tmp_path: Path) -> None:
    links = {"0": "/dev/null", "1": "pipe:[7]", "2": "/dev/pts/0", "3": "anon_inode:[eventpoll]"}
    fake_process(tmp_path, 5, {**links, "4": "/dev/zero"})
    assert held_descriptors([5], tmp_path) == ()
    fake_process(tmp_path, 6, {"3": "anon_inode:[io_uring]", "4": "anon_inode:[io_uring]"})
    fake_process(
        tmp_path, 7, {}, status="TracerPid:\t9\n", maps="7f00-7f01 rw-s 00000000 00:0e 1 /secretmem (deleted)\n"
    )
    found = held_descriptors([6, 7, 99], tmp_path)
    assert [item.what for item in found] == [
        "holds an io_uring",
        "uses secret memory (memfd_secret)",
        "is traced by process 9",
    ]


def test_a_large_file_without_a_name(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        os.posix_fallocate(file.fileno(), 0, GHOST_LIMIT_BYTES + (1 << 20))
        (tmp_path / "file").unlink()
        assert [item.what.split(" open")[0] for item in held_descriptors([os.getpid()])] == [
            "holds a deleted file of 65 MiB"
        ]


def test_watches_are_found_by_inode(tmp_path: Path) -> None:
    root = tmp_path / "5" / "root"
    (root / "etc/deep").mkdir(parents=True)
    (root / "etc/deep/file").touch()
    device = root.stat().st_dev
    inodes = [(root / path).stat().st_ino for path in ("etc/deep", "etc/deep/file")]
    assert set(find(root, device, set(inodes))) == {"/etc/deep", "/etc/deep/file"}
    assert list(find(root, device, {1})) == []
    lines = [
        f"inotify wd:{n} ino:{inode:x} sdev:{kernel_device(device):x} mask:100\n" for n, inode in enumerate(inodes)
    ]
    fake_process(tmp_path, 5, {"3": "anon_inode:inotify", "4": "/dev/null"})
    (tmp_path / "5/fdinfo/3").write_text("pos:\t0\n" + "".join(lines))
    assert set(watched_paths([5], tmp_path)) == {"/etc/deep", "/etc/deep/file"}


def test_binds_that_criu_can_restore(tmp_path: Path) -> None:
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "outer").mkdir()
    binds = [("/a", "link"), ("/run/secrets/one", "real"), ("/run/secrets", "outer")]
    mounts = [{"destination": to, "type": "bind", "source": f"{tmp_path}/{source}"} for to, source in binds]
    mounts.append({"destination": "/proc", "type": "proc", "source": "proc"})
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"mounts": mounts, "hostname": "kept"}))
    before = file.read_text()
    assert prepare_binds(file) == before
    changed = json.loads(file.read_text())
    assert [item["source"] for item in changed["mounts"]] == [
        *(f"{tmp_path}/{name}" for name in ("real", "real", "outer")),
        "proc",
    ]
    assert changed["hostname"] == "kept"
    assert (tmp_path / "outer/one").is_file()


def verdict(name: str, *codes_found: str, movable: bool = False) -> ContainerVerdict:
    """Return a verdict on a container that could not go to the only other host, for these reasons."""
    rejections = tuple(Rejection(host="beta", code=code, reason=f"{code} 17 MiB") for code in codes_found)
    return ContainerVerdict(
        container=name,
        movable=movable,
        kept=False,
        method=None,
        target=None,
        reason="beta: it cannot",
        obstacles=(),
        targets=(TargetVerdict(host="beta", fits=movable, rejections=rejections),),
        notes=(),
    )


def test_what_would_be_left_behind_is_told_once_and_when_it_changes() -> None:
    first = stuck((verdict("web", "target-lacks-memory"), verdict("db", movable=True)))
    assert list(first) == ["web: target-lacks-memory"]
    assert change((), first) == "an evacuation would leave behind web: beta: it cannot"
    assert change(tuple(first), first) == ""
    second = stuck((verdict("web", "target-lacks-memory"), verdict("db", "target-lacks-disk")))
    assert "db" in change(tuple(first), second)
    assert "web" not in change(tuple(first), second)
    assert change(tuple(second), first) == ""  # better, but not well
    assert change(tuple(first), {}) == "an evacuation would take every container again"
    assert change((), {}) == ""


def test_every_target_has_its_own_verdict() -> None:
    alpha, beta, gamma = host("alpha"), host("beta"), host("gamma", networks=())
    web = container(unfit=(Rejection(host="beta", code="target-lacks-secret", reason="it has no secret"),))
    silent = (Rejection(host="delta", code="peer-unreachable", reason="it is silent"),)
    plan = plan_evacuation(alpha, [web], [beta, gamma], Method.LAZY, Assumptions())
    (judged,) = judge([web], Asked(alpha, [beta, gamma], silent, 10.0), plan)
    assert [(item.host, item.fits, [one.code for one in item.rejections]) for item in judged.targets] == [
        ("beta", False, ["target-lacks-secret"]),
        ("delta", False, ["peer-unreachable"]),
        ("gamma", False, ["target-lacks-network"]),
    ]
    assert not judged.movable
    assert judged.causes == ("peer-unreachable", "target-lacks-network", "target-lacks-secret")
    crun = container(obstacles=obstacles_of("made by crun", "lazy"))
    plan = plan_evacuation(alpha, [crun], [beta], Method.LAZY, Assumptions())
    (judged,) = judge([crun], Asked(alpha, [beta], (), 10.0), plan)
    assert [(item.host, item.fits, item.method) for item in judged.targets] == [("beta", True, Method.FULL)]


def test_what_is_not_as_before_is_said() -> None:
    assert list(notes(container())) == []
    bridge = NetworkAttachment(
        network="podman", driver="bridge", interface="eth0", mac="", addresses=("10.88.0.2/16",)
    )
    said = list(notes(container(networks=(bridge,), published_ports=(8080,), log_driver="journald")))
    assert [line.split(" ")[0] for line in said] == ["connections", "published", "what"]
