"""What a peer may ask this host to run: podman's real descriptions pass, hostile ones do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from migrator.admission import admit
from migrator.admission.rules import Places, Terms
from migrator.errors import PrerequisiteError
from migrator.model import ContainerFacts, NetworkAttachment, VolumeMount
from migrator.protocol.messages import ParkRequest

DATA = Path(__file__).parents[1] / "data/podman-5.4.2"
STORAGE = Path("/var/lib/containers/storage")
PLACES = Places(STORAGE, Path("/run/containers/storage"), STORAGE / "volumes")
ADDRESS = "10.77.0.140/24"

Document = dict[str, Any]


def recorded(kind: str) -> tuple[Document, Document]:
    """Return podman's own configuration and specification of a container."""
    config, spec = (json.loads((DATA / f"{kind}.{name}.json").read_text()) for name in ("config", "spec"))
    return config, spec


def proposed(config: Document, *volumes: VolumeMount, ports: tuple[int, ...] = ()) -> ContainerFacts:
    """Return what the source has proposed for this configuration."""
    networks = tuple(
        NetworkAttachment(
            network=name, driver="macvlan", interface="eth0", mac="02:00:00:00:00:01", addresses=(ADDRESS,)
        )
        for name in config["newNetworks"]
    )
    return ContainerFacts(
        id=config["id"],
        name=config["name"],
        image=config["rootfsImageName"],
        image_id=config["rootfsImageID"],
        runtime="runc",
        running=True,
        networks=networks,
        volumes=volumes,
        published_ports=ports,
    )


def status(container: ContainerFacts, address: str = ADDRESS) -> str:
    """Return `network.status` as the source makes it."""
    interface = {"subnets": [{"ipnet": address}], "mac_address": "02:00:00:00:00:01"}
    return json.dumps({network.network: {"interfaces": {"eth0": interface}} for network in container.networks})


def ask(container: ContainerFacts, config: Document, spec: Document, terms: Terms | None = None) -> ParkRequest:
    """Ask for a container to be run."""
    request = ParkRequest(
        configuration=json.dumps(config), specification=json.dumps(spec), network_status=status(container)
    )
    return admit(container, request, terms or Terms(), PLACES)


VOLUME = VolumeMount(kind="volume", name="vol", source="/elsewhere", destination="/data", writable=True)
BIND = VolumeMount(kind="bind", name="", source="/root", destination="/r", writable=False)


@pytest.mark.parametrize(
    ("kind", "volumes", "ports"),
    [("plain", (), ()), ("rich", (VOLUME,), ()), ("ports", (), (8080,)), ("ro", (), ())],
)
def test_what_podman_writes_is_taken(kind: str, volumes: tuple[VolumeMount, ...], ports: tuple[int, ...]) -> None:
    config, spec = recorded(kind)
    given = ask(proposed(config, *volumes, ports=ports), config, spec)
    assert json.loads(given.specification) == spec
    ours = json.loads(given.configuration)
    assert ours["spec"] == spec
    assert {key: ours[key] for key in config if key != "spec"} == {
        key: config[key] for key in config if key != "spec"
    }


def test_privileges_are_for_the_admin_to_allow() -> None:
    config, spec = recorded("privileged")
    with pytest.raises(PrerequisiteError, match=r"CAP_SYS_ADMIN.*access to devices") as refused:
        ask(proposed(config), config, spec)
    assert refused.value.code == "not-admitted"
    with pytest.raises(PrerequisiteError, match="the host's pid namespace") as refused:
        ask(proposed(config), config, spec, Terms(privileged=True))
    assert "CAP_SYS_ADMIN" not in refused.value.message


def test_a_bind_mount_is_taken_where_it_was_proposed_and_is_shared() -> None:
    config, spec = recorded("bind")
    with pytest.raises(PrerequisiteError, match="mount of /root"):
        ask(proposed(config), config, spec, Terms(shared_paths=("/root",)))
    with pytest.raises(PrerequisiteError, match="mount of /root"):
        ask(proposed(config, BIND), config, spec, Terms(shared_paths=("/srv",)))
    ask(proposed(config, BIND), config, spec, Terms(shared_paths=("/root",)))


