"""Making a lab as good as new between two tests, in less time than a new one takes."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from migrator.errors import ExecutionError, LifeboatError
from tests.lab import cgroups, signals
from tests.lab.host import Host
from tests.lab.lab import Lab, in_parallel
from tests.lab.leftovers import leftovers

TIMEOUT_S = 20.0

STATE_OF_LIFEBOAT = ("/var/lib/lifeboat", "/run/lifeboat", "/etc/lifeboat/pki", "/etc/lifeboat/policies")


def clean(lab: Lab) -> None:
    """End all that a test left running and remove what it left behind; a host that resists is replaced."""
    cgroups.remove(lab.programs)
    cgroups.create(lab.programs)
    lab.heal()
    lab.forget_neighbours()
    troubles: dict[str, str] = {}

    def try_to_clean(host: Host) -> None:
        try:
            clean_host(host)
        except LifeboatError as error:
            troubles[host.name] = str(error)

    in_parallel(try_to_clean, lab.hosts.values())
    for name, trouble in troubles.items():  # one after another, for the lab notes each
        print(f"lab: {name} is replaced, because it cannot be cleaned: {trouble}")
        lab.renew(name)


def end_unfinished(host: Host) -> bool:
    """Kill the programs of migrations that have not ended; return whether there were any.

    A parked podman keeps podman's lock, for which the next one would wait until it is given up.
    """
    deadline = time.monotonic() + TIMEOUT_S
    found = False
    while pids := _unfinished(host):
        found = True
        if time.monotonic() > deadline:
            raise ExecutionError(f"a migration's programs {pids} do not end", code="lab-timeout")
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return found


def _unfinished(host: Host) -> list[int]:
    """Return the pids, as the machine counts, of what runs in the scopes of migrations, but for podman's monitors.

    The monitor of a container that came stays in the scope in which podman was started.
    """
    found = []
    for side in ("source", "target"):
        for scope in cgroups.tree(host.cgroup):
            if not fnmatch(scope.name, f"lifeboat-{side}-*.scope"):
                continue
            with suppress(OSError):
                for pid in (scope / "cgroup.procs").read_text().split():
                    with suppress(OSError):
                        if Path(f"/proc/{pid}/comm").read_text() != "conmon\n":
                            found.append(int(pid))
    return found


END_SINKS = """
systemctl list-units --plain --no-legend 'lifeboat-sink-*' 'lifeboat-guard-*' | while read -r unit rest; do
    systemctl kill --signal=KILL "$unit" || true
done
"""


def end_sinks(host: Host) -> None:
    """End the page sinks that outlived their daemon: those that a human was to see to are nobody's any more."""
    host.run(["sh", "-c", END_SINKS], timeout_s=TIMEOUT_S)


FORGET_UNITS = """
cd /etc/containers/systemd 2>/dev/null || exit 0
for file in *.container; do systemctl stop "${file%.container}.service"; done
rm -rf /etc/containers/systemd /run/containers/systemd /etc/systemd/system/*.service.d/50-lifeboat-moved.conf
systemctl daemon-reload
"""


def forget_units(host: Host) -> None:
    """Stop what Quadlet started, and remove its files and what lifeboat wrote beside them."""
    host.run(["sh", "-c", FORGET_UNITS], timeout_s=TIMEOUT_S)


def clean_host(host: Host) -> None:
    """Remove containers, drives, trees and lifeboat's state of a host; raises when something resists."""
    if host.run(["systemctl", "is-active", "lifeboatd.service"], check=False).status == 0:
        host.run(["systemctl", "stop", "lifeboatd.service"], timeout_s=TIMEOUT_S)
    ended = end_unfinished(host)
    forget_units(host)
    end_sinks(host)
    host.run(["podman", "pod", "rm", "--all", "--force", "--time=0"], timeout_s=TIMEOUT_S)
    host.run(["podman", "rm", "--all", "--force", "--time=0"], timeout_s=TIMEOUT_S)
    host.run(["podman", "volume", "rm", "--all", "--force"], timeout_s=TIMEOUT_S)
    for place in signals.PLACES:
        signals.remove_tree(host, place)
    signals.remove_all_drives(host)
    for directory in STATE_OF_LIFEBOAT:
        host.run(["find", directory, "-mindepth", "1", "-delete"], timeout_s=TIMEOUT_S, check=False)
    host.run(["rm", "-f", "/etc/lifeboat/lifeboat.toml", "/etc/lifeboat/peers.json"], timeout_s=TIMEOUT_S)
    host.run(["systemctl", "reset-failed"], timeout_s=TIMEOUT_S)
    if ended and (left := leftovers(host)):
        raise ExecutionError(f"a migration left {'; '.join(left)}", code="lab-leftovers")
