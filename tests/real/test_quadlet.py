"""A container of Quadlet's moves with its unit, and systemd has it there as if it had started it."""

from __future__ import annotations

import pytest

from migrator.errors import CommandError
from tests.lab.host import Host
from tests.lab.image import BASE
from tests.lab.lab import Lab
from tests.lab.leftovers import leftovers
from tests.lab.people import FAILING_RUNC, inspect, migrate, shell, wait
from tests.lab.traffic import ask

pytestmark = pytest.mark.real

ADDRESS = "10.77.0.160"
FILES = {
    "web.container": f"""\
[Unit]
Description=a web server

[Container]
Image={BASE.name}
ContainerName=web
Network=lan
IP={ADDRESS}
Volume=rows.volume:/rows
AutoUpdate=local
StopTimeout=1
Exec=python3 /usr/local/bin/workload --memory 16 --database /rows/rows.db

[Service]
Restart=always

[Install]
WantedBy=multi-user.target
""",
    "web.container.d/10-more.conf": "[Container]\nLabel=shelf=top\n",
    "rows.volume": "[Volume]\nVolumeName=rows\n",
}


def properties(host: Host, *names: str) -> dict[str, str]:
    """Return what systemd says of the unit."""
    said = host.run(["systemctl", "show", "web.service", *(f"--property={name}" for name in names)]).output
    return dict(line.split("=", 1) for line in said.splitlines())


def has_unit(host: Host) -> None:
    """Assert that a unit runs the container on a host, by what its files say, and nothing of a move is left."""
    found = properties(
        host, "ActiveState", "SubState", "MainPID", "SourcePath", "DropInPaths", "Restart", "ExecStart"
    )
    assert (found["ActiveState"], found["SubState"]) == ("active", "running"), found
    assert found["SourcePath"] == "/etc/containers/systemd/web.container"
    assert found["Restart"] == "always"
    assert "podman run" in found["ExecStart"]
    assert "lifeboat" not in found["DropInPaths"], found
    state = inspect(host, "web")["State"]
    assert int(found["MainPID"]) == state["ConmonPid"]
    assert "/system.slice/web.service/libpod-payload-" in shell(host, f"cat /proc/{state['Pid']}/cgroup")
    assert shell(host, "ls /run/containers/systemd 2>/dev/null || true") == ""
    wants = "/run/systemd/generator/multi-user.target.wants/web.service"
    assert host.run(["test", "-L", wants], check=False).status == 0  # it starts at boot


def never_heard_of_it(host: Host) -> None:
    """Assert that nothing of a unit is on a host."""
    script = (
        "find /run/containers /etc/containers /run/systemd/system /etc/systemd/system -name 'web*' -o -name 'rows*'"
    )
    assert shell(host, script) == ""
    assert properties(host, "LoadState")["LoadState"] == "not-found"
    assert host.run(["systemctl", "is-system-running"], check=False).output.strip() == "running"


def has_none(host: Host) -> None:
    """Assert that a unit is at rest on a host, and that nobody who starts containers by himself starts it."""
    host.run(["systemctl", "unmask", "podman-restart.service"])  # the lab's root has it masked
    for starter in ("web.service", "podman-restart.service", "podman-auto-update.service"):
        host.run(["systemctl", "start", starter], timeout_s=60)
    assert properties(host, "ActiveState")["ActiveState"] == "inactive"
    assert host.run(["podman", "ps", "--all", "--quiet"]).output == ""
    assert host.run(["systemctl", "is-system-running"], check=False).output.strip() == "running"


def boot(lab: Lab) -> str:
    """Return which run of the workload answers, empty when none does."""
    try:
        return str(ask(lab, ADDRESS, "count")["boot"])
    except CommandError:
        return ""


def test_its_unit_moves_along(cluster: Lab) -> None:
    alpha, beta = cluster.host("alpha"), cluster.host("beta")
    for name, text in FILES.items():
        alpha.write(f"/etc/containers/systemd/{name}", text)
    alpha.write("/etc/containers/systemd/web.container", f"{FILES['web.container']}[Service]\nExecStartPre=true\n")
    alpha.run(["systemctl", "daemon-reload"])
    alpha.run(["systemctl", "start", "web.service"])
    wait("it to serve", lambda: boot(cluster) != "")
    first, identity = boot(cluster), inspect(alpha, "web")["Id"]

    refused = migrate(alpha, "web", "beta")
    assert refused.status == 3, refused.errors
    assert "it takes no unit that says web.container: ExecStartPre=true" in refused.errors
    alpha.write("/etc/containers/systemd/web.container", FILES["web.container"])
    alpha.run(["systemctl", "daemon-reload"])
    beta.write("/usr/local/bin/runc", FAILING_RUNC, mode=0o755)
    failed = migrate(alpha, "web", "beta")
    beta.run(["rm", "/usr/local/bin/runc"])
    assert "CRIU cannot restore this container" in failed.errors
    assert boot(cluster) == first
    never_heard_of_it(beta)
    moved = migrate(alpha, "web", "beta")
    assert moved.status == 0, moved.errors
    assert ask(cluster, ADDRESS, "verify")["wrong_now"] == 0
    assert boot(cluster) == first
    has_unit(beta)
    has_none(alpha)
    for name, text in FILES.items():
        assert beta.read(f"/etc/containers/systemd/{name}") == text

    beta.run(["systemctl", "restart", "web.service"], timeout_s=60)
    assert inspect(beta, "web")["Id"] != identity
    cluster.forget_neighbours()  # podman gives it another MAC, and announces nothing
    wait("the new one to serve", lambda: boot(cluster) not in ("", first))
    moved = migrate(beta, "web", "alpha")
    assert moved.status == 0, moved.errors
    has_unit(alpha)
    has_none(beta)
    for host in (alpha, beta):
        assert leftovers(host) == []
    beta.kill()
    cluster.boot("beta")
    beta.wait_booted()
    has_none(beta)
