"""Files of Quadlet that a peer sends: what they may say (podman-systemd.unit(5)).

They become a command that root runs here whenever the unit starts, so a key that is not known to be harmless is
refused, like a value that reaches beyond the container that was proposed. A file that is here already, word for
word, is this host's own and is not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from migrator.admission.configuration import LOG_DRIVERS, TIME_ZONE
from migrator.admission.rules import Terms, is_inside
from migrator.admission.specification import CAPABILITIES, SYSCTL
from migrator.model import ContainerFacts, QuadletUnit, Treatment, UnitFile
from migrator.names import IMAGE_NAME
from migrator.words import UNIT_LABEL

Line = tuple[str, str, str]  # section, key, value
Rule = Callable[[str, ContainerFacts, Terms], bool]

FREE = {
    "Container": frozenset(
        {
            "Exec", "Entrypoint", "Environment", "Label", "HostName", "User", "Group", "WorkingDir", "StopSignal",
            "StopTimeout", "Tmpfs", "ReadOnly", "ReadOnlyTmpfs", "RunInit", "ShmSize", "Ulimit", "PidsLimit",
            "NoNewPrivileges", "DropCapability", "HealthCmd", "HealthInterval", "HealthOnFailure",
            "HealthLogDestination", "HealthMaxLogCount", "HealthMaxLogSize", "HealthRetries", "HealthStartPeriod",
            "HealthStartupCmd", "HealthStartupInterval", "HealthStartupRetries", "HealthStartupSuccess",
            "HealthStartupTimeout", "HealthTimeout", "Pull", "AutoUpdate", "DNS", "DNSOption", "DNSSearch",
            "AddHost", "NetworkAlias", "IP", "IP6", "ExposeHostPort",
        }
    ),
    "Volume": frozenset({"VolumeName", "Label", "User", "Group", "Copy"}),
    "Network": frozenset(
        {
            "NetworkName", "Label", "Driver", "Subnet", "Gateway", "IPRange", "IPv6", "Internal", "DNS",
            "DisableDNS", "IPAMDriver",
        }
    ),
    "Unit": frozenset({"Description", "Documentation", "After", "StartLimitIntervalSec", "StartLimitBurst"}),
    "Service": frozenset({"Restart", "RestartSec", "TimeoutStartSec", "TimeoutStopSec", "TimeoutSec"}),
    "Quadlet": frozenset({"DefaultDependencies"}),
}  # fmt: skip  # a table
SECTIONS = {"container": "Container", "volume": "Volume", "network": "Network"}
ORDINARY_TARGETS = frozenset({"multi-user.target", "default.target"})
NETWORK_TARGETS = frozenset({"network.target", "network-online.target"})
RESOURCE_NAMES = (("Volume", "VolumeName"), ("Network", "NetworkName"))
NO = ("false", "no", "off", "0")  # systemd.syntax(7)
NETWORK_OPTIONS = frozenset({"parent", "mode", "mtu", "no_default_route", "isolate", "vlan", "metric"})


def lines(file: UnitFile) -> Iterator[Line]:
    """Read a unit file (systemd.syntax(7)); raises `ValueError` for what is none.

    And for what Quadlet and systemd might read differently, so that nothing hides where only one of them looks.
    """
    section, kept = "", ""
    for text in file.text.split("\n"):
        line = text.strip(" \t")
        if not text.replace("\t", " ").isprintable() or (kept and (not line or line[0] in "#;")):
            raise ValueError(f"{file.name}: {text[:80]!r} is no clear line of a unit file")
        if not line or line[0] in "#;":
            continue
        if line.endswith("\\"):
            if text != text.rstrip() or line.endswith("\\\\") or line == "\\":
                raise ValueError(f"{file.name}: {text[:80]!r} does not clearly go on")
            kept += f"{line[:-1].strip()} "
            continue
        line, kept = kept + line, ""
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
            continue
        key, equals, value = line.partition("=")
        if not equals or not section:
            raise ValueError(f"{file.name}: {line[:80]!r} is no line of a unit file")
        yield section, key.strip(), value.strip()


def service_of(file: UnitFile) -> str:
    """Return the unit that Quadlet makes of a container's file."""
    return f"{file.name.removesuffix('.container')}.service"


def unit_problems(
    unit: QuadletUnit, container: ContainerFacts, terms: Terms, here: Mapping[str, str]
) -> Iterator[str]:
    """Return every reason why this host must not have such a unit; `here` is what it has under these names."""
    main = unit.files[0]
    if container.labels.get(UNIT_LABEL) != unit.unit or service_of(main) != unit.unit:
        yield f"{main.name} does not make the unit {unit.unit} of its container"
    for file in unit.files[1:]:
        if file.kind == "container" and not file.name.startswith(f"{main.name}.d/"):
            yield f"{file.name} is the unit of another container"
    names = {mount.name for mount in container.volumes} | {network.network for network in container.networks}
    for file in unit.files:
        found = problems(file, container, terms) if file.name not in here else []
        if not found and file.kind != "container" and _resource(file) not in names:
            found = [f"{file.name} is of nothing that the container has"]
        yield from found


