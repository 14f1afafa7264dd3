"""A lab: hosts, the switch between them, and a client."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from migrator import command
from migrator.command import CommandResult
from migrator.errors import CommandError, UsageError
from tests.lab import cgroups, install, limits, state, switch
from tests.lab.cache import locked
from tests.lab.host import Host
from tests.lab.image import BASE, Image, archive
from tests.lab.namespaces import in_cgroup, in_network, start_network
from tests.lab.root import root
from tests.lab.settings import CLIENT_NUMBER, HOST_NAMES, STATE, ipv4, ipv6
from tests.lab.store import copy_tree, store

PIPE_SIZE_BYTES = 1 << 25
"""CRIU's page server asks for pipes of this size; without CAP_SYS_RESOURCE fs.pipe-max-size is the limit."""

INOTIFY_INSTANCES = 1024
"""Each systemd uses a dozen and all hosts share the machine's limit for root (128 by default)."""


class Client:
    """A place on the lab's network outside all hosts, where the machine's own programs run."""

    def __init__(self, holder: int, cgroup: Path) -> None:
        self.address = ipv4(CLIENT_NUMBER)
        self.address6 = ipv6(CLIENT_NUMBER)
        self.holder = holder
        self.cgroup = cgroup

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs `argv` there."""
        return in_cgroup(self.cgroup, in_network(self.holder, argv))

    def run(
        self, argv: Sequence[str], *, timeout_s: float = 60, check: bool = True, stdin: bytes | None = None
    ) -> CommandResult:
        """Run a program of the machine to its end on the lab's network."""
        result = command.run(self.command(argv), timeout_s=timeout_s, check=False, stdin=stdin)
        result = replace(result, argv=tuple(argv))
        if check and result.status != 0:
            raise CommandError(f"on client: {result.reason}", code="command-failed")
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
        """Start a program of the machine on the lab's network."""
        return command.spawn(self.command(argv), stdin=stdin, stdout=stdout, stderr=stderr, env=env)


UP: list[Lab] = []
"""The labs of this process that are up, the latest last; when a test has failed it is asked (tests.lab.witness)."""


class Lab:
    """Hosts alpha, beta, ... on one network; use it as a context manager, or `up()` and `down()`.

    Labs of different names do not know of each other. A lab of the same name is cleared away first, and
    so is every lab whose owner was killed.
    """

    def __init__(
        self, hosts: int = 2, *, name: str = "lab", detached: bool = False, images: Sequence[Image] = (BASE,)
    ) -> None:
        if not 1 <= hosts <= len(HOST_NAMES):
            raise UsageError(f"a lab has 1 to {len(HOST_NAMES)} hosts, not {hosts}", code="lab-hosts")
        self.name = name
        self.names = HOST_NAMES[:hosts]
        self.cgroup = cgroups.lab_cgroup(name)
        self.state = state.LabState(name, None if detached else state.owner())
        self.hosts: dict[str, Host] = {}
        self.images = tuple(images)
        self.holders: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> None:
        """Start everything and wait until all hosts have booted; on failure nothing is left."""
        layers = build_layers()
        images = build_store(layers[-1], self.images)
        try:
            with only_one():
                state.clear_abandoned()
                state.clear(self.name)
                self.state.layers = [str(layer) for layer in layers]
                self.state.store = str(images)
                self.state.save()
            prepare_machine()
            self.start_networks()
            for number, name in enumerate(self.names, start=1):
                self.add_host(name, number, layers)
            in_parallel(Host.wait_booted, self.hosts.values())
        except BaseException:
            self.down()
            raise
        UP.append(self)

    def start_networks(self) -> None:
        """Make the switch and the client's network."""
        cgroups.create(self.programs)
        for name in ("switch", "client"):
            cgroups.create(self.cgroup / name)
            self.holders.append(start_network(self.cgroup / name))
            self.state.processes[name] = state.identity(self.holders[-1].pid)
        self.state.save()
        switch.set_up(self.switch)
        switch.plug(self.switch, "client", self.client.holder, CLIENT_NUMBER)

    def add_host(self, name: str, number: int, layers: Sequence[Path]) -> None:
        """Make a host and start it."""
        host = Host(name, number, lab_cgroup=self.cgroup, data=self.state.data / name, layers=layers)
        self.hosts[name] = host
        self.furnish(host)
        self.boot(name)

    def furnish(self, host: Host) -> None:
        """Write what only this host has: name, machine id, container storage."""
        etc = host.data / "upper/etc"
        etc.mkdir(parents=True)
        (etc / "hostname").write_text(f"{host.name}\n")
        (etc / "hosts").write_text(hosts_file(self.names))
        (etc / "machine-id").write_text(f"{secrets.token_hex(16)}\n")
        copy_tree(Path(self.state.store), host.data / "containers", self.programs)

    def renew(self, name: str) -> None:
        """Replace a host by a new one of the same name, whatever state the old one is in."""
        host = self.host(name)
        host.kill()
        host.wipe()
        self.furnish(host)
        self.boot(name)
        host.wait_booted()

    def boot(self, name: str) -> None:
        """Start a host, or start it again after `kill`; wait for it with `host(name).wait_booted()`."""
        host = self.host(name)
        host.start()
        self.state.processes[name] = host.init or state.owner()
        self.state.save()
        switch.plug(self.switch, name, host.pid, host.number)

    def down(self) -> None:
        """End every process and remove every file of this lab."""
        if self in UP:
            UP.remove(self)
        with only_one():
            state.clear(self.name)
        for process in [*self.holders, *(host.launcher for host in self.hosts.values() if host.launcher)]:
            process.wait()

    def host(self, name: str) -> Host:
        """Return a host by name."""
        try:
            return self.hosts[name]
        except KeyError:
            raise UsageError(f"the lab has no host {name}", code="lab-no-host") from None

    @property
    def client(self) -> Client:
        """The place outside all hosts."""
        return Client(self.state.processes["client"].pid, self.programs)

    @property
    def programs(self) -> Path:
        """The cgroup of programs outside all hosts that may be ended at any time."""
        return self.cgroup / "programs"

    @property
    def switch(self) -> int:
        """The pid of the process that holds the switch's network namespace."""
        return self.state.processes["switch"].pid

    def cut(self, one: str, other: str) -> None:
        """Let nothing through between two hosts (or a host and the `client`) until `heal`."""
        switch.cut(self.switch, one, other, self.nft)

    def heal(self) -> None:
        """Undo every `cut`."""
        switch.heal(self.switch, self.nft)

    def forget_neighbours(self) -> None:
        """Forget who has which address: the next container with an address has another MAC address."""
        for holder in (self.client.holder, *(host.pid for host in self.hosts.values() if host.running)):
            switch.ip_batch(holder, ["neighbour flush all"])

    @property
    def nft(self) -> list[str]:
        """The nft of the hosts' root, as the machine need not have one."""
        return ["chroot", self.state.layers[-1], "/usr/sbin/nft"]