def test_paths_and_commands_of_the_host_become_our_own() -> None:
    config, spec = recorded("plain")
    hostile = {
        "conmonPidFile": "/etc/cron.d/x",
        "pid_file": "/etc/passwd",
        "exitCommand": ["/bin/sh", "-c", "touch /owned"],
        "staticDir": "/etc",
        "ShmDir": "/etc",
        "mounts": ["/etc"],
        "secretsPath": "/root/.ssh",
        "spec": {"root": {"path": "/"}},
    }
    given = json.loads(ask(proposed(config), {**config, **hostile}, spec).configuration)
    own = str(STORAGE / "overlay-containers" / config["id"] / "userdata")
    assert given["conmonPidFile"].startswith("/run/containers/storage/overlay-containers/")
    assert given["pid_file"].startswith("/run/containers/storage/overlay-containers/")
    assert given["exitCommand"][1:] == ["container", "cleanup", config["id"]]
    assert (given["staticDir"], given["mounts"], given["secretsPath"]) == (own, [f"{own}/shm"], f"{own}/secrets")
    assert given["spec"] == spec


CONFIGURATIONS: list[tuple[str, Any]] = [
    ("id", "0" * 64),
    ("name", "../../etc"),
    ("rootfsImageID", "f" * 64),
    ("rootfsImageName", "docker.io/library/other"),
    ("rootfs", "/"),
    ("rootfs_overlay", True),
    ("runtime", "/tmp/evil"),
    ("pod", "f" * 64),
    ("Dependencies", ["f" * 64]),
    ("netNsCtr", "f" * 64),
    ("overlayVolumes", [{"dest": "/x", "source": "/etc"}]),
    ("ctrImageVolumes", [{"source": "x", "dest": "/x"}]),
    ("namedVolumes", [{"volumeName": "somebody-elses", "dest": "/x"}]),
    ("secrets", [{"name": "database-password"}]),
    ("secret_env", {"PASSWORD": {"name": "database-password"}}),
    ("networkMode", "host"),
    ("networkMode", "ns:/proc/1/ns/net"),
    ("newNetworks", {"management": {}}),
    ("newPortMappings", [{"host_port": 22, "range": 1}]),
    ("newPortMappings", [{"host_port": 1, "range": 1 << 60}]),
    ("logDriver", "passthrough"),
    ("logPath", "/etc/cron.d/x"),
    ("logPath", f"{STORAGE}/overlay-containers/../../../../../etc/cron.d/x"),
    ("healthLogDestination", "/etc/cron.d"),
    ("baseHostsFile", "/etc/shadow"),
    ("timezone", "../../../etc/shadow"),
    ("cgroupParent", "/../.."),
    ("cgroupsMode", "disabled"),
    ("privileged", True),
    ("labelopts", ["type:spc_t"]),
    ("ProcessLabel", "system_u:system_r:spc_t:s0"),
    ("sdnotifySocket", "/run/systemd/notify"),
    ("device_host_src", [{"path": "/dev/sda"}]),
    ("cdiDevices", ["nvidia.com/gpu=all"]),
    ("idMappingsOptions", {"AutoUserNsOpts": {"PasswdFile": "/etc/shadow"}}),
    ("storageOpts", {"mountopt": "exec"}),
    ("chrootDirs", ["/etc"]),
    ("something_new", "/etc"),
]


@pytest.mark.parametrize(("key", "value"), CONFIGURATIONS, ids=lambda item: str(item)[:40])
def test_a_hostile_configuration(key: str, value: Any) -> None:
    config, spec = recorded("plain")
    with pytest.raises(PrerequisiteError, match=key):
        ask(proposed(config), {**config, key: value}, spec)


def mount(source: str, **changes: Any) -> Callable[[Document], None]:
    """Return a change that adds a mount."""
    entry = {"destination": "/x", "type": "bind", "source": source, "options": ["rbind"], **changes}
    return lambda spec: spec["mounts"].append(entry)


def user_data(spec: Document) -> str:
    """Return podman's directory for the container."""
    return next(str(Path(item["source"]).parent) for item in spec["mounts"] if item["destination"] == "/dev/shm")


def put(*path: str, value: Any) -> Callable[[Document], None]:
    """Return a change that sets one key."""

    def change(spec: Document) -> None:
        for part in path[:-1]:
            spec = spec.setdefault(part, {})
        spec[path[-1]] = value

    return change


def share_cgroups(spec: Document) -> None:
    """Give the container the host's cgroups to write to."""
    mount("cgroup", type="cgroup", options=["rw"])(spec)
    spec["linux"]["namespaces"] = [item for item in spec["linux"]["namespaces"] if item["type"] != "cgroup"]


