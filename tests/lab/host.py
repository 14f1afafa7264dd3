"""One host of the lab: systemd as PID 1 in its own namespaces, with its own files and network."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

from migrator import command
from migrator.command import CommandResult
from migrator.errors import CommandError, ExecutionError
from tests.lab import cgroups
from tests.lab.namespaces import in_cgroup, in_host, start_init, wait_until
from tests.lab.settings import ipv4, ipv6
from tests.lab.state import ProcessIdentity, remove_tree

BOOT = Path(__file__).with_name("boot.py")
BOOT_TIMEOUT_S = 60.0
LOAD_TIMEOUT_S = 120.0
DIRECTORIES = ("upper", "work", "root", "containers")


class Host:
    """A host by name; its files stay when it is killed and booted again, as a disk would."""

    def __init__(self, name: str, number: int, *, lab_cgroup: Path, data: Path, layers: Sequence[Path]) -> None:
        self.name = name
        self.number = number
        self.address = ipv4(number)
        self.address6 = ipv6(number)
        self.cgroup = lab_cgroup / name
        self.data = data
        self.layers = tuple(layers)
        self.init: ProcessIdentity | None = None
        self.launcher: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The pid of the host's PID 1 as the machine sees it; raises `ExecutionError` when it is down."""
        if self.init is None or not self.init.alive:
            raise ExecutionError(f"host {self.name} is down", code="lab-host-down")
        return self.init.pid

    @property
    def running(self) -> bool:
        """Tell whether the host is up."""
        return self.init is not None and self.init.alive

    def start(self) -> None:
        """Start PID 1; the network namespace exists when this returns, systemd may still be booting."""
        for name in DIRECTORIES:
            (self.data / name).mkdir(parents=True, exist_ok=True)
        for directory in (self.cgroup, self.entered, self.launchers):
            cgroups.create(directory)
        settings = {
            "hostname": self.name,
            "cgroup": str(self.cgroup),
            "layers": ":".join(str(layer) for layer in self.layers),
            "containers": str(self.data / "containers"),
            **{name: str(self.data / name) for name in ("root", "upper", "work")},
        }
        file = self.data / "boot.json"
        file.write_text(json.dumps(settings))
        with (self.data / "console.log").open("ab") as console:
            boot = ["/usr/bin/env", "python3", str(BOOT), str(file)]
            self.launcher, self.init = start_init(self.launchers, boot, console)

    @property
    def entered(self) -> Path:
        """The cgroup of programs we start in the host: a leaf, as systemd keeps its own at the top empty."""
        return self.cgroup / "lab"

    @property
    def launchers(self) -> Path:
        """The cgroup of the process that waits for PID 1; beside the host's, as it is not in the host."""
        return self.cgroup.with_name(f"{self.name}.launcher")

    def wait_booted(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """Wait until systemd says that it is running; raises when a unit failed, naming it."""
        deadline = time.monotonic() + timeout_s
        said = ""
        while time.monotonic() < deadline:
            if not self.running:
                break
            said = self.run(["systemctl", "is-system-running"], timeout_s=30, check=False).output.strip()
            if said == "running":
                return
            if said == "degraded":
                failed = self.run(["systemctl", "--failed", "--plain", "--no-legend"], timeout_s=30).output
                raise ExecutionError(f"host {self.name}: {failed.strip()}", code="lab-boot")
            time.sleep(0.02)
        why = f"{said or 'PID 1 ended'}; its console's last words: {self.console()}"
        raise ExecutionError(f"host {self.name} did not boot: {why}", code="lab-boot")

    def console(self) -> str:
        """Return the last lines PID 1 wrote before journald took over."""
        lines = (self.data / "console.log").read_text(errors="replace").splitlines()
        return " | ".join(lines[-4:]) or "none"

    def command(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> list[str]:
        """Return the command that runs `argv` in this host."""
        return in_cgroup(self.entered, in_host(self.pid, argv, env))

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = 60,
        check: bool = True,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CommandResult:
        """Run a program in the host to its end; errors as in `migrator.command.run`, naming the host."""
        result = command.run(self.command(argv, env), timeout_s=timeout_s, check=False, stdin=stdin)
        result = replace(result, argv=tuple(argv))
        if check and result.status != 0:
            raise CommandError(f"on {self.name}: {result.reason}", code="command-failed")
        return result

    def spawn(
        self,
        argv: Sequence[str],
        *,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.PIPE,
        stderr: int | IO[bytes] = subprocess.PIPE,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program in the host."""
        return command.spawn(self.command(argv, env), stdin=stdin, stdout=stdout, stderr=stderr)

    def path(self, path: str) -> Path:
        """Return where the machine sees an absolute path of the host; only while the host is up."""
        return Path(f"/proc/{self.pid}/root") / path.lstrip("/")

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        """Write a file of the host, all or nothing, with its directories."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.new")
        temporary.write_bytes(text.encode() if isinstance(text, str) else text)
        temporary.chmod(mode)
        temporary.replace(file)

    def read(self, path: str) -> str:
        """Read a text file of the host."""
        return self.path(path).read_text()

    def wipe(self) -> None:
        """Remove the files of a host that is down, so that it boots as a new one."""
        if self.running:
            raise ExecutionError(f"host {self.name} is up", code="lab-host-up")
        for name in DIRECTORIES:
            remove_tree(self.data / name)

    def kill(self) -> None:
        """Kill every process of the host at once, as a crash would; its files stay."""
        # Not only killed: Linux 6.18 kills what is later cloned into a cgroup that had once its cgroup.kill.
        cgroups.remove(self.cgroup)
        if self.launcher is not None:
            self.launcher.wait()
        wait_until(lambda: not self.running, f"PID 1 of {self.name} does not end")

    def load_image(self, archive: Path) -> None:
        """Load an archive made by `tests.lab.image`; the same archive gives the same image ID everywhere."""
        with archive.open("rb") as file:
            process = self.spawn(["podman", "load", "--quiet"], stdin=file)
            _, errors = process.communicate(timeout=LOAD_TIMEOUT_S)
        if process.returncode != 0:
            raise ExecutionError(f"{archive} cannot be loaded: {errors.decode()}", code="lab-load")
