"""A drain below podman and CRIU: the real page source and page sink on two hosts of a lab, a tree of our own.

What CRIU would have said to the sink the tree says itself (see `tests.lab.tree`); so one drain takes a second
instead of ten, and every one of its steps can be chosen.
"""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from migrator.command import kill_group
from migrator.control import ControlClient, Message
from migrator.errors import ExecutionError
from migrator.model import Pager
from migrator.pager.images import HEADER_BYTES, lazy_record
from migrator.pager.sink import CONTROL, ORDER, SinkOrder
from tests.lab import page_source
from tests.lab.lab import Lab

PYTHON = "/usr/lib/lifeboat/venv/bin/python"
PROGRAMS = Path(__file__).parent
START_TIMEOUT_S = 60.0
BASE = 0x600000000000

_numbers = itertools.count(1)


def prepare(lab: Lab) -> None:
    """Make the hosts one cluster and give them the programs; without any daemon."""
    alpha, beta = lab.host("alpha"), lab.host("beta")
    bundle = "/root/join.bundle"
    alpha.run(["lifeboat", "cluster", "init", "--host", "alpha", "--address", alpha.address])
    alpha.run(["lifeboat", "cluster", "invite", "beta", "--address", beta.address, "--output", bundle])
    beta.write(bundle, alpha.path(bundle).read_bytes(), mode=0o600)
    beta.run(["lifeboat", "cluster", "join", bundle])
    for host in (alpha, beta):
        for name in ("tree.py", "page_source.py"):
            host.write(f"/root/{name}", (PROGRAMS / name).read_text())


def regions(*sizes_mib: int) -> tuple[str, ...]:
    """Return regions of these sizes, far from each other."""
    return tuple(f"{BASE + (number << 40):x}:{size}" for number, size in enumerate(sizes_mib))