SPECIFICATIONS: dict[str, tuple[Callable[[Document], None], str]] = {
    "root": (mount("/"), "mount of bind /"),
    "etc": (mount("/etc"), "mount of /etc"),
    "dots": (mount(f"{STORAGE}/volumes/vol/_data/../../../.."), "mount of"),
    "inside-a-volume": (mount(f"{STORAGE}/volumes/vol/_data/link-to-etc"), "mount of"),
    "other-volume": (mount(f"{STORAGE}/volumes/other/_data"), "mount of"),
    "inside-shm": (lambda spec: mount(f"{user_data(spec)}/shm/link-to-etc")(spec), "mount of"),
    "other-container": (mount(f"{STORAGE}/overlay-containers/{'f' * 64}/userdata/hosts"), "mount of"),
    "bind-in-disguise": (mount("/etc", type="tmpfs"), "mount of"),
    "file-system": (mount("/dev/sda1", type="ext4", options=[]), "mount of ext4"),
    "init": (mount("/tmp/evil/catatonit", destination="/run/podman-init", options=["ro"]), "mount of"),
    "sysfs": (mount("sysfs", type="sysfs", options=["rw"]), "sysfs for writing"),
    "destination": (mount("tmpfs", type="tmpfs", options=[], destination="/../x"), "mount at"),
    "hooks": (put("hooks", value={"prestart": [{"path": "/bin/sh"}]}), "hooks"),
    "host-pid": (lambda spec: spec["linux"]["namespaces"].pop(0), "the host's pid namespace"),
    "pid-of-init": (
        lambda spec: spec["linux"]["namespaces"].append({"type": "mount", "path": "/proc/1/ns/mnt"}),
        "mount namespace",
    ),
    "network-of-init": (
        lambda spec: spec["linux"]["namespaces"].append({"type": "network", "path": "/proc/1/ns/net"}),
        "network namespace",
    ),
    "sys-admin": (
        lambda spec: spec["process"]["capabilities"]["bounding"].append("CAP_SYS_ADMIN"),
        "CAP_SYS_ADMIN",
    ),
    "sys-module": (put("process", "capabilities", "ambient", value=["CAP_SYS_MODULE"]), "CAP_SYS_MODULE"),
    "odd-capabilities": (put("process", "capabilities", "ambient", value={"CAP_SYS_ADMIN": 1}), "CAP_SYS_ADMIN"),
    "no-seccomp": (lambda spec: spec["linux"].pop("seccomp"), "no seccomp filter"),
    "open-seccomp": (put("linux", "seccomp", "defaultAction", value="SCMP_ACT_ALLOW"), "no seccomp filter"),
    "unmasked": (put("linux", "maskedPaths", value=[]), "is not masked"),
    "sysrq": (put("linux", "readonlyPaths", value=[]), "sysrq-trigger is writable"),
    "device": (put("linux", "devices", value=[{"path": "/dev/sda", "type": "b"}]), "device /dev/sda"),
    "device-rule": (put("linux", "resources", "devices", value=[{"allow": True, "access": "rwm"}]), "to devices"),
    "sysctl": (put("linux", "sysctl", value={"kernel.core_pattern": "|/tmp/x"}), "sysctl kernel.core_pattern"),
    "cgroup": (put("linux", "cgroupsPath", value="/system.slice"), "cgroup '/system.slice'"),
    "host-cgroups": (share_cgroups, "host's cgroups"),
    "crun": (put("annotations", "run.oci.handler", value="krun"), "annotation run.oci.handler"),
    "systemd": (put("annotations", "org.systemd.property.DeviceAllow", value="x"), "annotation org.systemd"),
    "propagation": (put("linux", "rootfsPropagation", value="shared"), "propagation"),
    "vm": (put("vm", value={"kernel": {"path": "/x"}}), "vm"),
}


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_a_hostile_specification(name: str) -> None:
    config, spec = recorded("rich")
    change, why = SPECIFICATIONS[name]
    change(spec)
    with pytest.raises(PrerequisiteError, match=why):
        ask(proposed(config, VOLUME), config, spec)


def test_addresses_are_those_that_were_proposed() -> None:
    config, spec = recorded("plain")
    container = proposed(config)
    for hostile in (
        status(container, "10.77.0.1/24"),
        '{"management": {}}',
        '{"lan": {"interfaces": {"eth0": 3}}}',
    ):
        request = ParkRequest(
            configuration=json.dumps(config), specification=json.dumps(spec), network_status=hostile
        )
        with pytest.raises(PrerequisiteError, match="proposed"):
            admit(container, request, Terms(), PLACES)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 100_000])
def test_what_is_no_description(text: str) -> None:
    config, spec = recorded("plain")
    request = ParkRequest(configuration=text, specification=json.dumps(spec), network_status="{}")
    with pytest.raises(PrerequisiteError):
        admit(proposed(config), request, Terms(), PLACES)
