"""The systemd unit that Quadlet makes of a container's file, and the files of which it is made on a host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from migrator.admission.quadlet import NO, named_files, said, service_of
from migrator.command import run
from migrator.errors import LifeboatError, PrerequisiteError
from migrator.model import QuadletUnit, UnitFile
from migrator.runtime.tombstone import DROP_IN
from migrator.words import is_unit

ADMIN, TEMPORARY = Path("/etc/containers/systemd"), Path("/run/containers/systemd")
DIRECTORIES = (TEMPORARY, ADMIN, Path("/usr/share/containers/systemd"))
"""Where Quadlet looks for root's files, the first one wins (podman-systemd.unit(5))."""

TIMEOUT_S = 15.0
STOP_LIMIT_S = 60.0


def find(name: str) -> Path | None:
    """Return where the file of this name lies on this host; a drop-in's name holds its directory's."""
    for directory in DIRECTORIES:
        if (path := directory / name).is_file():
            return path
        found = sorted(directory.glob(f"**/{name}")) if directory.is_dir() else []
        if found:
            return found[0]
    return None


def source_of(unit: str) -> str:
    """Return of what a unit of this host is made: the file of Quadlet, or its own; empty when there is none."""
    properties = _properties(unit, "SourcePath", "FragmentPath")
    return properties.get("SourcePath", "") or properties.get("FragmentPath", "")


def read(unit: str) -> QuadletUnit:
    """Return the unit in which a container lives; raises `PrerequisiteError` with why it cannot move along."""
    if not is_unit(unit):
        raise _unmovable("it was not started by a unit")
    properties = _properties(unit, "SourcePath", "DropInPaths")
    source = Path(properties.get("SourcePath", ""))
    if source.suffix != ".container":
        raise _unmovable(f"{unit} is not one of Quadlet's, and lifeboat would have to guess how to start it")
    try:
        found = _collect(unit, source)
        if reason := next(_reasons(found), ""):
            raise _unmovable(f"{source.name} {reason}")
    except (OSError, ValueError) as error:  # pydantic's, for a name or a size that nobody may send, are ValueErrors
        raise _unmovable(f"{source.name} cannot be sent: {error}") from error
    own = [path for path in properties.get("DropInPaths", "").split() if not path.endswith(DROP_IN)]
    shared = [path for path in own if not path.startswith(("/usr/lib/", "/lib/"))]
    environment = [value.lstrip("-") for value in said(found, "Container", "EnvironmentFile")]
    return found.model_copy(update={"left_behind": (*environment, *shared)})


def _collect(unit: str, source: Path) -> QuadletUnit:
    main = UnitFile(name=source.name, text=source.read_text())
    files = [main]
    for drop_in in sorted(source.with_name(f"{source.name}.d").glob("*.conf")):
        files.append(UnitFile(name=f"{source.name}.d/{drop_in.name}", text=drop_in.read_text()))
    for name in dict.fromkeys(name for file in files for name in named_files(file)):
        path = find(name)
        if path is None:
            raise ValueError(f"{name}, which it names, is not here")
        files.append(UnitFile(name=name, text=path.read_text()))
    return QuadletUnit(unit=unit, files=tuple(files))


def _reasons(unit: QuadletUnit) -> Iterator[str]:
    """Say what of a unit lifeboat does not know how to move."""
    if unit.unit != service_of(unit.files[0]):
        yield f"calls its unit {unit.unit}"
    if said(unit, "Container", "Pod"):
        yield "belongs to a pod"
    for value in said(unit, "Container", "Notify"):
        if value.lower() not in NO:
            yield f"says Notify={value}: who started it waits for the container's own word"
    for value in said(unit, "Container", "Image"):
        if value.endswith((".image", ".build")):
            yield f"makes its image by {value}"
    if "oneshot" in said(unit, "Service", "Type"):
        yield "is of Type=oneshot"


def start_by_policy(unit: QuadletUnit) -> None:
    """Start a unit that systemd would have started again, had it been allowed to."""
    if _properties(unit.unit, "Restart").get("Restart") != "no":
        run(["systemctl", "start", unit.unit], timeout_s=STOP_LIMIT_S)


def rest(unit: QuadletUnit) -> None:
    """At the source: let systemd forget how the unit of a container ended that has moved away."""
    for verb in ("stop", "reset-failed"):
        run(["systemctl", verb, unit.unit], timeout_s=STOP_LIMIT_S, check=False)


def _unmovable(why: str) -> PrerequisiteError:
    return PrerequisiteError(why, code="unit-stays")


def _properties(unit: str, *names: str) -> dict[str, str]:
    """Return properties of a unit as `systemctl show` tells them; none when systemd does not answer."""
    argv = ["systemctl", "show", unit, *(f"--property={name}" for name in names)]
    try:
        output = run(argv, timeout_s=TIMEOUT_S).output
    except LifeboatError:
        return {}
    return {key: value for key, _, value in (line.partition("=") for line in output.splitlines())}
