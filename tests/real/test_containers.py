"""Containers as people run them: each moves, with all it holds, or is refused beforehand with the reason."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.lab.host import Host
from tests.lab.image import BASE
from tests.lab.lab import Lab
from tests.lab.people import FAILING_RUNC, WAIT_S, ask, check, inside, inspect, migrate, shell, start, wait

pytestmark = pytest.mark.real

EVERYTHING = (
    *("threads", "children", "deleted", "shared", "sysv", "unix", "tcp", "locks", "inotify", "events", "alarms"),
    *("terminal", "pidfd", "netlink", "locked", "environment", "tmpfs"),
)


def moved(lab: Lab, name: str) -> Host:
    """Move a container from alpha to beta, where all that it held is still right; return beta."""
    alpha, beta = lab.host("alpha"), lab.host("beta")
    result = migrate(alpha, name, "beta")
    assert result.status == 0, result.errors
    assert set(ask(beta, name).values()) == {"ok"}, ask(beta, name)
    assert alpha.run(["podman", "container", "exists", name], check=False).status == 1
    return beta


def test_everything_a_container_can_hold(cluster: Lab) -> None:
    """One container with most of what programs and podman's options bring."""
    alpha, beta = cluster.host("alpha"), cluster.host("beta")
    for host in (alpha, beta):
        host.run(["podman", "secret", "create", "sesame", "-"], stdin=b"open")
        host.write("/etc/motd", "the same on both\n")
        shell(host, "ln -sf motd /etc/linked")
    options = [
        *("--network", "lan6", "--ip", "10.77.0.150", "--ip6", "fd77::8050", "--hostname", "hosty"),
        *("--add-host", "elsewhere:10.0.0.9", "--dns", "10.0.0.8", "--shm-size", "128m", "--tty", "--init"),
        *(
            "--tmpfs",
            "/scratch:size=64m",
            "--mount",
            "type=tmpfs,destination=/other",
            "--env",
            "KEEPER_TMPFS=/scratch",
        ),
        *("--secret", "sesame", "--secret", "sesame,type=env,target=SESAME", "--env", "KEEPER_DIRECTORY=/data"),
        *(
            "--label",
            "shelf=top",
            "--annotation",
            "note=kept",
            "--ulimit",
            "nofile=5000:6000",
            "--cap-add",
            "NET_ADMIN",
        ),
        *("--health-cmd", "true", "--health-interval", "1s", "--restart", "always", "--stop-signal", "SIGINT"),
        *("--volume", "outer:/data", "--volume", "inner:/data/inner", "--volume", "/etc/linked:/etc/linked:ro"),
    ]
    start(alpha, "all", options, EVERYTHING)
    shell(alpha, "podman exec all sh -c 'echo kept > /data/inner/file'")
    before = inspect(alpha, "all")
    moved(cluster, "all")
    after = inspect(beta, "all")
    for key in ("Labels", "Annotations", "Env", "Hostname", "StopSignal", "Healthcheck"):
        assert after["Config"][key] == before["Config"][key], key
    for key in ("RestartPolicy", "Ulimits", "CapAdd", "Init", "ShmSize", "Binds", "Tmpfs"):
        assert unordered(after["HostConfig"][key]) == unordered(before["HostConfig"][key]), key
    assert inside(beta, "all", "cat", "/data/inner/file", "/etc/linked") == "kept\nthe same on both\n"
    assert inside(beta, "all", "cat", "/run/secrets/sesame") == "open"
    assert "fd770000000000000000000000008050" in inside(beta, "all", "cat", "/proc/net/if_inet6")
    assert alpha.run(["ping", "-c1", "-W2", "fd77::8050"], check=False).status == 0
    its_health_check_came_along(alpha, beta, before["Id"])


def its_health_check_came_along(source: Host, target: Host, identifier: str) -> None:
    """Assert that the timer went from one host to the other, and goes with the container."""
    assert identifier not in shell(
        source, "systemctl list-units --all --plain --no-legend; ls /run/systemd/transient"
    )
    wait("the health check's timer", lambda: len(health(target, "all")["Log"] or ()) > 1)
    assert health(target, "all")["Status"] == "healthy"
    shell(target, "podman rm --force --time=0 all")
    assert identifier not in shell(target, "systemctl list-units --all --plain --no-legend '*.timer'")


def health(host: Host, name: str) -> dict[str, Any]:
    """Return what podman knows of a container's health; all of it has been found out on this host."""
    found: dict[str, Any] = inspect(host, name)["State"]["Health"]
    return found


