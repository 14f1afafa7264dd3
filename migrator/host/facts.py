"""What this host tells its peers about itself."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from migrator.command import run
from migrator.errors import LifeboatError
from migrator.health import Health
from migrator.host import hardware
from migrator.model import HostFacts, NetworkFacts
from migrator.runtime import podman
from migrator.runtime.census import Census
from migrator.settings import MigratorSettings
from migrator.version import own_version

TIMEOUT_S = 10
PATIENCE_S = 5.0  # somebody who stops or starts a container by hand makes podman wait, too
FIRST_PATIENCE_S = 20.0  # as long as nothing is known
STORAGE = Path("/var/lib/containers")


@dataclass(frozen=True)
class Standing:
    """What cannot be read from the system: how this host is, and the memory promised to others."""

    health: Health = field(default_factory=Health)
    reserved_bytes: int = 0
    held: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Podman:
    networks: tuple[NetworkFacts, ...] = ()
    images: tuple[str, ...] = ()


@dataclass
class FactsReader:
    """Collects facts; what podman cannot tell in time is the last known."""

    host: str
    standing: Callable[[], Standing]
    take_census: Callable[[], Census]
    settings: MigratorSettings
    _versions: dict[str, str] = field(default_factory=dict)
    _podman: _Podman = field(default_factory=_Podman)
    _census: Census | None = None
    _asking: Future[Census] | None = None
    _worker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "census"))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> HostFacts:
        """Return the facts of now."""
        memory, (model, flags) = hardware.memory(), hardware.processor()
        found, census, standing = self._podman_facts(), self._last_census(), self.standing()
        disk = os.statvfs(STORAGE if STORAGE.exists() else "/")
        return HostFacts(
            host=self.host,
            at=time.time(),
            version=own_version(),
            architecture=platform.machine(),
            kernel=platform.release(),
            cpu_model=model,
            cpu_flags=flags,
            signal_frame_bytes=hardware.signal_frame_bytes(),
            criu=self._version("criu", ["criu", "--version"]),
            runc=self._version("runc", ["runc", "--version"]),
            podman=self._version("podman", ["podman", "--version"]),
            memory_bytes=memory["MemTotal"],
            memory_available_bytes=memory["MemAvailable"],
            reserved_bytes=standing.reserved_bytes,
            held=dict(standing.held),
            disk_available_bytes=disk.f_bavail * disk.f_frsize,
            networks=found.networks,
            container_names=census.names,
            image_ids=found.images,
            ports=tuple(sorted({*census.ports, *hardware.listening_ports()})),
            apart=census.apart,
            devices=hardware.devices(),
            labels=dict(self.settings.labels),
            shared_paths=self.settings.shared_paths,
            pager=self.settings.pager,
            creates_for_others=self.settings.accept_privileged,
            verdict=standing.health.verdict,
            cordoned=standing.health.cordoned,
            evacuating=standing.health.evacuating,
            nearness=standing.health.nearness,
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

    def _podman_facts(self) -> _Podman:
        try:
            self._podman = _Podman(podman.networks(), podman.image_ids())
        except LifeboatError:
            return self._podman
        return self._podman

    def _last_census(self) -> Census:
        """Return the containers of now, or of the last time that podman told them soon enough."""
        with self._lock:
            if self._asking is None or self._asking.done():
                self._asking = self._worker.submit(self.take_census)
            asking = self._asking
        wait([asking], PATIENCE_S if self._census else FIRST_PATIENCE_S)
        if asking.done() and asking.exception() is None:
            self._census = asking.result()
        return self._census or Census()
