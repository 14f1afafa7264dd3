"""One cell of the crash matrix: a migration, stopped at a line of a journal, where something dies or breaks.

Afterwards it is seen from outside whether the promises held: see `Verdict.wrong`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from migrator.errors import CommandError, ExecutionError, LifeboatError
from tests.lab import admin, cgroups, cluster
from tests.lab.clean import clean
from tests.lab.host import Host
from tests.lab.image import BASE
from tests.lab.lab import Lab
from tests.lab.leftovers import leftovers, volumes
from tests.lab.settings import CHECKOUT
from tests.lab.stops import Stop, Turnstile, stop_named
from tests.lab.traffic import PORT, ask

CONTAINER, ADDRESS = "web", "10.77.0.130"
POD, TALKER, TALKER_PORT = "shop", "talker", 7001  # a cell's pod, and who talks to the container in it
TALK = CHECKOUT / "tests/lab/talker.py"
MEMORY_MIB = 48
SETTINGS = """\
[signals]
edac = false
smart_poll_s = 3600

[migrator]
method = "{method}"
{privileged}reconnect_limit_s = {reconnect_limit_s}
freeze_limit_s = 8
park_limit_s = 30
fallback = "{fallback}"
"""
RECONNECT_LIMIT_S = 6
STATE_MIB = 24
ROLLBACK = "rollback"  # a lazy migration that was lost after its commit, and a human who lets it run where it was
IN_POD = "pod"  # a lazy migration of a pod, whose other member never stops talking to this one over 127.0.0.1
KINDS = (ROLLBACK, IN_POD)
PAUSE = b"/catatonit\0-P\0"  # what a pod's infra container runs: it only holds namespaces, and never stands still
STOP_LIMIT_S = 60.0
REST_LIMIT_S = 120.0
CALM_S = 6.0  # longer than either daemon waits before it tries again


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong at a stop, and what is done about it afterwards."""

    name: str
    strike: Callable[[Cell], None]
    after: Callable[[Cell], None] = lambda _: None
    limited: bool = False  # needs a state directory that can be filled


@dataclass
class Verdict:
    """What became of a cell."""

    stop: str
    fault: str
    struck: bool = True
    outcome: str = ""  # source, target, anew on the target, human
    wrong: list[str] = field(default_factory=list)
    gap_s: float = 0.0  # the longest time without an answer
    thawed_s: float | None = None  # from the fault to the next answer, where the container stayed
    said: str = ""  # the last words of the journal
    method: str = "lazy"
    day: str = ""  # on which it was seen (UTC), as ISO 8601 has it


