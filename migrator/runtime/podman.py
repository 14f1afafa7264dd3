"""Podman's words, one function each. Formats are podman 5's `--format json` outputs.

Podman holds a container's lock while it is parked or drained, and any command that looks at this container
waits for it; so every call here has a time-out and names one container.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from migrator.admission.rules import Places
from migrator.command import run
from migrator.errors import CommandError, PrerequisiteError
from migrator.model import ContainerFacts, Method, NetworkAttachment, NetworkFacts, VolumeMount
from migrator.runtime.cgroup import Cgroup

TIMEOUT_S = 15.0
START_LIMIT_S = 60.0
FIXED_ADDRESS_DRIVERS = ("macvlan", "ipvlan", "bridge")
LOOPBACK_DRIVERS = ("host", "none")


def running_containers() -> tuple[ContainerFacts, ...]:
    """Return the running containers of this host."""
    listed = _json(["podman", "ps", "--filter", "status=running", "--format", "json", "--no-trunc"])
    return tuple(container(str(item["Id"])) for item in listed)


def container(name: str) -> ContainerFacts:
    """Return what is known of one container; raises `PrerequisiteError` when there is none of this name."""
    try:
        inspected = _json(["podman", "container", "inspect", name])[0]
    except CommandError as error:
        if "no such container" not in error.message.lower():
            raise
        raise PrerequisiteError(
            f"there is no container {name!r} on this host", code="no-such-container", hint="see: podman ps"
        ) from error
    drivers = network_drivers()
    facts = ContainerFacts(
        id=inspected["Id"],
        name=inspected["Name"],
        image=inspected["ImageName"],
        image_id=inspected["Image"],
        runtime=Path(inspected["OCIRuntime"]).name,
        running=bool(inspected["State"]["Running"]),
        memory_bytes=_memory_in_use(inspected),
        networks=_attachments(inspected, drivers),
        volumes=tuple(_volume(mount) for mount in inspected["Mounts"]),
        labels=inspected["Config"].get("Labels") or {},
        published_ports=_published(inspected),
        devices=tuple(device["PathOnHost"] for device in inspected["HostConfig"].get("Devices") or ()),
    )
    return facts.model_copy(update={"unsupported": unsupported(facts, inspected)})


def unsupported(facts: ContainerFacts, inspected: Mapping[str, Any]) -> dict[str, str]:
    """Say which rungs this container cannot take, and why."""
    reasons: dict[str, str] = {}
    host_config = inspected.get("HostConfig", {})
    if facts.runtime != "runc":
        reasons[Method.LAZY] = f"created with {facts.runtime}; only runc restores with memory on demand"
    blocking = _blocks_checkpoint(facts, host_config)
    if blocking:
        reasons[Method.LAZY] = reasons[Method.FULL] = blocking
    if staying := _blocks_start_elsewhere(facts, host_config):
        reasons[Method.COLD] = staying
    return reasons


def _blocks_start_elsewhere(facts: ContainerFacts, host_config: Mapping[str, Any]) -> str:
    if facts.devices:
        return f"uses the device {facts.devices[0]}, which stays on this host"
    bind = next((mount for mount in facts.volumes if mount.kind == "bind"), None)
    if bind is not None:
        return f"bind mount {bind.source}: what lies there is not known to be on the target"
    if host_config.get("NetworkMode", "").startswith("container:") or host_config.get("Pod"):
        return "belongs to a pod"
    return ""


def _blocks_checkpoint(facts: ContainerFacts, host_config: Mapping[str, Any]) -> str:
    if facts.runtime not in ("runc", "crun"):
        return f"runtime {facts.runtime} cannot be checkpointed"
    if facts.devices:
        return f"uses the device {facts.devices[0]}, which stays on this host"
    for kind in ("NetworkMode", "PidMode", "IpcMode"):
        if host_config.get(kind) == "host":
            return f"shares the host's namespace ({kind} host)"
    bind = next((mount for mount in facts.volumes if mount.kind == "bind"), None)
    if bind is not None:
        return f"bind mount {bind.source}: what lies there is not known to be on the target"
    if host_config.get("NetworkMode", "").startswith("container:") or host_config.get("Pod"):
        return "belongs to a pod"
    return ""


def is_running(name: str) -> bool:
    """Say whether podman takes a container of this name or id for running."""
    argv = ["podman", "container", "inspect", "--format", "{{.State.Running}}", name]
    asked = run(argv, timeout_s=TIMEOUT_S, check=False)
    return asked.status == 0 and asked.output.strip() == "true"


def start(name: str) -> None:
    """Start a stopped container; one that runs is left alone."""
    run(["podman", "start", name], timeout_s=START_LIMIT_S)


def start_by_policy(name: str) -> None:
    """Start a container that its restart policy, or its systemd unit, would have started at boot."""
    inspected = _json(["podman", "container", "inspect", name])[0]
    unit = (inspected["Config"].get("Labels") or {}).get("PODMAN_SYSTEMD_UNIT")
    if inspected["HostConfig"].get("RestartPolicy", {}).get("Name") in ("always", "unless-stopped"):
        start(name)
    elif unit:
        run(["systemctl", "start", unit], timeout_s=START_LIMIT_S)


def stop(name: str, timeout_s: float) -> None:
    """Stop a container as podman does: its stop signal, and the kill when its time is over."""
    run(["podman", "stop", name], timeout_s=timeout_s)


def kill_and_wait(name: str) -> None:
    """Kill a container, frozen or not, and return when podman knows that it has ended; quiet when it does not run.

    A frozen process dies of SIGKILL (cgroup v2), but `podman kill` would wait for a paused one.
    """
    if is_running(name):
        Cgroup.of_process(first_pid(name)).kill()
        run(["podman", "wait", name], timeout_s=START_LIMIT_S, check=False)


def create_argv(name: str, facts: ContainerFacts) -> tuple[str, ...]:
    """Return the command that creates this container anew elsewhere, with the address it has here.

    Made of the words with which it was created here (`CreateCommand`); raises `PrerequisiteError` when podman does
    not know them, as for one made through its API.
    """
    words = list(_json(["podman", "container", "inspect", name])[0]["Config"].get("CreateCommand") or ())
    verb = next((index for index, word in enumerate(words) if word in ("run", "create")), None)
    if verb is None:
        raise PrerequisiteError(
            f"podman does not know how {name} was created", code="no-create-command", hint="make it with podman run"
        )
    head, tail = ["podman", *words[1:verb], "create"], words[verb + 1 :]
    kept = [word for word in tail if word not in ("-d", "--detach", "--replace", "--detach=true", "--replace=true")]
    if not any(word == "--name" or word.startswith("--name=") for word in kept):
        head += ["--name", facts.name]
    fixed = any(word.startswith(("--ip", "--mac-address")) for word in kept)
    if len(facts.networks) == 1 and not fixed and facts.networks[0].driver in FIXED_ADDRESS_DRIVERS:
        head += ["--ip", facts.networks[0].addresses[0].partition("/")[0], "--mac-address", facts.networks[0].mac]
    return (*head, *kept)


def network_drivers() -> dict[str, str]:
    """Return name -> driver of this host's podman networks."""
    return {item["name"]: item["driver"] for item in _json(["podman", "network", "ls", "--format", "json"])}


