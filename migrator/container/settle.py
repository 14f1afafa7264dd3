"""What podman does when it starts a container, and does not when it restores one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

from migrator.command import run
from migrator.container import quadlet
from migrator.container.describe import attachments
from migrator.container.probe import is_probe, remove_arrived
from migrator.errors import LifeboatError
from migrator.model import ContainerFacts
from migrator.runtime import podman

_log = logging.getLogger(__name__)

TIMEOUT_S = 15.0


def start_anew(name: str, start: Callable[[], object] | None = None) -> None:
    """Start a container from its files, and tell the neighbours where its addresses live now; podman does not.

    `start` is how, where not podman starts it. Raises only what starting raises.
    """
    if start is None:
        podman.start(name)
    else:
        start()
    tell_neighbours(name)


def tell_neighbours(name: str) -> None:
    """Announce the addresses of a container that runs here again, or anew.

    Untold, the neighbours went on sending to the old host, or hardware address, as long as their entries lasted.
    That they cannot be told is no reason to give up.
    """
    try:
        inspected = podman.inspect(name)
        pid = int(inspected["State"]["Pid"])
        networks = attachments(inspected, podman.network_drivers(), pid)
        namespace = f"/proc/{pid}/ns/net"
        program = [sys.executable, "-m", "migrator.network.announce", namespace]
        run([*program, *(network.model_dump_json() for network in networks)], timeout_s=TIMEOUT_S)
    except LifeboatError as error:
        _log.warning("%s runs, but its addresses are not announced: %s", name, error)


def start_missed(container: ContainerFacts) -> None:
    """Start what its policy, or its unit, would have started while a ban lay on it, and tell the neighbours."""
    if container.quadlet is not None:
        quadlet.start_by_policy(container.quadlet)
    else:
        podman.start_by_policy(container.name)
    if podman.is_running(container.name):
        tell_neighbours(container.name)


def settle(container: ContainerFacts) -> Iterator[str]:
    """Give a container that came what podman's restore leaves out; yields, in words, what differs from podman's."""
    if is_probe(container):
        remove_arrived(container)
        return
    runs = False  # also where podman cannot tell: what runs is left alone
    with suppress(LifeboatError):
        runs = podman.is_running(container.name)
    if not runs:  # it ended, or this host was down, while nothing might start it
        try:
            start_missed(container)
        except LifeboatError as error:
            yield f"it has ended, and could not be started again: {error}"
    if container.health_interval:
        try:
            podman.renew_health_check(container.id, container.health_interval)
            why = "" if has_timer(container) else "it does not say why"
        except LifeboatError as error:
            why = str(error)
        if why:
            yield f"podman makes no timer for the health check ({why}), so there is one of lifeboat's"
            own_timer(container)


def has_timer(container: ContainerFacts) -> bool:
    """Say whether systemd has a timer for the health check; podman only logs that it could not make one."""
    argv = ["systemctl", "list-units", "--plain", "--no-legend", f"{container.id}*.timer"]
    return container.id in run(argv, timeout_s=TIMEOUT_S).output


def own_timer(container: ContainerFacts) -> None:
    """Run the health check as podman's timer would (libpod, createTimer), until the container is gone."""
    unit = f"{container.id}-lifeboat"
    check = f"podman healthcheck run {container.id}"
    script = f"{check}; podman container exists {container.id} || systemctl stop {unit}.timer"
    timer = [f"--unit={unit}", "--on-active=1s", f"--on-unit-inactive={container.health_interval}"]
    timer.append("--timer-property=AccuracySec=1s")
    run(["systemd-run", "--quiet", "--collect", *timer, "sh", "-c", script], timeout_s=TIMEOUT_S)