class Cell:
    """A lab with a cluster, a container that writes rows, a watcher outside, and one migration."""

    def __init__(self, lab: Lab, directory: Path, *, method: str = "lazy", fallback: str = "stay") -> None:
        """`method` may also be one of the `KINDS`."""
        self.lab = lab
        self._pod = method == IN_POD
        self.source, self.target = lab.host("alpha"), lab.host("beta")
        self._directory = directory
        self._method, self._fallback = method, fallback
        self._watcher: subprocess.Popen[bytes] | None = None
        self._moving: subprocess.Popen[bytes] | None = None
        self._seen = directory / "seen.json"
        self.struck_at = 0.0
        self._open: list[tuple[str | None, str | None]] = []
        self._open_since = 0.0
        self._ready = self._limited = False

    # --- the stage

    def leave(self) -> None:
        """What is on the stage is not known, or another's: it is made anew when this one is played again."""
        self._ready = False

    def prepare(self, *, limited: bool = False, reconnect_limit_s: float = RECONNECT_LIMIT_S) -> None:
        """Bring up what is not up: the hosts, the cluster, the container on the source, the watcher."""
        if not self._ready or limited != self._limited:
            for host in (self.source, self.target):
                if not host.running:
                    self.lab.renew(host.name)
            clean(self.lab)
            settings = SETTINGS.format(
                method="lazy" if self._method in KINDS else self._method,
                privileged="accept_privileged = true\n"
                if self._method == "cold"
                else "",  # else no target takes it
                fallback=self._fallback,
                reconnect_limit_s=reconnect_limit_s,
            )
            self._limit_state(limited=limited)
            cluster.start(self.lab, settings)
            self._ready, self._limited = True, limited
        self.lab.forget_neighbours()
        self._start_container()
        self._seen.unlink(missing_ok=True)
        watcher = [sys.executable, str(CHECKOUT / "tests/lab/watcher.py"), ADDRESS, str(PORT)]
        self._watcher = self.lab.client.spawn(
            [*watcher, "--output", str(self._seen)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.wait(lambda: len(self.seen().get("acknowledged", ())) > 5, 60)

    def _start_container(self) -> None:
        network = ["--network", "lan", "--ip", ADDRESS]
        place = ["--pod", POD] if self._pod else network
        argv = ["podman", "run", "--detach", "--restart=always", *place]
        workload = [
            "python3",
            "/usr/local/bin/workload",
            "--memory",
            str(MEMORY_MIB),
            "--database",
            "/rows/rows.db",
        ]
        if self._pod:
            self.source.run(["podman", "pod", "create", "--name", POD, "--hostname", POD, *network])
        self.source.run([*argv, "--name", CONTAINER, "--volume", "rows:/rows", BASE.name, *workload])
        if self._pod:
            talk = ["python3", "-c", TALK.read_text(), str(PORT), str(TALKER_PORT)]
            self.source.run([*argv, "--name", TALKER, BASE.name, *talk])
            self.wait(lambda: self.talked().get("answers", 0) > 5, 60)

    def talked(self) -> dict[str, Any]:
        """Return what the talker has seen so far; nothing when nobody answers."""
        return talked(self.lab)

    def _limit_state(self, *, limited: bool) -> None:
        """Give lifeboat's state at the target a small file system that can be filled, or take it away."""
        place = "/var/lib/lifeboat"
        mounted = self.target.run(["mountpoint", "--quiet", place], check=False).status == 0
        if mounted and not limited:
            self.target.run(["umount", place])
        elif limited and not mounted:
            self.target.run(["mount", "-t", "tmpfs", "-o", f"size={STATE_MIB}m,mode=0700", "tmpfs", place])

    def move(self) -> None:
        """Begin the migration."""
        name = POD if self._pod else CONTAINER
        self._moving = self.source.spawn(["lifeboat", "migrate", name, "--to", "beta"])

    def run(self, stop: Stop, fault: Fault) -> Verdict:
        """Play the cell."""
        verdict = Verdict(stop.name, fault.name, method=self._method)
        self.prepare(limited=fault.limited)
        self.leave()  # whatever comes, until it is judged
        back = self._method == ROLLBACK
        resume = ["lifeboat", "recover", self._lose(), "--resume-here"] if back else []
        host = self.source if stop.side == "source" else self.target
        turnstile = Turnstile(host, stop, STOP_LIMIT_S, begun=back)
        if back:
            self._moving = self.source.spawn(resume)
        else:
            self.move()
        try:
            with turnstile.hold():
                self.struck_at = time.time()
                fault.strike(self)
            fault.after(self)
        except LifeboatError as error:
            verdict.struck, verdict.said = False, str(error)
        if back:
            self._insist(resume)
        self._judge(verdict)
        return verdict

    def _lose(self) -> str:
        """Cut a migration off after its commit for longer than anybody waits; return its id."""
        turnstile = Turnstile(self.source, stop_named("source: commit told"), STOP_LIMIT_S)
        self.struck_at = time.time()
        self.move()
        with turnstile.hold():
            self.lab.cut("alpha", "beta")
        moving = self._moving
        if not self.wait(
            lambda: bool(moving and moving.poll() is not None and self._calls(self.target)), REST_LIMIT_S
        ):
            raise ExecutionError("nobody was called", code="lab-timeout")
        self.lab.heal()
        return str(self.unsettled(self.source)[0]["migration"])

    def _insist(self, resume: list[str]) -> None:
        """Say it again until it is done, as a human would."""

        def done() -> bool:
            self.source.run(resume, check=False, timeout_s=REST_LIMIT_S)
            return self.source.running and not self.unsettled(self.source)

        self.wait(done, REST_LIMIT_S)

    def close(self) -> None:
        """End what runs outside the hosts."""
        for program in (self._watcher, self._moving):
            if program is not None and program.poll() is None:
                program.terminate()
                program.wait(30)
            if program is not None:
                for pipe in (program.stdout, program.stderr):
                    if pipe is not None:
                        pipe.close()
        self._watcher = self._moving = None

    # --- what can be struck

    def processes(self, host: Host, word: str) -> list[int]:
        """Return the machine's pids of the host's processes with a word in their command line."""
        found = []
        for directory, _, _ in os.walk(host.cgroup):  # what vanishes meanwhile is passed over
            with suppress(OSError):
                found += [int(line) for line in Path(directory, "cgroup.procs").read_text().split()]
        return [pid for pid in found if word in _command_line(pid) or word == _name(pid)]

    def kill(self, host: Host, *words: str) -> None:
        """Kill those processes at once, those of the first word first."""
        for pid in [pid for word in words for pid in self.processes(host, word)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_pid(self, pid: int) -> None:
        """Kill one process at once."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def kill_criu(self) -> None:
        """Kill every CRIU on both hosts."""
        for host in (self.source, self.target):
            for pid in self.processes(host, "criu"):
                if _name(pid) == "criu":
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    # --- what became of it

    def seen(self) -> dict[str, Any]:
        """Return what the watcher has seen so far."""
        with suppress(FileNotFoundError):
            found: dict[str, Any] = json.loads(self._seen.read_text())
            return found
        return {}

    def wait(self, happened: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something happened; return whether it did."""
        deadline = time.monotonic() + timeout_s
        while not happened():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def entries(self, host: Host) -> list[dict[str, Any]]:
        """Return the host's migrations, newest first, as `lifeboat history` tells."""
        try:
            return admin.history(host)
        except CommandError as error:
            if error.temporary:
                raise
            return []

    def unsettled(self, host: Host) -> list[dict[str, Any]]:
        """Return the host's migrations that have no end, as `lifeboat recover` tells."""
        try:
            return admin.situations(host)
        except CommandError as error:
            if error.temporary:
                raise
            return [{"daemon": str(error)}]

    def runs_on(self) -> list[str]:
        """Return the hosts on which the container's processes run, and are not frozen."""
        return [host.name for host in (self.source, self.target) if host.running and self._runs(host)]

    def _runs(self, host: Host) -> bool:
        """Say whether processes of a container run and may speak; without podman, which may be kept waiting."""
        for cgroup in cgroups.tree(host.cgroup):
            with suppress(OSError):
                scope = next((part for part in cgroup.parts if part.startswith("libpod-")), "")
                if not scope or scope.startswith("libpod-conmon-"):
                    continue
                pids = (cgroup / "cgroup.procs").read_text().split()
                if not pids or Path(f"/proc/{pids[0]}/cmdline").read_bytes() == PAUSE:
                    continue
                if not _told_to_freeze(cgroup) and not _behind_gate(host, int(pids[0])):
                    return True
        return False

    def _judge(self, verdict: Verdict) -> None:
        rested = self.wait(self._rests, REST_LIMIT_S)
        called = bool(self.unsettled(self.source) or self.unsettled(self.target))
        places = self.runs_on()
        if not rested:
            verdict.wrong.append("it never came to rest")
        verdict.outcome = "human" if called else (places[0] if places else "nowhere")
        verdict.outcome = {"alpha": "source", "beta": "target"}.get(verdict.outcome, verdict.outcome)
        if len(places) > 1:
            verdict.wrong.append("it runs on both")
        if not places and not called:
            verdict.wrong.append("it runs on neither and nobody was called")
        verdict.said = verdict.said or "; ".join(self._last_words())
        if places:
            self._judge_container(verdict)
        self._judge_watcher(verdict)
        if not called:
            for host in (self.source, self.target):
                verdict.wrong += [f"{host.name}: {left}" for left in leftovers(host)]
            if places == [self.source.name] and self._method != ROLLBACK:  # that one had come, with its volume
                verdict.wrong += [f"beta: a volume {name}" for name in volumes(self.target)]
        self._ready = not called and not verdict.wrong

    def _rests(self) -> bool:
        """Say whether nothing goes on any more: all is settled, or a human was called and nothing changes.

        Between a call and a target's late return everything looks like that, for a moment.
        """
        if self._moving is not None and self._moving.poll() is None:
            return False
        if not (self.source.running and self.target.running):
            return False
        told = [*self.unsettled(self.source), *self.unsettled(self.target)]
        open_here = [(item.get("migration"), item.get("place")) for item in told]
        if open_here != self._open:
            self._open, self._open_since = open_here, time.monotonic()
        calm = time.monotonic() - self._open_since > CALM_S
        return not told or (calm and all("migration" in item for item in told) and self._human_called())

    def _human_called(self) -> bool:
        """Say whether a human was called on some host: an outcome that is not settled."""
        return any(map(self._waits_for_one, (self.source, self.target))) or self._daemons_told()

    def _waits_for_one(self, host: Host) -> bool:
        """Say whether a host's last migration is lost and open; one that fell back is lost, too, but settled."""
        open_here = {item.get("migration") for item in self.unsettled(host)}
        return any(item["phase"] == "lost" and item["migration"] in open_here for item in self.entries(host)[:1])

    def _daemons_told(self) -> bool:
        return any(map(self._calls, (self.source, self.target)))

    def _calls(self, host: Host) -> bool:
        """Say whether the daemon of a host has called a human since the fault, not in the cells before."""
        since = f"--since=@{int(self.struck_at)}"
        words = ["journalctl", "--unit=lifeboatd", "--no-pager", "--output=cat", since]
        said = host.run(words, check=False).output
        return "call a human" in said or "needs a human" in said

    def _last_words(self) -> Iterator[str]:
        for host in (self.source, self.target):
            for item in self.entries(host)[:1]:
                yield f"{host.name}: {item['phase']} {item['error']}".strip()

    def _judge_container(self, verdict: Verdict) -> None:
        more = self.seen().get("answers", 0) + 20
        if not self.wait(lambda: self.seen().get("answers", 0) > more, 30):
            verdict.wrong.append("it does not answer")
            return
        self._end_watcher()
        verified = ask(self.lab, ADDRESS, "verify")
        if verified["wrong_now"] or verified["wrong"]:
            verdict.wrong.append(f"{verified['wrong_now'] or verified['wrong']} pages of its memory are wrong")
        rows = ask(self.lab, ADDRESS, "rows")["rows"]
        acknowledged = set(self.seen()["acknowledged"])
        if (lost := acknowledged - set(rows)) and self._method != ROLLBACK:
            verdict.wrong.append(f"{len(lost)} acknowledged rows are lost")
        if len(rows) != len(set(rows)):
            verdict.wrong.append("rows are doubled")
        if self._pod:
            verdict.wrong += self._wrong_in_pod(verified["boot"])

    def _wrong_in_pod(self, boot: str) -> Iterator[str]:
        """Yield what is wrong with the other member: both are here, and what they had said to each other holds."""
        before = self.talked()
        if not before or not self.wait(lambda: self.talked().get("answers", 0) > before["answers"] + 20, 30):
            yield f"the members of the pod do not talk any more: {before or 'one does not answer'}"
        elif before["backwards"] or before["broken"] or boot not in before["others"]:
            yield f"one member of the pod is not of the other's time: {before}"

    def _judge_watcher(self, verdict: Verdict) -> None:
        self._end_watcher()
        seen = self.seen()
        # Who goes back to the switchover knows that what was said since is lost, once.
        if len(seen.get("backwards", ())) > (self._method == ROLLBACK):
            verdict.wrong.append(f"two copies answered: counts {seen['backwards'][:3]}")
        if seen.get("returned"):
            verdict.wrong.append("two copies answered: an old boot came back")
        if len(seen.get("boots", ())) > 1 and verdict.outcome == "target":
            verdict.outcome = "anew on the target"
        if len(seen.get("boots", ())) > 1 and verdict.outcome == "source":
            verdict.outcome = "anew on the source"
        verdict.gap_s = round(float(seen.get("longest_gap_s", 0.0)), 2)
        if verdict.outcome == "source" and seen.get("gap_at", 0) <= self.struck_at:
            verdict.thawed_s = round(max(0.0, seen["gap_at"] + seen["longest_gap_s"] - self.struck_at), 2)

    def _end_watcher(self) -> None:
        if self._watcher is not None and self._watcher.poll() is None:
            self._watcher.terminate()
            self._watcher.wait(30)

    def put_away(self) -> None:
        """Remove the container, so that the next cell has the same stage; a bad one is cleaned then."""
        self.close()
        if not self._ready:
            return
        for host in (self.source, self.target):
            if host.running:
                host.run(["podman", "pod", "rm", "--all", "--force", "--time=0"], check=False)
                host.run(["podman", "rm", "--all", "--force", "--time=0"], check=False)
                host.run(["podman", "volume", "rm", "--all", "--force"], check=False)


def talked(lab: Lab) -> dict[str, Any]:
    """Return what the talker of a pod has seen so far; nothing when it does not answer."""
    script = (
        "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 2); s.settimeout(5); "
    )
    script += "print(s.makefile().readline())"
    asked = lab.client.run([sys.executable, "-c", script, ADDRESS, str(TALKER_PORT)], check=False)
    found: dict[str, Any] = json.loads(asked.output) if asked.status == 0 and asked.output.strip() else {}
    return found


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _told_to_freeze(cgroup: Path) -> bool:
    """Say whether a cgroup is to stand still; one that waits in the kernel for a page is not `frozen` yet."""
    own = [place for place in (cgroup, *cgroup.parents) if "libpod-" in str(place)]
    return any((place / "cgroup.freeze").read_text().strip() == "1" for place in own)


def _behind_gate(host: Host, pid: int) -> bool:
    """Say whether nobody hears this process (its pid is the machine's)."""
    status = Path(f"/proc/{pid}/status").read_text()
    pids = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
    inside = pids[1]  # as the host counts
    listed = host.run(["nsenter", f"--net=/proc/{inside}/ns/net", "nft", "list", "tables"], check=False)
    return "lifeboat_gate" in listed.output


# --- the faults -----------------------------------------------------------------------------------------

DAEMON = "/usr/sbin/lifeboatd"
GUARD = "lifeboat-guard"


def _kill_host(host: Callable[[Cell], Host]) -> Callable[[Cell], None]:
    return lambda cell: host(cell).kill()


def _boot(host: Callable[[Cell], Host]) -> Callable[[Cell], None]:
    """Boot a host again once the other one has had the time to notice that it is gone."""

    def deed(cell: Cell) -> None:
        time.sleep(RECONNECT_LIMIT_S + 4)  # the fault itself: a host is down for this long
        name = host(cell).name
        cell.lab.boot(name)
        host(cell).wait_booted()
        host(cell).run(["systemctl", "unmask", "podman-restart.service"])  # the lab's root has it masked
        host(cell).run(["systemctl", "start", "podman-restart.service"], check=False, timeout_s=120)
        cluster.start_daemon(host(cell))

    return deed


def _cut(cell: Cell) -> None:
    cell.lab.cut("alpha", "beta")


def _cut_clients(cell: Cell) -> None:
    cell.lab.cut("alpha", "client")
    cell.lab.cut("beta", "client")


def _heal(seconds: float) -> Callable[[Cell], None]:
    def deed(cell: Cell) -> None:
        time.sleep(seconds)  # the fault itself: the cut lasts this long
        cell.lab.heal()

    return deed


def _fill(cell: Cell) -> None:
    script = "dd if=/dev/zero of=/var/lib/lifeboat/filled bs=64k 2>/dev/null; sync /var/lib/lifeboat/filled"
    cell.target.run(["sh", "-c", script], check=False)


def _empty(cell: Cell) -> None:
    time.sleep(RECONNECT_LIMIT_S / 2)  # the fault itself: the disk is full for this long
    cell.target.run(["rm", "-f", "/var/lib/lifeboat/filled"])


FAULTS = (
    Fault("source daemon", lambda cell: cell.kill(cell.source, DAEMON)),
    Fault("target daemon", lambda cell: cell.kill(cell.target, DAEMON)),
    Fault("source shim", lambda cell: cell.kill(cell.source, "migrator.shim")),
    Fault("target shim", lambda cell: cell.kill(cell.target, "migrator.shim")),
    Fault("page sink", lambda cell: cell.kill(cell.target, "migrator.pager")),
    Fault("page sink and guard", lambda cell: cell.kill(cell.target, GUARD, "migrator.pager")),
    Fault("CRIU", lambda cell: cell.kill_criu()),
    Fault("source host", _kill_host(lambda cell: cell.source), _boot(lambda cell: cell.source)),
    Fault("target host", _kill_host(lambda cell: cell.target), _boot(lambda cell: cell.target)),
    Fault("network between them, 3 s", _cut, _heal(3)),
    Fault("network between them, 20 s", _cut, _heal(20)),
    Fault("network to the clients, 3 s", _cut_clients, _heal(3)),
    Fault("disk full at the target", _fill, _empty, limited=True),
)


@contextmanager
def stage(lab: Lab, directory: Path, **options: Any) -> Iterator[Cell]:
    """Return a cell that is closed at the end."""
    cell = Cell(lab, directory, **options)
    try:
        yield cell
    finally:
        cell.put_away()
