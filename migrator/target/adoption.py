"""How a systemd unit of this host gets a container that it did not start.

The unit's files come with the container and lie in Quadlet's temporary directory, so that a host that dies
meanwhile has never had them. While the container is on its way, a drop-in lets the unit run podman's restore
instead of its own command: in its cgroup the container comes up as if the unit had started it, podman's monitor
becomes the unit's main process, and systemd takes over. On arrival the files go to their place, the drop-in away.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from migrator.command import run, spawn
from migrator.container.quadlet import ADMIN, TEMPORARY, find
from migrator.files import write_whole
from migrator.model import QuadletUnit
from migrator.runtime import podman
from migrator.runtime.scope import Scope

RUNTIME_UNITS = Path("/run/systemd/system")
DROP_IN = "90-lifeboat-arrival.conf"  # after the one that forbids to start
SCRIPT = "unit"
TIMEOUT_S = 30.0
STOP_LIMIT_S = 60.0

ARRIVING = """\
# A container of another host is on its way into this unit; lifeboat takes this away when it is here.
[Unit]
ConditionPathExists=
[Service]
ExecCondition=
ExecStartPre=
ExecStart=
ExecStart={script}
ExecStartPost=
ExecStop=
ExecStopPost=
Restart=no
TimeoutStartSec=infinity
"""

RESTORE = """\
#!/bin/sh
exec >>{log} 2>&1
env -u NOTIFY_SOCKET {environment} {restore} || exit 1
monitor=$(podman container inspect --format '{{{{.State.ConmonPid}}}}' {container}) || exit 1
echo {container} >{id_file} && exec systemd-notify --ready "MAINPID=$monitor"
"""


class UnitStart(Scope):
    """The start of a unit, as its starter sees it: it ends well when systemd has taken the container over."""

    def kill(self) -> None:
        """Kill what the unit runs, and stop waiting for it."""
        run(["systemctl", "kill", "--signal=KILL", self._name], timeout_s=TIMEOUT_S, check=False)
        super().kill()


class Adoption:
    """One unit that is to take one container over; every step may be repeated, also by a later daemon."""

    def __init__(self, unit: QuadletUnit, container: str, directory: Path) -> None:
        """`container` is its id; `directory` is the migration's."""
        self._unit = unit
        self._container = container
        self._directory = directory

    @property
    def _drop_in(self) -> Path:
        return RUNTIME_UNITS / f"{self._unit.unit}.d" / DROP_IN

    def start(self, restore: Sequence[str], environment: Mapping[str, str]) -> Scope:
        """Let the unit run podman's restore; returns at once."""
        script = self._directory / SCRIPT
        log = self._directory / "podman.log"
        variables = [f"{name}={value}" for name, value in environment.items()]
        text = RESTORE.format(
            log=shlex.quote(str(log)),
            environment=shlex.join(variables),
            restore=shlex.join(restore),
            container=self._container,
            id_file=shlex.quote(f"/run/{self._unit.unit.removesuffix('.service')}.cid"),
        )
        _write(script, text, mode=0o700)
        _write(self._drop_in, ARRIVING.format(script=script))  # first, for `withdraw` looks for it
        for file in self._unit.files:
            if find(file.name) is None:
                _write(TEMPORARY / file.name, file.text)
        _reload()
        with (self._directory / "systemctl.log").open("ab") as output:
            process = spawn(["systemctl", "start", self._unit.unit], stdout=output, stderr=output)
        return UnitStart(self._unit.unit, process, log)

    def settle(self) -> None:
        """The container is here to stay: so are the unit's files, and the unit does again what they say."""
        for file in self._unit.files:
            if (TEMPORARY / file.name).exists() or find(file.name) is None:
                _write(ADMIN / file.name, file.text)
            self._forget_temporary(file.name)
        self._take_drop_in_away()

    def start_anew(self) -> None:
        """Let the unit start the container as it does at a boot."""
        self.settle()
        run(["systemctl", "restart", self._unit.unit], timeout_s=podman.START_LIMIT_S)

    def withdraw(self) -> None:
        """The container does not come: nothing of its unit stays; quiet when nothing is here."""
        if not self._drop_in.exists():
            return
        run(["systemctl", "stop", self._unit.unit], timeout_s=STOP_LIMIT_S, check=False)
        for file in self._unit.files:
            self._forget_temporary(file.name)
        run(["systemctl", "reset-failed", self._unit.unit], timeout_s=TIMEOUT_S, check=False)
        self._take_drop_in_away()

    def _forget_temporary(self, name: str) -> None:
        (TEMPORARY / name).unlink(missing_ok=True)
        if "/" in name:
            _remove_empty((TEMPORARY / name).parent)

    def _take_drop_in_away(self) -> None:
        self._drop_in.unlink(missing_ok=True)
        _remove_empty(self._drop_in.parent)
        _reload()


def _reload() -> None:
    run(["systemctl", "daemon-reload"], timeout_s=TIMEOUT_S)


def _remove_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file that everybody may read, in a directory that everybody may read."""
    if not path.parent.exists():
        path.parent.mkdir(parents=True)
        path.parent.chmod(0o755)
    write_whole(path, text.encode(), mode)
