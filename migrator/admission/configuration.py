"""`config.dump`: podman's own record of a container (libpod/container_config.go, ContainerConfig).

Keys in `FREE` concern the container alone. `CHECKED` ones have a rule each. `OURS` are paths and commands of the
host, which are written anew with this host's own. Any other key must be empty.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from migrator.admission.rules import Places, Terms, entries, is_empty, is_inside
from migrator.model import ContainerFacts

Rule = Callable[[Any, ContainerFacts, Terms], bool]

FREE = frozenset(
    {
        "lockID", "CreateCommand", "RawImageName", "shmSize", "shmSizeSystemd", "createWorkingDir", "passwd",
        "user", "groups", "createNetNS", "dnsServer", "dnsSearch", "dnsOption", "hostsAdd", "exposedPorts",
        "UseImageResolvConf", "UseImageHosts", "useImageHostname", "userVolumes", "entrypoint", "command", "stdin",
        "labels", "stopSignal", "stopTimeout", "timeout", "createdTime", "cgroupManager", "restart_policy",
        "restart_retries", "healthcheck", "startupHealthCheck", "healthcheck_on_failure_action",
        "healthMaxLogCount", "healthMaxLogSize", "umask", "systemd", "logTag", "logSize", "volatile",
        "readWriteTmpfs", "label_nested", "postConfigureNetNS", "kubeExitCodePropagation", "sdnotifyMode",
        "network_options",
    }
)  # fmt: skip  # a table

OURS = frozenset(
    {"staticDir", "ShmDir", "mounts", "secretsPath", "conmonPidFile", "pid_file", "exitCommand", "spec"}
)

LOG_DRIVERS = ("", "journald", "k8s-file", "json-file", "none")
NETWORK_MODES = ("", "bridge", "none", "private", "default", "slirp4netns", "pasta")
HEALTH_LOGS = ("", "local", "events_logger")
SYSTEMD_SOCKET = "/run/systemd/notify"  # where units tell systemd how they are (sd_notify(3))
CGROUP_MODES = ("", "enabled", "no-conmon", "split")
SELINUX = re.compile(r"[a-z_]+:[a-z_]+:container(_init|_file|_ro_file)?_t:[a-z0-9:,.]+")
CGROUP_PARENT = re.compile(r"/?[a-zA-Z0-9_@:-][a-zA-Z0-9_.@:-]*(/[a-zA-Z0-9_@:-][a-zA-Z0-9_.@:-]*)*")
TIME_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")


def _id_mappings(value: Any, _c: ContainerFacts, _t: Terms) -> bool:
    """A user namespace only takes rights away; but nobody names files of this host to make one."""
    options = value.get("AutoUserNsOpts") if isinstance(value, dict) else None
    named = options if isinstance(options, dict) else {}
    return isinstance(value, dict) and is_empty(named.get("PasswdFile")) and is_empty(named.get("GroupFile"))


def _networks(value: Any, container: ContainerFacts, _t: Terms) -> bool:
    names = {network.network for network in container.networks}
    return is_empty(value) or (isinstance(value, dict) and set(value) <= names)


def _ports(value: Any, container: ContainerFacts, _t: Terms) -> bool:
    """Ports of the host that were proposed, and no others."""
    for mapping in entries(value):
        first, count = mapping.get("host_port"), mapping.get("range", 1)
        if (
            not isinstance(first, int)
            or not isinstance(count, int)
            or not 0 < count <= len(container.published_ports)
        ):
            return False
        if not set(range(first, first + count)) <= set(container.published_ports):
            return False
    return True


def _volumes(value: Any, container: ContainerFacts, _t: Terms) -> bool:
    names = {mount.name for mount in container.volumes if mount.kind == "volume"}
    return all(item.get("volumeName") in names and is_empty(item.get("subPath")) for item in entries(value))


def _secrets(value: Any, container: ContainerFacts, _t: Terms) -> bool:
    """Secrets of this host that were proposed by name, and that its admin has put here."""
    items = list(value.values()) if isinstance(value, dict) else entries(value)
    return all(isinstance(item, dict) and item.get("name") in container.secrets for item in items)


def _infra(value: Any, _c: ContainerFacts, terms: Terms) -> bool:
    """Only the pod that was made here for it lends a container its namespaces."""
    return is_empty(value) or (terms.joined is not None and value == terms.joined.infra)


def _in(*allowed: str) -> Rule:
    return lambda value, _c, _t: isinstance(value, str) and value in allowed


def _like(pattern: re.Pattern[str]) -> Rule:
    return lambda value, _c, _t: value == "" or (isinstance(value, str) and pattern.fullmatch(value) is not None)


CHECKED: Mapping[str, Rule] = {
    "id": lambda value, container, _: value == container.id,
    "name": lambda value, container, _: value == container.name,
    "pod": lambda value, _, terms: is_empty(value) or (terms.joined is not None and value == terms.joined.pod),
    "ipcNsCtr": _infra,
    "netNsCtr": _infra,
    "utsNsCtr": _infra,
    "rootfsImageID": lambda value, container, _: value == container.image_id,
    "rootfsImageName": lambda value, container, _: value == container.image,
    "runtime": _in("runc", "crun"),
    "idMappingsOptions": _id_mappings,
    "namedVolumes": _volumes,
    "newNetworks": _networks,
    "secrets": _secrets,
    "secret_env": _secrets,
    "newPortMappings": _ports,
    "portMappings": _ports,
    "networkMode": _in(*NETWORK_MODES),
    "logDriver": _in(*LOG_DRIVERS),
    "healthLogDestination": _in(*HEALTH_LOGS),
    "cgroupsMode": _in(*CGROUP_MODES),
    "cgroupParent": _like(CGROUP_PARENT),
    "sdnotifySocket": lambda value, container, _: value == SYSTEMD_SOCKET and container.quadlet is not None,
    "timezone": _like(TIME_ZONE),
    "ProcessLabel": _like(SELINUX),
    "MountLabel": _like(SELINUX),
    "labelopts": lambda value, _, terms: (
        terms.privileged
        or is_empty(value)
        or (isinstance(value, list) and all(item == "disable" for item in value))
    ),
    "privileged": lambda value, _, terms: value is False or terms.privileged,
    "mountAllDevices": lambda value, _, terms: value is False or terms.privileged,
    "storageOpts": lambda value, _c, _t: is_empty(value) or (isinstance(value, dict) and set(value) <= {"size"}),
    "baseHostsFile": _in("", "image", "none"),
}


def problems(config: Mapping[str, Any], container: ContainerFacts, places: Places, terms: Terms) -> list[str]:
    """Return every reason why podman must not see this configuration; empty when it may."""
    found = [f"{key}: {_short(config.get(key))}" for key in ("id", "name", "rootfsImageID") if key not in config]
    for key, value in config.items():
        if key in CHECKED:
            if not CHECKED[key](value, container, terms):
                found.append(f"{key}: {_short(value)}")
        elif key == "logPath":
            if value and not any(is_inside(str(value), own) for own in places.user_data(container.id)):
                found.append(f"{key}: {_short(value)}")
        elif key not in FREE and key not in OURS and not is_empty(value):
            found.append(f"{key}: {_short(value)}")
    return found


def network_problems(status: Mapping[str, Any], container: ContainerFacts) -> list[str]:
    """Return why the addresses in `network.status` are not those that were proposed."""
    proposed = {network.network: network for network in container.networks}
    found = []
    for name, entry in status.items():
        network = proposed.get(name)
        if network is None:
            found.append(f"network {_short(name)} was not proposed")
            continue
        interfaces = entry.get("interfaces") if isinstance(entry, dict) and set(entry) == {"interfaces"} else None
        for interface in interfaces.values() if isinstance(interfaces, dict) else [None]:
            subnets = interface.get("subnets") if isinstance(interface, dict) else None
            addresses = [subnet.get("ipnet") for subnet in entries(subnets)]
            if not isinstance(interface, dict) or addresses != list(network.addresses):
                found.append(f"network {name} has other addresses than proposed")
    return found


def ours(
    config: Mapping[str, Any], spec: Mapping[str, Any], container: ContainerFacts, places: Places, terms: Terms
) -> dict[str, Any]:
    """Return the configuration with this host's own paths and commands in it."""
    static, run = (str(path) for path in places.user_data(container.id))
    lent = config.get("ipcNsCtr") and terms.joined is not None
    shared_memory = places.user_data(terms.joined.infra)[0] if lent and terms.joined else static
    own: dict[str, Any] = {
        "staticDir": static,
        "ShmDir": f"{shared_memory}/shm",
        "mounts": [f"{static}/shm"],
        "secretsPath": f"{static}/secrets",
        "conmonPidFile": f"{run}/conmon.pid",
        "pid_file": f"{run}/pidfile",
        "exitCommand": [shutil.which("podman") or "podman", "container", "cleanup", container.id],
        "spec": spec,
    }
    if config.get("cgroupsMode") == "split" and config.get("cgroupParent"):
        own["cgroupParent"] = ""  # podman with cgroupfs writes one, and takes none back (libpod, validate)
    # What podman did not write is not added: since 5.0 it makes the exit command anew at every start.
    return {**config, **{key: value for key, value in own.items() if not is_empty(config.get(key))}}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
