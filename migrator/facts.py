"""What this host tells its peers about itself."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from migrator.command import run
from migrator.errors import LifeboatError
from migrator.health import Verdict
from migrator.model import HostFacts, NetworkFacts
from migrator.runtime import podman

TIMEOUT_S = 10
STORAGE = Path("/var/lib/containers")


@dataclass(frozen=True)
class Standing:
    """What the facts cannot be read from the system: the verdict, the cordon, memory promised to others."""

    verdict: Verdict = Verdict.HEALTHY
    cordoned: bool = False
    reserved_bytes: int = 0


@dataclass
class FactsReader:
    """Collects facts; what podman cannot tell in time (a container's lock is held) is the last known."""

    host: str
    standing: Callable[[], Standing]
    _versions: dict[str, str] = field(default_factory=dict)
    _podman: tuple[tuple[NetworkFacts, ...], tuple[str, ...], tuple[str, ...]] = ((), (), ())

    def read(self) -> HostFacts:
        """Return the facts of now."""
        memory = _memory()
        model, flags = _cpu()
        networks, names, images = self._podman_facts()
        standing = self.standing()
        storage = STORAGE if STORAGE.exists() else Path("/")
        disk = os.statvfs(storage)
        return HostFacts(
            host=self.host,
            at=time.time(),
            version=own_version(),
            architecture=platform.machine(),
            kernel=platform.release(),
            cpu_model=model,
            cpu_flags=flags,
            criu=self._version("criu", ["criu", "--version"]),
            runc=self._version("runc", ["runc", "--version"]),
            podman=self._version("podman", ["podman", "--version"]),
            memory_bytes=memory["MemTotal"],
            memory_available_bytes=memory["MemAvailable"],
            reserved_bytes=standing.reserved_bytes,
            disk_available_bytes=disk.f_bavail * disk.f_frsize,
            networks=networks,
            container_names=names,
            image_ids=images,
            verdict=standing.verdict,
            cordoned=standing.cordoned,
            load=os.getloadavg()[0] / (os.cpu_count() or 1),
        )

    def _version(self, program: str, argv: list[str]) -> str:
        """Return the first word with a digit that a program says of its version, empty when it is absent."""
        if program not in self._versions:
            try:
                words = run(argv, timeout_s=TIMEOUT_S).output.replace(",", " ").split()
            except LifeboatError:
                return ""
            self._versions[program] = next((word for word in words if word[0].isdigit()), "")
        return self._versions[program]

    def _podman_facts(self) -> tuple[tuple[NetworkFacts, ...], tuple[str, ...], tuple[str, ...]]:
        try:
            self._podman = (podman.networks(), podman.container_names(), podman.image_ids())
        except LifeboatError:
            return self._podman
        return self._podman


def own_version() -> str:
    """Return lifeboat's version."""
    try:
        return version("lifeboatd")
    except PackageNotFoundError:
        return "unknown"


def _memory() -> dict[str, int]:
    """Return /proc/meminfo in bytes (it says kB and means KiB)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    pairs = (line.split(":") for line in lines)
    return {name: int(rest.split()[0]) * 1024 for name, rest in pairs}


def _cpu() -> tuple[str, tuple[str, ...]]:
    """Return the model and the flags of the first processor in /proc/cpuinfo."""
    first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    flags = fields.get("flags") or fields.get("Features", "")
    return fields.get("model name", fields.get("CPU part", "")), tuple(sorted(flags.split()))