def unordered(value: object) -> object:
    """Return a list sorted, for podman keeps no order of mounts; anything else as it is."""
    return sorted(value, key=str) if isinstance(value, list) else value


def test_one_that_removes_itself_and_a_read_only_one(cluster: Lab) -> None:
    alpha = cluster.host("alpha")
    start(alpha, "brief", ["--network=none", "--rm", "--read-only", "--volume", "/anonymous"], ["children"])
    beta = moved(cluster, "brief")
    shell(beta, "kill -9 $(podman inspect --format '{{.State.Pid}}' brief)")  # its monitor alone sees to the rest
    wait("podman to remove it", lambda: "brief" not in shell(beta, "podman ps --all --format '{{.Names}}'"))


def test_one_with_cgroups_of_its_own(cluster: Lab) -> None:
    """Its first process sits in one of them, as systemd's does; all of the container is frozen, moved and ended."""
    alpha = cluster.host("alpha")
    start(alpha, "nested", ["--network=none", "--systemd=always"], ["children", "cgroups"])
    assert set(ask(alpha, "nested").values()) == {"ok"}
    top = shell(alpha, "find /sys/fs/cgroup -type d -name 'libpod-*' -exec test -d {}/first ';' -print").strip()
    beta = moved(cluster, "nested")
    assert shell(alpha, f"test -e {top} || echo gone") == "gone\n"
    shell(beta, "podman rm --force --time=0 nested")
    assert shell(beta, f"test -e {top} || echo gone") == "gone\n"


def test_networks_whose_addresses_do_not_move_along(cluster: Lab) -> None:
    """A bridge with a published port answers at the target; beside it a macvlan keeps its address."""
    alpha, beta = cluster.host("alpha"), cluster.host("beta")
    workload = [BASE.name, "python3", "/usr/local/bin/workload", "--memory", "8"]
    alpha.run(
        ["podman", "run", "--detach", "--name", "web", "--network", "podman", "--publish", "8080:7000", *workload]
    )
    networks = ["--network", "podman", "--network", "lan:ip=10.77.0.151"]
    alpha.run(["podman", "run", "--detach", "--name", "two", "--restart=always", *networks, *workload])
    wait("them to serve", lambda: answers(cluster, alpha.address, 8080) and answers(cluster, "10.77.0.151", 7000))
    said = check(cluster, "web")["notes"]
    assert any("connections through podman end" in note for note in said), said
    held = cluster.client.spawn([sys.executable, "-c", HOLD, alpha.address, "8080"])
    assert held.stdout is not None
    assert held.stdout.readline() == b"answered\n"
    for name in ("web", "two"):
        result = migrate(alpha, name, "beta")
        assert result.status == 0, result.errors
    assert held.communicate(timeout=WAIT_S)[0] == b"ConnectionResetError\n"
    namespace = inspect(beta, "web")["NetworkSettings"]["SandboxKey"]
    assert shell(beta, f"nsenter --net={namespace} ss -Htn state established") == ""
    assert answers(cluster, beta.address, 8080)
    assert answers(cluster, "10.77.0.151", 7000)
    assert not answers(cluster, alpha.address, 8080)
    shell(beta, "kill -9 $(podman inspect --format '{{.State.Pid}}' two)")
    wait("podman to restart it", lambda: inspect(beta, "two")["RestartCount"] == 1)
    cluster.client.run(["ip", "neigh", "flush", "dev", "eth0"])  # podman gave it a new MAC, and announces none
    wait("the restarted one to answer", lambda: answers(cluster, "10.77.0.151", 7000))


HOLD = """
import socket, sys
link = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
link.sendall(b"count\\n")
print("answered" if link.recv(1000) else "closed", flush=True)
link.settimeout(120)
try:
    print("closed" if not link.recv(1000) else "answered again")
except OSError as error:
    print(type(error).__name__)
"""
"""Waits, on one connection, for what will happen to it."""


def answers(lab: Lab, address: str, port: int) -> bool:
    """Say whether the workload answers there."""
    script = (
        "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 2); "
        "s.sendall(b'count\\n'); sys.exit(not s.recv(100))"
    )
    return lab.client.run(["python3", "-c", script, address, str(port)], check=False).status == 0


