"""The lab is what it says: whole hosts, one network, and nothing left of them afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from migrator.errors import CommandError
from tests.lab import cgroups, drives, signals, state
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.settings import CHECKOUT, DATA, STATE
from tests.lab.traffic import Traffic, ask
from tests.lab.witness import last_words

pytestmark = pytest.mark.real

ADDRESS = "10.77.0.130"
RUN = ["podman", "run", "--detach", "--name=w", "--network=lan", f"--ip={ADDRESS}", "lifeboat-base:1"]
WORKLOAD = [*RUN, "python3", "/usr/local/bin/workload", "--memory=32"]


def eventually(condition: Callable[[], bool], timeout_s: float = 20) -> bool:
    """Wait until a condition holds; tell whether it did."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def start_workload(lab: Lab, host: Host) -> None:
    """Run the workload and wait until it serves."""
    host.run(WORKLOAD)
    assert eventually(lambda: "serving" in host.run(["podman", "logs", "w"]).output)
    assert ask(lab, ADDRESS)["wrong_now"] == 0


def test_hosts_run_systemd_and_reach_each_other(lab: Lab) -> None:
    for host in lab.hosts.values():
        assert host.run(["cat", "/proc/1/comm"]).output.strip() == "systemd"
        assert host.run(["hostname"]).output.strip() == host.name
        assert host.run(["systemctl", "is-system-running"]).output.strip() == "running"
    for address in ("beta", "10.77.0.2", "fd77::2", "10.77.0.254", "fd77::fe"):
        lab.host("alpha").run(["ping", "-c1", "-W5", address])


def test_a_host_is_isolated(lab: Lab) -> None:
    host = lab.host("alpha")
    assert host.path("/etc/machine-id").read_text() != lab.host("beta").path("/etc/machine-id").read_text()
    assert host.run(["cat", "/proc/self/cgroup"]).output.splitlines()[-1] == "0::/lab"
    pids = [int(pid) for pid in host.run(["ps", "-e", "-o", "pid="]).output.split()]
    assert 1 in pids
    assert len(pids) < 60
    assert str(CHECKOUT) not in host.run(["cat", "/proc/self/mountinfo"]).output


def test_a_container_answers_the_client(lab: Lab) -> None:
    start_workload(lab, lab.host("alpha"))
    first = ask(lab, ADDRESS)
    assert first["verified"] == 32 * 256
    assert ask(lab, ADDRESS)["boot"] == first["boot"]


def test_the_image_is_the_same_everywhere(lab: Lab) -> None:
    inspect = ["podman", "image", "inspect", "--format={{.Id}}", "lifeboat-base:1"]
    assert len({host.run(inspect).output for host in lab.hosts.values()}) == 1


def test_a_connection_survives_podmans_own_move(lab: Lab, tmp_path: Path) -> None:
    alpha, beta = lab.host("alpha"), lab.host("beta")
    start_workload(lab, alpha)
    with Traffic(lab, ADDRESS, tmp_path / "client.json") as traffic:
        checkpoint = ["podman", "container", "checkpoint", "w", "--tcp-established", "--compress=none"]
        alpha.run([*checkpoint, "--export=/root/w.tar"])
        beta.write("/root/w.tar", alpha.path("/root/w.tar").read_bytes())
        alpha.run(["podman", "rm", "w"])
        beta.run(["podman", "container", "restore", "--import=/root/w.tar", "--tcp-established"])
        before = traffic.report()["answers"]
        assert eventually(lambda: traffic.report()["answers"] > before + 10)
        report = traffic.stop()
    assert report["connected"]
    assert report["resets"] == 0
    assert len(report["boots"]) == 1
    assert ask(lab, ADDRESS)["wrong_now"] == 0


def test_the_client_notices_a_restart(lab: Lab, tmp_path: Path) -> None:
    alpha = lab.host("alpha")
    start_workload(lab, alpha)
    with Traffic(lab, ADDRESS, tmp_path / "client.json") as traffic:
        alpha.run(["podman", "restart", "--time=0", "w"])
        assert eventually(lambda: not traffic.running)
        report = traffic.stop()
    assert not report["connected"]
    assert report["error"] != ""


def test_the_workload_notices_lost_pages(lab: Lab) -> None:
    """Zeroed memory is what a lost page source leaves behind, so the workload has to see zeros as wrong."""
    alpha = lab.host("alpha")
    start_workload(lab, alpha)
    pid = int(alpha.run(["podman", "inspect", "--format={{.State.Pid}}", "w"]).output)
    alpha.run(["python3", "-c", ZERO_A_PAGE, str(pid)])
    assert ask(lab, ADDRESS)["wrong_now"] == 1


ZERO_A_PAGE = """
import re, sys
pid = sys.argv[1]
for line in open(f"/proc/{pid}/maps"):
    start, end = (int(number, 16) for number in line.split()[0].split("-"))
    if end - start >= 32 << 20 and " rw-p " in line:
        with open(f"/proc/{pid}/mem", "r+b", 0) as memory:
            memory.seek(start)
            head = memory.read(8)
            base = start
            while int.from_bytes(head, "little") != 1:
                base += 4096
                memory.seek(base)
                head = memory.read(8)
            memory.seek(base + 7 * 4096)
            memory.write(bytes(4096))
        break
"""


def test_cutting_and_healing_the_network(lab: Lab) -> None:
    ping = ["ping", "-c1", "-W1", "10.77.0.2"]
    lab.cut("alpha", "beta")
    assert lab.host("alpha").run(ping, check=False).status != 0
    lab.host("alpha").run(["ping", "-c1", "-W5", "10.77.0.254"])
    lab.heal()
    lab.host("alpha").run(["ping", "-c1", "-W5", "10.77.0.2"])  # who has it is asked again once a second