def upper_directory(name: str) -> Path:
    """Return where the writable layer of a container lies."""
    inspected = _json(["podman", "container", "inspect", name])[0]
    driver = inspected["GraphDriver"]
    if driver["Name"] != "overlay":
        raise PrerequisiteError(
            f"storage driver {driver['Name']} of {name}",
            code="storage-driver",
            hint="only overlay is supported",
        )
    return Path(driver["Data"]["UpperDir"])


def shared_memory_directory(name: str) -> Path:
    """Return the tmpfs that is the container's /dev/shm."""
    inspected = _json(["podman", "container", "inspect", name])[0]
    return Path(inspected["StaticDir"]) / "shm"


def first_pid(name: str) -> int:
    """Return the pid of a container's first process."""
    return int(_json(["podman", "container", "inspect", name])[0]["State"]["Pid"])


def network_status(facts: ContainerFacts) -> dict[str, Any]:
    """Return what podman calls `network.status`: the addresses a restore must use again."""
    return {
        attachment.network: {
            "interfaces": {
                attachment.interface: {
                    "subnets": [{"ipnet": address} for address in attachment.addresses],
                    "mac_address": attachment.mac,
                }
            }
        }
        for attachment in facts.networks
    }


def has_image(image_id: str) -> bool:
    """Say whether an image with this id is here."""
    return run(["podman", "image", "exists", image_id], timeout_s=TIMEOUT_S, check=False).status == 0


def ensure_name(image_id: str, name: str) -> None:
    """Let an image that came by its id be found by the name its container was made from."""
    if name and not has_image(name):
        run(["podman", "tag", image_id, name], timeout_s=TIMEOUT_S)


def has_container(name: str) -> bool:
    """Say whether a container of this name or id is known here, running or not."""
    return run(["podman", "container", "exists", name], timeout_s=TIMEOUT_S, check=False).status == 0


def ensure_volume(name: str) -> Path:
    """Create a named volume when it is absent; return where it is mounted on the host."""
    run(["podman", "volume", "create", "--ignore", name], timeout_s=TIMEOUT_S)
    return volume_path(name)


def has_volume(name: str) -> bool:
    """Say whether a volume of this name is here."""
    return run(["podman", "volume", "exists", name], timeout_s=TIMEOUT_S, check=False).status == 0


def volume_path(name: str) -> Path:
    """Return where a named volume is mounted on the host."""
    return Path(_json(["podman", "volume", "inspect", name])[0]["Mountpoint"])