REFUSED: dict[str, tuple[list[str], list[str], str, str]] = {
    "hostnet": (["--network=host"], [], "host-network", "shares the host's network namespace"),
    "hostpid": (["--network=none", "--pid=host"], [], "host-pid", "shares the host's pid namespace"),
    "hostipc": (["--network=none", "--ipc=host"], [], "host-ipc", "shares the host's ipc namespace"),
    "device": (["--network=none", "--device=/dev/kmsg"], [], "device", "uses the device /dev/kmsg"),
    "bind": (
        ["--network=none", "-v", "/srv/bound:/bound"],
        [],
        "bind-mount",
        "bind mount /srv/bound is on this host's",
    ),
    "image": (
        ["--network=none", "--mount", f"type=image,source={BASE.name},destination=/image"],
        *([], "image-mount", "mounts the image"),
    ),
    "ring": (
        ["--network=none", "--security-opt=seccomp=unconfined"],
        *(["io_uring"], "not-dumpable", "holds an io_uring"),
    ),
    "counter": (["--network=none", "--privileged"], ["perf"], "not-dumpable", "holds a performance counter"),
    "faulty": (["--network=none", "--privileged"], ["userfault"], "not-dumpable", "holds a userfaultfd"),
    "hidden": (
        ["--network=none", "--security-opt=seccomp=unconfined"],
        *(["secret_memory"], "not-dumpable", "uses secret memory"),
    ),
    "stream": (
        ["--network=none", "-v", "/run/systemd/journal:/host"],
        *(["host_stream"], "not-dumpable", "is connected by a Unix socket to systemd"),
    ),
    "datagrams": (
        ["--network=none", "-v", "/run/systemd/journal:/host"],
        *(["host_datagrams"], "not-dumpable", "is connected by a Unix socket to systemd"),
    ),
    "called": (
        ["--network=none", "-v", "/srv/called:/called"],
        *(["host_called"], "not-dumpable", "is connected by a Unix socket to python3"),
    ),
}

CALLER = """
import socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect("/srv/called/s")
print("called", flush=True)
sys.stdin.read()
"""


def test_a_throwaway_container_proves_the_way(cluster: Lab) -> None:
    """`lifeboat check --deep` moves one, and leaves nothing of it; it finds what facts cannot tell."""
    alpha, beta = cluster.host("alpha"), cluster.host("beta")
    first = alpha.run(["lifeboat", "check", "--deep"], timeout_s=120, check=False)
    assert first.status == 0, first.errors + first.output
    for host in (alpha, beta):
        left = "podman ps --all --format '{{.Names}}'; podman images --format '{{.Repository}}'; "
        left += "ls /var/lib/lifeboat/tombstones /run/lifeboat/migrations 2>/dev/null"
        assert "probe" not in shell(host, f"{left} || true")
    beta.write("/usr/local/bin/runc", FAILING_RUNC, mode=0o755)
    try:
        failed = alpha.run(["lifeboat", "check", "--deep", "--to", "beta", "--json"], timeout_s=120, check=False)
        assert failed.status == 3
        (probe,) = json.loads(failed.output)
        assert not probe["moved"]
        assert "CRIU cannot restore this container" in probe["reason"]
    finally:
        shell(beta, "rm -f /usr/local/bin/runc")
    assert shell(alpha, "podman ps --all --quiet") == ""


def test_what_cannot_move_is_known_beforehand(cluster: Lab) -> None:
    alpha = cluster.host("alpha")
    shell(alpha, "mkdir -p /srv/bound /srv/called")
    for name, (options, features, _, _) in REFUSED.items():
        start(alpha, name, options, features or ["environment"])
    caller = alpha.spawn(["python3", "-c", CALLER], stdin=subprocess.PIPE)
    assert caller.stdout is not None
    assert caller.stdout.readline() == b"called\n"
    start(alpha, "lender", ["--network=none"], ["environment"])
    guest = ["podman", "run", "--detach", "--name", "guest", "--network=container:lender", BASE.name]
    alpha.run([*guest, "sleep", "1000"])
    said = alpha.run(["lifeboat", "check", "--json"], check=False)
    assert said.status == 3
    rows = {row["container"]: row for row in json.loads(said.output)}
    for name, (_, _, code, reason) in REFUSED.items():
        assert not rows[name]["movable"], name
        found = rows[name]["obstacles"]
        assert any(item["code"] == code and reason in item["reason"] for item in found), (name, found)
    assert [item["code"] for item in rows["guest"]["obstacles"]] == ["joined-namespace"]
    assert [item["code"] for item in rows["lender"]["obstacles"]] == ["shared-namespace"]
    for name in ("hostnet", "ring"):
        refused = migrate(alpha, name, "beta")
        assert refused.status == 3, name
        assert REFUSED[name][3] in refused.errors
        assert set(ask(alpha, name).values()) == {"ok"}
    assert cluster.host("beta").run(["podman", "ps", "--all", "--quiet"]).output == ""
    caller.communicate(timeout=20)
