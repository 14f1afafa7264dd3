"""Making a lab as good as new between two tests, in less time than a new one takes."""

from __future__ import annotations

from migrator.errors import LifeboatError
from tests.lab import cgroups, signals
from tests.lab.host import Host
from tests.lab.lab import Lab

TIMEOUT_S = 20.0

STATE_OF_LIFEBOAT = ("/var/lib/lifeboat", "/run/lifeboat", "/etc/lifeboat/pki", "/etc/lifeboat/policies")


def clean(lab: Lab) -> None:
    """End all that a test left running and remove what it left behind; a host that resists is replaced."""
    cgroups.remove(lab.programs)
    cgroups.create(lab.programs)
    lab.heal()
    lab.forget_neighbours()
    for host in lab.hosts.values():
        try:
            clean_host(host)
        except LifeboatError as error:
            print(f"lab: {host.name} is replaced, because it cannot be cleaned: {error}")
            lab.renew(host.name)


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
