"""Makes the lab's hosts one cluster, by the commands an administrator would use."""

from __future__ import annotations

from migrator.errors import ExecutionError
from tests.lab import signals
from tests.lab.host import Host
from tests.lab.lab import Lab, in_parallel

SETTINGS = "/etc/lifeboat/lifeboat.toml"
BUNDLE = "/root/join.bundle"
START_TIMEOUT_S = 60.0


def start(lab: Lab, settings: str = "") -> None:
    """Install the lab's smartctl, write `settings` (TOML) in each host, form the cluster, start lifeboatd.

    The first host makes the cluster, and the others join it one after another, all before a daemon lives;
    raises when a command or the daemon fails, with the daemon's own last words.
    """
    first, *others = lab.hosts.values()
    for host in lab.hosts.values():
        signals.install_smartctl(host)
        host.write(SETTINGS, settings)
    first.run(["lifeboat", "cluster", "init", "--host", first.name, "--address", first.address])
    for host in others:
        join(first, host)
    starting = [first, *others]
    if len(others) > 1:  # an invitation tells of no later one: who starts asks the first host, which must be up
        start_daemon(starting.pop(0))
    in_parallel(start_daemon, starting)


def join(first: Host, host: Host) -> None:
    """Carry an invitation from the first host to another and join there."""
    invite = ["lifeboat", "cluster", "invite", host.name, "--address", host.address, "--output", BUNDLE]
    first.run(invite)
    host.write(BUNDLE, first.path(BUNDLE).read_bytes(), mode=0o600)
    host.run(["lifeboat", "cluster", "join", BUNDLE])


def start_daemon(host: Host) -> None:
    """Start lifeboatd under the host's systemd and wait for its readiness (Type=notify)."""
    started = host.run(["systemctl", "start", "lifeboatd.service"], timeout_s=START_TIMEOUT_S, check=False)
    if started.status != 0:
        words = host.run(["journalctl", "--unit=lifeboatd", "--no-pager", "--output=cat", "--lines=15"])
        raise ExecutionError(f"lifeboatd does not start on {host.name}:\n{words.output}", code="lab-daemon")
