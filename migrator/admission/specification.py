"""`spec.dump`: the OCI runtime specification of the running container (opencontainers/runtime-spec, config.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from migrator.admission.rules import Places, Terms, entries, is_empty, is_inside, is_plain, words
from migrator.model import ContainerFacts, Treatment, VolumeMount

TOP = frozenset({"ociVersion", "process", "root", "hostname", "domainname", "mounts", "annotations", "linux"})
PROCESS = frozenset(
    {
        "user", "args", "env", "cwd", "capabilities", "rlimits", "noNewPrivileges", "terminal", "consoleSize",
        "oomScoreAdj", "apparmorProfile", "selinuxLabel", "ioPriority",
    }
)  # fmt: skip  # a table
LINUX = frozenset(
    {
        "sysctl", "resources", "cgroupsPath", "namespaces", "seccomp", "maskedPaths", "readonlyPaths",
        "rootfsPropagation", "mountLabel", "uidMappings", "gidMappings", "devices",
    }
)  # fmt: skip  # a table

CAPABILITIES = frozenset(
    "CAP_" + name
    for name in (
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW",
        "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT", "NET_ADMIN", "NET_BROADCAST", "IPC_LOCK",
        "IPC_OWNER", "SYS_NICE", "LEASE", "SYS_PTRACE", "SYS_RESOURCE",
    )
)  # fmt: skip  # a table
"""Podman's defaults and docker's, and those that reach no further than the container's namespaces or limits."""

NAMESPACES = frozenset({"pid", "network", "ipc", "uts", "mount"})
NETWORK_NAMESPACE = re.compile(r"/(var/)?run/netns/netns-[0-9a-f-]+")
KERNEL_FILE_SYSTEMS = frozenset({"proc", "sysfs", "tmpfs", "mqueue", "devpts", "cgroup", "cgroup2"})
LENDING_NAMESPACE = re.compile(r"/proc/[0-9]+/ns/(net|ipc|uts)")
LENT = {"/dev/shm": "shm", "/etc/resolv.conf": "resolv.conf", "/etc/hosts": "hosts"}  # noqa: S108  in a container
INIT, INIT_BINARY = "/run/podman-init", "catatonit"
SYSCTL = re.compile(r"(net\.[a-z0-9_./-]+|fs\.mqueue\.[a-z_]+|kernel\.(msg[a-z]+|shm[a-z_]+|sem|domainname))")
MASKED = frozenset({"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"})
READ_ONLY = frozenset({"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"})
SYSTEMD_PROPERTIES = frozenset({"KillSignal", "TimeoutStopUSec", "CollectMode"})
PROPAGATION = ("", "private", "rprivate", "slave", "rslave")


def problems(spec: Mapping[str, Any], container: ContainerFacts, places: Places, terms: Terms) -> list[str]:
    """Return every reason why runc must not see this specification; empty when it may."""
    linux, process = _part(spec, "linux"), _part(spec, "process")
    found = [*_unknown(spec, TOP, ""), *_unknown(process, PROCESS, "process "), *_unknown(linux, LINUX, "linux ")]
    found += [why for mount in entries(spec.get("mounts")) if (why := _mount(mount, container, places, terms))]
    found += [f"annotation {key}" for key in _part(spec, "annotations") if not _annotation(key)]
    found += _namespaces(linux, container)
    found += _cgroup(spec, linux, container)
    wrong = [key for key in _part(linux, "sysctl") if not SYSCTL.fullmatch(key)]
    found += [f"sysctl {key}" for key in wrong]
    if not terms.privileged:
        found += _rights(process, linux)
    return found