def test_a_killed_host_boots_again_with_its_files(lab: Lab) -> None:
    beta = lab.host("beta")
    beta.write("/root/kept", "yes")
    beta.run(["podman", "create", "--name=kept", "lifeboat-base:1"])
    beta.kill()
    assert not beta.running
    assert lab.host("alpha").run(["ping", "-c1", "-W1", "10.77.0.2"], check=False).status != 0
    lab.boot("beta")
    beta.wait_booted()
    assert beta.read("/root/kept") == "yes"
    assert "kept" in beta.run(["podman", "ps", "--all", "--format={{.Names}}"]).output
    lab.host("alpha").run(["ping", "-c1", "-W5", "10.77.0.2"])


def test_a_program_in_a_host_names_the_host_when_it_fails(lab: Lab) -> None:
    with pytest.raises(CommandError, match="on beta: ls:"):
        lab.host("beta").run(["ls", "/no/such/place"])


def test_smartctl_answers_with_the_recorded_drive(lab: Lab) -> None:
    host = lab.host("alpha")
    signals.install_smartctl(host)
    signals.set_drive(host, drives.ata_drive("sda"))
    listed = json.loads(host.run(["smartctl", "--scan-open", "--json"]).output)
    assert [device["name"] for device in listed["devices"]] == ["/dev/sda"]
    signals.set_drive(host, drives.ata_drive("sda", passed=False, pending=48))
    read = host.run(["smartctl", "--json=c", "-n", "standby,3", "-x", "/dev/sda"], check=False)
    assert read.status == 24
    assert json.loads(read.output)["smart_status"]["passed"] is False
    signals.remove_drive(host, "sda")
    assert host.run(["smartctl", "--json=c", "-x", "/dev/sda"], check=False).status == 2


def test_pysmart_discovers_the_recorded_drives(lab: Lab) -> None:
    host = lab.host("alpha")
    signals.install_smartctl(host)
    signals.set_drive(host, drives.ata_drive("sda", serial="S1"))
    signals.set_drive(host, drives.nvme_drive("nvme0", serial="N1"))
    code = "from pySMART import DeviceList as L; print([(d.name, d.serial, d.model) for d in L().devices])"
    found = host.run(["/usr/lib/lifeboat/venv/bin/python", "-c", code]).output.strip()
    assert found == str([("nvme0", "N1", "LAB NV1000"), ("sda", "S1", "LAB HD4000")])


def test_sysfs_trees_are_seen_by_a_confined_service(lab: Lab) -> None:
    host = lab.host("alpha")
    signals.set_tree(host, "edac", signals.dimm(corrected=5))
    signals.set_tree(host, "hwmon", signals.processor_temperature(71.5))
    confined = ["systemd-run", "--pipe", "--quiet", "-p", "ProtectSystem=strict", "-p", "PrivateTmp=yes"]
    files = ["/sys/devices/system/edac/mc/mc0/dimm0/dimm_ce_count", "/sys/class/hwmon/hwmon0/temp1_input"]
    assert host.run([*confined, "cat", *files]).output.split() == ["5", "71500"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("delay_s", [0.3, 0.9])
def test_nothing_is_left_when_bringing_up_is_broken_off(number: signal.Signals, delay_s: float) -> None:
    """The delays fall into the beginning and the middle of booting; any other time has to do as well."""
    name = f"broken-{os.getpid()}"
    argv = [sys.executable, "-m", "tests.lab", "--name", name, "up"]
    owner = subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(delay_s)
    owner.send_signal(number)
    owner.wait(60)
    subprocess.run([*argv[:-1], "down"], cwd=CHECKOUT, check=True, timeout=60, stdout=subprocess.DEVNULL)
    assert not any(path.exists() for path in (cgroups.lab_cgroup(name), DATA / name, STATE / name))


def test_nothing_is_left_when_the_owner_is_killed() -> None:
    name = f"orphan-{os.getpid()}"
    code = f"from tests.lab.lab import Lab\nLab(1, name={name!r}).up()\nprint('up', flush=True)\ninput()"
    owner = subprocess.Popen(
        [sys.executable, "-c", code], cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    assert any(line.strip() == b"up" for line in owner.stdout)
    inside = [state.identity(pid) for pid in cgroups.processes(cgroups.lab_cgroup(name))]
    assert len(inside) > 3
    owner.kill()
    owner.communicate()
    assert name in state.clear_abandoned()
    assert not any(process.alive for process in inside)
    assert not any(path.exists() for path in (cgroups.lab_cgroup(name), DATA / name, STATE / name))
    assert name not in Path("/proc/self/mountinfo").read_text()


def test_the_workload_can_be_told_to_stop(lab: Lab) -> None:
    alpha = lab.host("alpha")
    start_workload(lab, alpha)
    ask(lab, ADDRESS, "stop")
    assert eventually(lambda: "Exited (0)" in alpha.run(["podman", "ps", "-a"]).output)


def test_a_cluster_runs_lifeboatd_on_each_host(cluster: Lab) -> None:
    for host, other in (("alpha", "beta"), ("beta", "alpha")):
        status = json.loads(cluster.host(host).run(["lifeboat", "status", "--json"]).output)
        assert status["host"] == host
        assert [peer["name"] for peer in status["peers"]] == [other]


def test_a_failure_is_told_with_what_lifeboatd_was_doing(cluster: Lab) -> None:
    told = dict(last_words(cluster))
    assert "daemon/daemon" in told["alpha: what its threads do"]
    assert "Started lifeboatd.service" in told["alpha: lifeboatd's log"]
    assert "most recent call first" not in told["alpha: lifeboatd's log"]
    assert cluster.host("alpha").run(["systemctl", "is-active", "lifeboatd"]).status == 0
