"""Whole migrations of one container, there and back, and what each of them took."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from migrator.errors import CommandError, ExecutionError
from tests.lab.clean import clean
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.scene import CONTAINER, POLL_S, Scene

MOVE_TIMEOUT_S = 300
SAMPLE_S = 0.2
VARIANTS = {
    "lifeboat": 'pager = "lifeboat"',
    "lifeboat, no TLS": 'pager = "lifeboat"\npager_transport = "plain"',
    "criu": 'pager = "criu"',
}
"""What is compared, by the settings of both hosts; CRIU's pages go through our TLS, too."""

PROGRAMS = ("migrator.pager", "migrator.shim")


class Moves:
    """Two daemons and a container."""

    def __init__(
        self, lab: Lab, directory: Path, pager: str, memory_mib: int, mode: str, *, hollow_mib: int = 0
    ) -> None:
        self._lab, self._pager, self._memory_mib, self._mode = lab, pager, memory_mib, mode
        self._options = ("--mode", mode, "--hollow", str(hollow_mib))
        self._scene = Scene(lab, directory)
        self._here, self._there = self._scene.source, self._scene.target

    def __enter__(self) -> Self:
        scene = self._scene
        scene.start_daemons("lazy")
        settings = scene.settings("lazy").replace(
            "[migrator]", f'[migrator]\n{VARIANTS[self._pager]}\npager_compression = "off"'
        )
        settings = settings.replace(f"smart_poll_s = {POLL_S}", "smart_poll_s = 3600")  # the lab's disks cost CPU
        for host in self._lab.hosts.values():
            host.write("/etc/lifeboat/lifeboat.toml", settings)
            host.run(["systemctl", "restart", "lifeboatd"])
        scene.start_container(self._memory_mib, *self._options)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scene.close()
        clean(self._lab)

    def move(self, *, watched: bool = False, measured: bool = False) -> dict[str, Any]:
        """Move the container to the other host; return what that took, or `unfinished_s` when it took too long."""
        self._scene.ask("faults")
        if watched:
            self._scene.start_client()
        sampler = Sampler(list(self._lab.hosts.values())) if measured else None
        argv = ["lifeboat", "migrate", CONTAINER, "--to", self._there.name]
        try:
            moved = self._here.run(argv, timeout_s=MOVE_TIMEOUT_S, check=False)
        except CommandError as error:
            if error.code != "command-timeout":
                raise
            print(
                f"  {self._pager} {self._mode} {self._memory_mib} MiB: not done after {MOVE_TIMEOUT_S} s",
                flush=True,
            )
            return {"unfinished_s": MOVE_TIMEOUT_S}
        if moved.status != 0:
            raise ExecutionError(f"the migration failed: {moved.errors}", code="bench-migration")
        outcome = self._scene.lifeboat(self._here, "history")[0]
        found = {key: outcome[key] for key in ("freeze_ms", "drain_s", "drained_bytes", "drain")}
        found |= self._scene.ask("faults") or {}
        if watched:
            found["stall_ms"] = self._scene.end_client()["longest_stall_ms"]
        if sampler is not None:
            found["peak_kib"] = sampler.stop()
        self._here, self._there = self._there, self._here
        print(f"  {self._pager} {self._mode} {self._memory_mib} MiB: {json.dumps(found)}", flush=True)
        return found

    def verify(self) -> None:
        """Raise `ExecutionError` when any page is wrong."""
        verified = self._scene.ask("verify") or {}
        if verified.get("wrong_now") != 0 or verified.get("wrong") != 0:
            raise ExecutionError(f"memory is wrong: {verified}", code="bench-wrong")


class Sampler:
    """Looks all the time how much memory the pager's programs took at most."""

    def __init__(self, hosts: list[Host]) -> None:
        self._hosts = hosts
        self._peaks: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, int]:
        """Return the peaks (VmHWM, KiB) by program."""
        self._ended.set()
        self._thread.join()
        return self._peaks

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            for host in self._hosts:
                for process in host.path("/proc").glob("[0-9]*"):
                    self._look(process)

    def _look(self, process: Path) -> None:
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            status = (process / "status").read_text()
        except OSError:
            return  # it has ended
        for name in PROGRAMS:
            if name in words and (peak := [line for line in status.splitlines() if line.startswith("VmHWM")]):
                self._peaks[name] = max(self._peaks.get(name, 0), int(peak[0].split()[1]))