def remove_volume(name: str) -> None:
    """Remove a named volume; quiet when it is gone."""
    run(["podman", "volume", "rm", name], timeout_s=TIMEOUT_S, check=False)


def remove_container(name: str) -> None:
    """Remove a container whatever its state, at once; quiet when it is gone."""
    run(["podman", "rm", "--force", "--ignore", "--time", "0", name], timeout_s=60, check=False)


def checkpoint_argv(name: str, archive: Path) -> list[str]:
    """Return the command whose runtime call is parked on the source.

    With `--export` podman writes its own description of the container before it calls the runtime.
    """
    argv = ["podman", "container", "checkpoint", "--tcp-established", "--file-locks", "--ignore-rootfs"]
    return [*argv, "--ignore-volumes", "--compress", "none", "--export", str(archive), name]


def write_checkpoint_archive(archive: Path, members: Mapping[str, str]) -> None:
    """Write what `podman container restore --import` needs to see of a checkpoint, given podman's own files."""
    with tarfile.open(archive, "w") as tar:
        for name, text in {**members, "checkpoint/inventory.img": "the images come later\n"}.items():
            data = text.encode()
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o600
            tar.addfile(member, BytesIO(data))


def restore_argv(archive: Path) -> list[str]:
    """Return the command whose runtime call is parked on the target."""
    argv = ["podman", "container", "restore", "--tcp-established", "--file-locks", "--ignore-rootfs"]
    return [*argv, "--ignore-volumes", "--import", str(archive)]


def _attachments(inspected: Mapping[str, Any], drivers: Mapping[str, str]) -> tuple[NetworkAttachment, ...]:
    found = []
    networks = inspected["NetworkSettings"].get("Networks") or {}
    for number, (name, network) in enumerate(networks.items()):
        if name not in drivers:
            continue  # host and none are not networks that could be moved
        pairs = [
            (network.get("IPAddress"), network.get("IPPrefixLen")),
            (network.get("GlobalIPv6Address"), network.get("GlobalIPv6PrefixLen")),
        ]
        found.append(
            NetworkAttachment(
                network=name,
                driver=drivers[name],
                interface=network.get("InterfaceName") or f"eth{number}",
                mac=network["MacAddress"],
                addresses=tuple(f"{address}/{length}" for address, length in pairs if address),
            )
        )
    return tuple(found)


def _volume(mount: Mapping[str, Any]) -> VolumeMount:
    return VolumeMount(
        kind=mount["Type"],
        name=mount.get("Name", ""),
        source=mount["Source"],
        destination=mount["Destination"],
        writable=bool(mount["RW"]),
    )


def _published(inspected: Mapping[str, Any]) -> tuple[int, ...]:
    ports = inspected["HostConfig"].get("PortBindings") or {}
    return tuple(int(binding["HostPort"]) for bindings in ports.values() for binding in bindings or ())


def _memory_in_use(inspected: Mapping[str, Any]) -> int:
    """Return the resident memory of a container's processes in bytes, from /proc: no controller is needed."""
    pid = int(inspected["State"]["Pid"])
    page = os.sysconf("SC_PAGE_SIZE")
    try:
        procs = Path(f"/proc/{pid}/cgroup").read_text()
        path = next(line for line in procs.splitlines() if line.startswith("0::"))[3:]
        members = (Path("/sys/fs/cgroup") / path.lstrip("/") / "cgroup.procs").read_text().split()
        return sum(int(Path(f"/proc/{member}/statm").read_text().split()[1]) * page for member in members)
    except (OSError, StopIteration):
        return 0


def _json(argv: Sequence[str]) -> Any:
    result = run(argv, timeout_s=TIMEOUT_S)
    return json.loads(result.output or "null")


@cache
def places() -> Places:
    """Return where this host's podman keeps its things.

    Asked once: podman looks at every container for this answer, so it waits for a parked one.
    """
    store = _json(["podman", "info", "--format", "json"])["store"]
    return Places(Path(store["graphRoot"]), Path(store["runRoot"]), Path(store["volumePath"]))


def networks() -> tuple[NetworkFacts, ...]:
    """Return this host's podman networks."""
    return tuple(
        NetworkFacts(
            name=item["name"],
            driver=item["driver"],
            subnets=tuple(subnet["subnet"] for subnet in item.get("subnets") or ()),
        )
        for item in _json(["podman", "network", "ls", "--format", "json"])
    )


def container_names() -> tuple[str, ...]:
    """Return the names of all containers here, running or not."""
    listed = run(["podman", "ps", "--all", "--format", "{{.Names}}"], timeout_s=TIMEOUT_S)
    return tuple(listed.output.split())


def image_ids() -> tuple[str, ...]:
    """Return the ids of all images here."""
    listed = run(["podman", "image", "ls", "--quiet", "--no-trunc"], timeout_s=TIMEOUT_S)
    return tuple(line.removeprefix("sha256:") for line in listed.output.split())
