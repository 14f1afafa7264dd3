"""What the hosts of a lab say when a test has failed: kept beside the failure, as nobody can ask them later."""

from __future__ import annotations

import re
from collections.abc import Iterator

from migrator.errors import LifeboatError
from tests.lab.host import Host
from tests.lab.lab import Lab

TIMEOUT_S = 20.0
WORDS = 60  # lines of a daemon's log that are shown
LOG = "journalctl --unit=lifeboatd --no-pager --output=short-precise --lines=1500"
STACKS = f"systemctl kill --signal=USR1 --kill-whom=main lifeboatd && sleep 0.5; {LOG}"
PROCESSES = "ps -e --forest -o pid,stat,wchan:20,etimes,args --cols 160 --no-headers"
CONTAINERS = "podman ps --all --format '{{.Names}} {{.Status}}'"

_STACK = re.compile(r"\]: ( {2}File |(Current t|T)hread 0x)")
_FRAME = re.compile(r'/((?:migrator|watchdog)/\S+)\.py", line (\d+) in (\S+)')


def last_words(lab: Lab) -> Iterator[tuple[str, str]]:
    """Yield a title and a text, of each host that is up and each question; one that cannot be asked says why."""
    for host in lab.hosts.values():
        if host.running:
            log = _ask(host, STACKS).splitlines()
            yield (
                f"{host.name}: lifeboatd's log",
                "\n".join([line for line in log if not _STACK.search(line)][-WORDS:]),
            )
            yield f"{host.name}: what its threads do", "\n".join(threads(log))
            yield f"{host.name}: lifeboat history", _ask(host, "lifeboat history")
            yield f"{host.name}: containers", _ask(host, CONTAINERS)
            yield f"{host.name}: processes", _ask(host, PROCESSES)


def threads(log: list[str]) -> Iterator[str]:
    """Yield one line per thread, of those that are in our code: where it is, and who called, outwards."""
    frames: list[str] = []
    for line in [*(line for line in log if _STACK.search(line)), "Thread 0x"]:
        if found := _FRAME.search(line):
            frames.append(f"{found[1]}:{found[2]} {found[3]}")
        elif "hread 0x" in line:
            if frames:
                yield " < ".join(frames)
            frames = []


def _ask(host: Host, words: str) -> str:
    try:
        return host.run(["sh", "-c", f"{{ {words}; }} 2>&1"], timeout_s=TIMEOUT_S, check=False).output
    except (LifeboatError, OSError) as error:
        return f"nothing: {error}"