def _part(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = value.get(key)
    return part if isinstance(part, dict) else {}


def _unknown(value: Mapping[str, Any], allowed: frozenset[str], where: str) -> list[str]:
    return [f"{where}{key}" for key, item in value.items() if key not in allowed and not is_empty(item)]


def _mount(mount: Mapping[str, Any], container: ContainerFacts, places: Places, terms: Terms) -> str:
    """Say why something must not be mounted, empty when it may."""
    kind, source, destination = (str(mount.get(key, "")) for key in ("type", "source", "destination"))
    options = words(mount.get("options"))
    if not is_plain(destination):
        return f"mount at {destination!r}"
    if kind in KERNEL_FILE_SYSTEMS and "bind" not in options and "rbind" not in options:
        return f"{kind} for writing" if kind == "sysfs" and "ro" not in options and not terms.privileged else ""
    if kind != "bind" or not is_plain(source):
        return f"mount of {kind} {source}"
    known = _podman_file(source, destination, options, container, places)
    known = known or _pod_file(source, destination, places, terms)
    declared = _declared(source, "ro" in options, container, places, terms)
    return "" if known or declared else f"mount of {source}"


def _podman_file(
    source: str, destination: str, options: list[str], container: ContainerFacts, places: Places
) -> bool:
    """Say whether podman makes this mount itself: of its own files only, of none within a tree that was sent."""
    if destination == INIT:
        return Path(source).name == INIT_BINARY and "ro" in options and source.startswith("/usr/")
    own = places.user_data(container.id)
    if any(source == f"{path}/secrets/{name}" for path in own for name in container.secrets):
        return True
    return any(is_inside(source, path) for path in own) and (
        Path(source).parent in own or any(source == f"{path}/run/secrets" for path in own)
    )


def _pod_file(source: str, destination: str, places: Places, terms: Terms) -> bool:
    """Say whether podman makes this mount of what the pod shares, of the pod that was made here."""
    own = places.user_data(terms.joined.infra) if terms.joined is not None else ()
    return any(source == f"{path}/{LENT.get(destination)}" for path in own)


def _declared(source: str, read_only: bool, container: ContainerFacts, places: Places, terms: Terms) -> bool:
    """Say whether a mount was proposed: a whole volume, or a directory that this host agrees to."""
    for mount in container.volumes:
        if mount.kind == "volume" and source == f"{places.volumes / mount.name}/_data":
            return True
        if mount.kind == "bind" and mount.source == source and _agreed(mount, read_only, terms):
            return True
    return False


def _agreed(mount: VolumeMount, read_only: bool, terms: Terms) -> bool:
    """Say whether a bind mount that was proposed may be made; `migrator.container.fit` has looked at what is there.

    It looked that the storage is the same, that the file is, or that nothing of this host is in the directory.
    """
    if any(mount.source == path or is_inside(mount.source, Path(path)) for path in terms.shared_paths):
        return True
    if mount.treatment is Treatment.COMPARE:
        return read_only
    return mount.storage != "" if mount.treatment is Treatment.LEAVE else terms.sync


def _annotation(key: str) -> bool:
    """Annotations are commands to runtimes: crun's `run.oci.*`, runc's properties of the systemd unit."""
    if key.startswith("org.systemd.property."):
        return key.removeprefix("org.systemd.property.") in SYSTEMD_PROPERTIES
    return not key.startswith("run.oci.")


def without_shared_namespaces(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a specification that names no namespace of a pod; podman puts in those of the pod that is here."""
    linux = spec.get("linux")
    for namespace in entries(linux.get("namespaces")) if isinstance(linux, dict) else ():
        if LENDING_NAMESPACE.fullmatch(str(namespace.get("path", ""))):
            del namespace["path"]
    return spec


def _namespaces(linux: Mapping[str, Any], container: ContainerFacts) -> list[str]:
    found, kinds = [], set()
    for namespace in entries(linux.get("namespaces")):
        kind, path = str(namespace.get("type", "")), namespace.get("path", "")
        kinds.add(kind)
        made_anew = kind == "network" and isinstance(path, str) and NETWORK_NAMESPACE.fullmatch(path)
        lent = container.pod is not None and isinstance(path, str) and LENDING_NAMESPACE.fullmatch(path)
        if path and not (made_anew or lent):
            found.append(f"{kind} namespace {path!r}")
    return found + [f"the host's {kind} namespace" for kind in sorted(NAMESPACES - kinds)]


def _cgroup(spec: Mapping[str, Any], linux: Mapping[str, Any], container: ContainerFacts) -> list[str]:
    """Say why the container would sit in, or could write to, cgroups of others."""
    private = any(namespace.get("type") == "cgroup" for namespace in entries(linux.get("namespaces")))
    mounts = [mount for mount in entries(spec.get("mounts")) if str(mount.get("type", "")).startswith("cgroup")]
    if not private and any("ro" not in words(mount.get("options")) for mount in mounts):
        return ["the host's cgroups for writing"]
    path = str(linux.get("cgroupsPath", ""))
    own = path.endswith(
        (
            f"/libpod-{container.id}",
            f"/libpod-payload-{container.id}",
            f":libpod:{container.id}",
            f"/libpod-{container.id}.scope/container",
        )
    )
    return [] if own and ".." not in path.split("/") else [f"cgroup {path!r}"]


def _rights(process: Mapping[str, Any], linux: Mapping[str, Any]) -> list[str]:
    """Return what only a privileged container has."""
    found = []
    wanted = {word for kind in _part(process, "capabilities").values() for word in words(kind)}
    found += sorted(wanted - CAPABILITIES)
    if _part(linux, "seccomp").get("defaultAction") not in (
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
    ):
        found.append("no seccomp filter")
    found += [f"{path} is not masked" for path in sorted(MASKED - set(words(linux.get("maskedPaths"))))]
    found += [f"{path} is writable" for path in sorted(READ_ONLY - set(words(linux.get("readonlyPaths"))))]
    found += [f"device {device.get('path')}" for device in entries(linux.get("devices"))]
    allowed = [rule for rule in entries(_part(linux, "resources").get("devices")) if rule.get("allow") is not False]
    if allowed:
        found.append("access to devices")
    if linux.get("rootfsPropagation", "") not in PROPAGATION:
        found.append(f"propagation {linux.get('rootfsPropagation')!r}")
    if process.get("apparmorProfile") == "unconfined":
        found.append("no AppArmor profile")
    return found