def attach(name: str) -> Lab:
    """Return a running lab that another process has brought up; raises `UsageError` when there is none."""
    noted = state.load(name)
    if noted is None:
        raise UsageError(f"no lab {name} is up", code="lab-not-up", hint="./run lab up")
    lab = Lab(1, name=name, detached=True)
    lab.state = noted
    lab.names = tuple(host for host in HOST_NAMES if host in noted.processes)
    for host in lab.names:
        number = HOST_NAMES.index(host) + 1
        layers = [Path(layer) for layer in noted.layers]
        lab.hosts[host] = Host(host, number, lab_cgroup=lab.cgroup, data=noted.data / host, layers=layers)
        lab.hosts[host].init = noted.processes[host]
    return lab


def build_layers() -> list[Path]:
    """Return what the hosts' file systems are made of, topmost first, building what is not in the cache."""
    return [*limits.layers(), *install.layers(root())]


def build_store(top: Path, images: Sequence[Image]) -> Path:
    """Return a container storage with these images, building what is not in the cache."""
    return store(top, [archive(image) for image in images])


def in_parallel(deed: Callable[[Host], None], hosts: Iterable[Host]) -> None:
    """Do something to all hosts at once; raise the first failure when all have ended."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(deed, hosts))


@contextmanager
def only_one() -> Iterator[None]:
    """Let one process at a time clear or begin labs."""
    STATE.mkdir(parents=True, exist_ok=True)
    with locked(STATE / "lock"):
        yield


def hosts_file(names: Sequence[str]) -> str:
    """Return /etc/hosts with every host and the client."""
    lines = ["127.0.0.1 localhost", "::1 localhost", f"{ipv4(CLIENT_NUMBER)} client"]
    for number, name in enumerate(names, start=1):
        lines += [f"{ipv4(number)} {name}", f"{ipv6(number)} {name}"]
    return "".join(f"{line}\n" for line in lines)


def prepare_machine() -> None:
    """Raise two limits of the machine that all hosts share; never lowers one."""
    for path, value in (
        ("fs/pipe-max-size", PIPE_SIZE_BYTES),
        ("fs/inotify/max_user_instances", INOTIFY_INSTANCES),
    ):
        file = Path("/proc/sys") / path
        if int(file.read_text()) < value:
            file.write_text(json.dumps(value))