class Drain:
    """One drain; `start`, then `go`, then look, then `end`."""

    def __init__(self, lab: Lab, wanted: Sequence[str], settings: Mapping[str, Any] | None = None) -> None:
        """Settings are those of the source's [migrator], and `plain`, `addresses`, `env` for both programs."""
        self.alpha, self.beta = lab.host("alpha"), lab.host("beta")
        self.regions = tuple(wanted)
        self.settings = {"reconnect_limit_s": 30.0, **(settings or {})}
        self.env: dict[str, str] = self.settings.pop("env", {})
        self.programs: dict[str, subprocess.Popen[bytes]] = {}
        self.directory = f"/run/drain{next(_numbers)}"
        self.tree_pid = 0
        self._sink: ControlClient | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def start(self) -> None:
        """Bring everything up to the moment before the commit."""
        owner = self._spawn("owner", "alpha", ["python3", "/root/tree.py", "own", *self.regions])
        pid = self._first_pid(owner)
        self._start_sink(pid)
        port = self.tell_sink({"do": "progress"})["port"]
        argv = [PYTHON, "/root/page_source.py", str(pid), self.beta.address, str(port), json.dumps(self.settings)]
        self._hear(self._spawn("source", "alpha", argv, self.env), "ready")
        self.tell_sink({"do": "images", "images": f"{self.directory}/images"})
        scope = ["systemd-run", "--scope", "--quiet", "--collect", "--slice=drain.slice"]
        restore = ["python3", "/root/tree.py", "restore", f"{self.directory}/lazy-pages.socket", str(pid)]
        tree = self._spawn("tree", "beta", [*scope, *restore, *self.regions])
        self.tree_pid = int(self._hear(tree, "ready").split()[1])
        self._wait(lambda: bool(self.tell_sink({"do": "progress"})["tasks"]), "the sink to know the tree")

    def go(self) -> None:
        """Commit: let the memory flow."""
        self.tell_sink({"do": "go", "pid": self.tree_pid})

    def wait(self, timeout_s: float = 120) -> Message:
        """Return the sink's last word on the drain."""
        found: Message = {}

        def over() -> bool:
            found.update(self.tell_sink({"do": "progress"}))
            return found["event"] not in ("waiting", "draining")

        self._wait(over, "the drain to end", timeout_s)
        return found

    def say(self, order: str) -> None:
        """Tell the tree something."""
        stdin = self.programs["tree"].stdin
        assert stdin is not None
        stdin.write(f"{order}\n".encode())
        stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Return the tree's next answer; raises `ExecutionError` when it died."""
        found: dict[str, Any] = json.loads(self._hear(self.programs["tree"], "{"))
        return found

    def tell_sink(self, message: Message) -> Message:
        """Ask the sink."""
        if self._sink is None:
            path = self.beta.path(f"{self.directory}/{CONTROL}")
            self._sink = ControlClient(path, timeout_s=START_TIMEOUT_S, what="the page sink")
        return self._sink.ask(message, timeout_s=30)

    def kill_source(self) -> None:
        """Kill the page source and the tree it read, as the loss of the host would."""
        for name in ("source", "owner"):
            kill_group(self.programs[name])

    def log(self, name: str = "sink.log") -> str:
        """Return what the sink wrote."""
        return self.beta.read(f"{self.directory}/{name}")

    def end(self) -> None:
        """End every program."""
        if self._sink is not None:
            self._sink.close()
        for program in self.programs.values():
            kill_group(program)
            program.wait()
            for pipe in (program.stdin, program.stdout):
                if pipe is not None:
                    pipe.close()

    def _start_sink(self, pid: int) -> None:
        order = SinkOrder(
            migration=page_source.MIGRATION,
            source="alpha",
            pki="/etc/lifeboat/pki",
            ports=(7450, 7499),
            criu="/bin/false",
            pager=Pager.LIFEBOAT,
            reconnect_limit_s=self.settings["reconnect_limit_s"],
            secret=page_source.SECRET,
            plain=bool(self.settings.get("plain")),
        )
        self.beta.write(f"{self.directory}/{ORDER}", order.model_dump_json())
        ranges = [(int(a, 16), int(a, 16) + (int(mib) << 20)) for a, mib in (r.split(":") for r in self.regions)]
        records = b"".join(lazy_record(start, end) for start, end in ranges)
        image = bytes(HEADER_BYTES) + lazy_record(0, 0) + records
        self.beta.write(f"{self.directory}/images/pagemap-{pid}.img", image)
        self._spawn("sink", "beta", [PYTHON, "-m", "migrator.pager", self.directory], self.env)

    def _spawn(
        self, name: str, host: str, argv: list[str], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        where = self.alpha if host == "alpha" else self.beta
        words = [f"{key}={value}" for key, value in (env or {}).items()]
        program = where.spawn(
            ["env", *words, *argv] if words else argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.programs[name] = program
        return program

    def _first_pid(self, owner: subprocess.Popen[bytes]) -> int:
        """Return the owner's pid as its host knows it."""
        return int(self._hear(owner, "ready").split()[1])

    def _hear(self, program: subprocess.Popen[bytes], word: str) -> str:
        assert program.stdout is not None
        line = program.stdout.readline().decode()
        if not line.startswith(word):
            raise ExecutionError(f"{program.args!r} said {line!r} instead of {word}", code="lab-drain")
        return line

    def _wait(self, happened: Any, what: str, timeout_s: float = START_TIMEOUT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not happened():
            if time.monotonic() > deadline:
                raise ExecutionError(f"waited {timeout_s:g} s for {what}", code="lab-timeout")
            time.sleep(0.02)


@dataclass(frozen=True)
class Loss:
    """What came of a source that was killed in the middle of a drain; `wrong` is empty when nothing was."""

    arrived_bytes: int
    of_bytes: int
    wrong: str = ""


def lose_source(lab: Lab, seed: int, mib: int = 48) -> Loss:
    """Kill the source at a random moment of a drain, while the tree looks at random pages all the time.

    The tree must be frozen then; thawed all the same it must never read what is not its own; given up it must die.
    """
    choose = random.Random(seed)  # noqa: S311
    with Drain(lab, regions(mib), {"reconnect_limit_s": 0.5, "pager_limit_mib_s": 64.0}) as drain:
        drain.say("watch")
        drain.go()
        moment = choose.random() * 0.8 * (mib << 20)
        while (told := drain.tell_sink({"do": "progress"}))["drained_bytes"] < moment:
            if told["event"] != "draining":
                return Loss(told["drained_bytes"], mib << 20, f"the drain is {told['event']}: {told['reason']}")
        drain.kill_source()
        told = drain.wait()
        arrived = int(told["drained_bytes"])
        wrong = _wrong_after_a_loss(drain, told)
    return Loss(arrived, mib << 20, wrong)


def _wrong_after_a_loss(drain: Drain, told: Message) -> str:
    if told["event"] != "lost":
        return f"the drain is {told['event']}"
    said = drain.beta.run(["cat", f"/proc/{drain.tree_pid}/cgroup"]).output  # as seen from within the host
    where = said.strip().rpartition("::")[2]
    freezer = drain.beta.path(f"/sys/fs/cgroup{where}/cgroup.freeze")
    if freezer.read_text().strip() != "1":
        return "the tree is not frozen"
    freezer.write_text("0")
    drain.tell_sink({"do": "give-up"})
    tree = drain.programs["tree"]
    output, _ = tree.communicate(timeout=30)
    if output:
        return f"the tree read what is not its own: {output!r}"
    deaths = (signal.SIGKILL, signal.SIGBUS)
    expected = {-number for number in deaths} | {128 + number for number in deaths}  # as seen by a shell
    return "" if tree.returncode in expected else f"the tree ended with {tree.returncode}"