def problems(file: UnitFile, container: ContainerFacts, terms: Terms) -> list[str]:
    """Return every reason why this host must not have such a file; empty when it may."""
    try:
        found = list(lines(file))
    except ValueError as error:
        return [str(error)]
    if terms.privileged:
        return []
    allowed = {SECTIONS[file.kind], "Unit", "Service", "Install", "Quadlet"}
    return [
        f"{file.name}: {key}={value[:80]}"
        for section, key, value in found
        if section not in allowed or not _harmless(section, key, value, container, terms)
    ]


def _harmless(section: str, key: str, value: str, container: ContainerFacts, terms: Terms) -> bool:
    if value == "":
        return section in FREE or section == "Install"  # takes back what another file said
    if ";" in value.split():
        return False  # another command (systemd.service(5))
    if key in FREE.get(section, ()):
        return True
    rule = CHECKED.get((section, key))
    return rule is not None and rule(value, container, terms)


def _volume(value: str, container: ContainerFacts, terms: Terms) -> bool:
    """A volume that was proposed, by its name or its own file; or a directory to which this host agrees anyway."""
    source = value.partition(":")[0]
    if _came_along(source, container) or any(source == mount.name for mount in container.volumes if mount.name):
        return True
    if not source.startswith("/"):
        return False
    if ":" not in value:
        return True  # anonymous: a path in the container
    read_only = "ro" in value.rpartition(":")[2].split(",")
    for mount in container.volumes:
        if mount.kind == "bind" and mount.source == source:
            shared = any(source == path or is_inside(source, Path(path)) for path in terms.shared_paths)
            compared = mount.treatment is Treatment.COMPARE and read_only
            left = mount.treatment is Treatment.LEAVE and mount.storage != ""
            return shared or compared or left or (mount.treatment is Treatment.COPY and terms.sync)
    return False


def _network(value: str, container: ContainerFacts, _: Terms) -> bool:
    name = value.partition(":")[0]
    proposed = {network.network for network in container.networks}
    return name == "none" or _came_along(name, container) or name in proposed


def _port(value: str, container: ContainerFacts, _: Terms) -> bool:
    parts = value.partition("/")[0].rsplit(":", 2)
    host = parts[-2] if len(parts) > 1 else ""
    return len(parts) > 1 and host.isdigit() and int(host) in container.published_ports


def _words(*allowed: str) -> Rule:
    return lambda value, _c, _t: set(value.split()) <= set(allowed)


CHECKED: Mapping[tuple[str, str], Rule] = {
    ("Container", "ContainerName"): lambda value, container, _: value == container.name,
    ("Container", "Image"): lambda value, _c, _t: IMAGE_NAME.fullmatch(value) is not None,
    ("Container", "Volume"): _volume,
    ("Container", "Network"): _network,
    ("Container", "PublishPort"): _port,
    ("Container", "Secret"): lambda value, container, _: all(
        word.partition(",")[0] in container.secrets for word in value.split()
    ),
    ("Container", "AddCapability"): lambda value, _c, _t: (
        {f"CAP_{word.upper().removeprefix('CAP_')}" for word in value.split()} <= CAPABILITIES
    ),
    ("Container", "Sysctl"): lambda value, _c, _t: all(
        SYSCTL.fullmatch(word.partition("=")[0]) for word in value.split()
    ),
    ("Container", "Annotation"): lambda value, _c, _t: "run.oci." not in value and "org.systemd." not in value,
    ("Container", "LogDriver"): _words(*LOG_DRIVERS),
    ("Container", "Timezone"): lambda value, _c, _t: TIME_ZONE.fullmatch(value) is not None,
    ("Container", "CgroupsMode"): _words("split"),
    ("Container", "Notify"): _words(*NO),
    ("Network", "Options"): lambda value, _c, _t: all(
        word.partition("=")[0] in NETWORK_OPTIONS for item in value.split() for word in item.split(",")
    ),
    ("Unit", "Wants"): _words(*NETWORK_TARGETS),
    ("Unit", "Requires"): _words(*NETWORK_TARGETS),
    ("Service", "Type"): _words("notify"),
    ("Install", "WantedBy"): _words(*ORDINARY_TARGETS),
    ("Install", "RequiredBy"): _words(*ORDINARY_TARGETS),
}


def named_files(file: UnitFile) -> tuple[str, ...]:
    """Return the other files of Quadlet that a container's file names: its volumes and networks."""
    named = [
        value.partition(":")[0]
        for section, key, value in lines(file)
        if section == "Container" and key in ("Volume", "Network")
    ]
    return tuple(dict.fromkeys(name for name in named if _is_file(name)))


def _is_file(name: str) -> bool:
    """Say whether a volume or network is named by its file; what has a slash or begins with a dot is a path."""
    return name.endswith((".volume", ".network")) and "/" not in name and not name.startswith(".")


def _came_along(name: str, container: ContainerFacts) -> bool:
    files = container.quadlet.files if container.quadlet else ()
    return _is_file(name) and any(file.name == name for file in files)


def _resource(file: UnitFile) -> str:
    """Return what a volume's or network's file makes, as podman knows it."""
    stem = file.name.rpartition(".")[0]
    named = [value for section, key, value in lines(file) if (section, key) in RESOURCE_NAMES]
    return named[-1] if named else f"systemd-{stem}"


def said(unit: QuadletUnit, section: str, key: str) -> tuple[str, ...]:
    """Return what all files of a container's unit say under a key, in order."""
    return tuple(
        value
        for file in unit.files
        if file.kind == "container"
        for there, name, value in lines(file)
        if (there, name) == (section, key)
    )
