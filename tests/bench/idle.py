"""`./run bench idle`: what the daemon costs a host on which nothing happens.

The real daemon, from this checkout, in a mount namespace of its own: 24 disks (a smartctl that prints a recorded
drive), 64 DIMMs in 8 controllers, 200 temperature sensors in 10 chips, two md arrays, 16 thermal zones, 64
processors with throttle counters, over the machine's own /sys, with default settings and the shipped policies. It
is left alone for a while, and then its processor time and memory are taken from /proc; that of the programs it
starts is told apart. `--flood N` has a process write N lines a second into the kernel log meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.lab.drives import ata_drive, nvme_drive

CHECKOUT = Path(__file__).parents[2]
CLUSTER = ("cluster", "init", "--host", "bench", "--address", "127.0.0.1")
UNIT = CHECKOUT / "systemd/lifeboatd.service"
PAGE = CHECKOUT / "docs/bench-idle.md"
DISKS, DIMMS, SENSORS = 24, 64, 200
CONTROLLERS, CHIPS, ZONES, PROCESSORS = 8, 10, 16, 64
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
START_S = 60.0
MOST_PERCENT, MOST_MIB = 1.0, 80.0
LINE_LIMIT = Path("/proc/sys/kernel/printk_devkmsg")  # by default the kernel lets a program write a few lines only

SMARTCTL = """#!/bin/sh
# Prints what was recorded; a shell script, so that it costs about as much as the real program.
case "$1" in
--scan-open) cat {place}/scan ;;
*) for last; do :; done; cat "{place}/${{last##*/}}.json" ;;
esac
"""


def main(argv: list[str]) -> int:
    """Run the bench; return its exit status."""
    arguments = parse(argv)
    if arguments.inside is None:
        return enter(argv)
    build(arguments.inside)
    result = measure(arguments)
    publish(result, arguments, PAGE, page)
    good = result["daemon_percent_of_a_core"] < MOST_PERCENT and result["resident_mib"] < MOST_MIB
    return 0 if good or arguments.flood else 1


def publish(
    result: dict[str, Any], arguments: argparse.Namespace, place: Path, page: Callable[[dict[str, Any]], str]
) -> None:
    """Print what was found, and write it where `--json` and `--page` say."""
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    if arguments.page:
        place.write_text(page(result))


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="./run bench idle", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long it is watched")
    parser.add_argument("--settle", type=float, default=20.0, help="how long it is left alone before")
    parser.add_argument("--flood", type=int, default=0, help="lines written to the kernel log each second")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--page", action="store_true", help=f"write {PAGE.name}")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def enter(argv: list[str]) -> int:
    """Run the rest in a mount namespace of its own, which takes everything along when it ends."""
    with tempfile.TemporaryDirectory(prefix="bench-idle-") as directory:
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.bench", "idle"]
        return subprocess.run([*command, *argv, "--inside", directory], cwd=CHECKOUT, check=False).returncode


def build(base: Path) -> None:
    """Put the host together: trees over /sys, empty places for state and settings, drives and their smartctl."""
    real = base / "sys"
    real.mkdir()
    mount("--bind", "/sys", real)
    for place, trees in (("class", ("hwmon", "thermal")), ("devices/system", ("edac", "cpu")), ("block", ())):
        cover(Path("/sys") / place, real / place, trees)
    plant(Path("/sys/class/hwmon"), hwmon())
    plant(Path("/sys/class/thermal"), zones())
    plant(Path("/sys/devices/system/edac/mc"), dimms())
    plant(Path("/sys/devices/system/cpu"), throttles())
    plant(Path("/sys/block"), arrays())
    for place in ("/run", "/var/lib/lifeboat", "/etc/lifeboat", "/usr/lib/lifeboat"):
        Path(place).mkdir(parents=True, exist_ok=True)
        mount("-t", "tmpfs", "tmpfs", place)
    (Path("/usr/lib/lifeboat") / "policies").symlink_to(CHECKOUT / "policies")
    drives(Path("/run/bench-disks"))


def mount(*arguments: object) -> None:
    """Mount, or fail."""
    subprocess.run(["mount", *map(str, arguments)], check=True)


def cover(place: Path, real: Path, ours: tuple[str, ...]) -> None:
    """Lay an empty directory over a place of sysfs, with links to all that was there but for what is ours."""
    names = [path.name for path in real.iterdir() if path.name not in ours]
    mount("-t", "tmpfs", "tmpfs", place)
    for name in names:
        (place / name).symlink_to(real / name)


def plant(root: Path, files: Mapping[str, object]) -> None:
    """Write the files of a tree."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def hwmon() -> dict[str, object]:
    """Return the sensors."""
    found: dict[str, object] = {}
    for chip in range(CHIPS):
        found[f"hwmon{chip}/name"] = f"chip{chip}"
        for sensor in range(1, SENSORS // CHIPS + 1):
            found[f"hwmon{chip}/temp{sensor}_input"] = 40000 + 100 * sensor
            found[f"hwmon{chip}/temp{sensor}_max"] = 84000
            found[f"hwmon{chip}/temp{sensor}_crit"] = 100000
    return found


def zones() -> dict[str, object]:
    """Return the thermal zones."""
    found: dict[str, object] = {}
    for zone in range(ZONES):
        place = f"thermal_zone{zone}"
        found |= {f"{place}/type": "x86_pkg_temp", f"{place}/temp": 45000}
        found |= {f"{place}/trip_point_0_type": "critical", f"{place}/trip_point_0_temp": 105000}
    return found


def dimms() -> dict[str, object]:
    """Return the memory controllers."""
    found: dict[str, object] = {}
    for controller in range(CONTROLLERS):
        top = f"mc{controller}"
        found |= {f"{top}/mc_name": "Skylake Socket", f"{top}/ce_noinfo_count": 0, f"{top}/ue_noinfo_count": 0}
        for dimm in range(DIMMS // CONTROLLERS):
            place = f"{top}/dimm{dimm}"
            label = f"CPU_SrcID#0_MC#{controller}_Chan#{dimm}_DIMM#0"
            found |= {f"{place}/dimm_label": label, f"{place}/dimm_location": f"channel {dimm} slot 0"}
            found |= {f"{place}/size": 32768, f"{place}/dimm_ce_count": 0, f"{place}/dimm_ue_count": 0}
    return found


def throttles() -> dict[str, object]:
    """Return the throttle counters."""
    parts = ("core_throttle_count", "core_throttle_total_time_ms", "package_throttle_count")
    found: dict[str, object] = {}
    for processor in range(PROCESSORS):
        place = f"cpu{processor}"
        found |= {f"{place}/thermal_throttle/{part}": 0 for part in (*parts, "package_throttle_total_time_ms")}
        found[f"{place}/topology/physical_package_id"] = processor * 2 // PROCESSORS
    return found


def arrays() -> dict[str, object]:
    """Return two mirrors."""
    found: dict[str, object] = {}
    for number in range(2):
        top = f"md{number}/md"
        found |= {f"{top}/level": "raid1", f"{top}/raid_disks": 2, f"{top}/degraded": 0}
        found |= {f"{top}/array_state": "clean", f"{top}/sync_action": "idle"}
        found |= {f"{top}/dev-sd{letter}/errors": 0 for letter in "ab"}
    return found


def drives(place: Path) -> None:
    """Make the drives, half of them NVMe, and the smartctl that speaks for them."""
    place.mkdir()
    lines = []
    for number in range(DISKS):
        nvme = number % 2 == 1
        name = f"nvme{number}" if nvme else f"sd{chr(ord('a') + number)}"
        serial = f"BENCH{number:04}"
        drive: Mapping[str, Any] = nvme_drive(name, serial=serial) if nvme else ata_drive(name, serial=serial)
        (place / f"{name}.json").write_text(json.dumps(drive))
        (place / name).touch()
        lines.append(f"{place}/{name} -d {'nvme' if nvme else 'sat'} # {place}/{name}, a device")
    (place / "scan").write_text("\n".join(lines) + "\n")
    programs = place / "bin"
    programs.mkdir()
    (programs / "smartctl").write_text(SMARTCTL.format(place=place))
    (programs / "smartctl").chmod(0o755)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Start the daemon, leave it alone, and return what it has cost."""
    daemon = start_daemon()
    try:
        await_start(daemon)
        time.sleep(arguments.settle)
        limit = LINE_LIMIT.read_text()
        flood = start_flood(arguments.flood)
        before, began = processor_s(daemon.pid), time.monotonic()
        time.sleep(arguments.seconds)
        after, span_s = processor_s(daemon.pid), time.monotonic() - began
        used, threads = memory(daemon.pid), len(list(Path(f"/proc/{daemon.pid}/task").iterdir()))
        if flood is not None:
            flood.kill()
            flood.wait()
            LINE_LIMIT.write_text(limit)
        signals = all_signals()
        return {
            "host": host(),
            "watched_s": round(span_s, 1),
            "lines_a_second": arguments.flood,
            "signals": len(signals),
            "lines_lost": lost(signals),
            "daemon_percent_of_a_core": round(100 * (after[0] - before[0]) / span_s, 3),
            "programs_percent_of_a_core": round(100 * (after[1] - before[1]) / span_s, 3),
            "resident_mib": used["VmRSS"],
            "largest_resident_mib": used["VmHWM"],
            "threads": threads,
            "oldest_sensor_reading_s": max(
                item["age_s"] for item in signals if item["signal"] == "hwmon.temperature"
            ),
        }
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)


def start_daemon() -> subprocess.Popen[bytes]:
    """Start the daemon with the environment of its unit, as the first host of a cluster."""
    lines = UNIT.read_text().splitlines()
    unit = dict(
        line.removeprefix("Environment=").split("=", 1) for line in lines if line.startswith("Environment=")
    )
    path = f"/run/bench-disks/bin:{os.environ['PATH']}"
    programs = Path(sys.executable).parent
    subprocess.run([str(programs / "lifeboat"), *CLUSTER], check=True, stdout=subprocess.DEVNULL)
    command = [str(programs / "lifeboatd")]
    with Path("/run/lifeboatd.log").open("w") as log:
        return subprocess.Popen(command, env={**os.environ, **unit, "PATH": path}, stdout=log, stderr=log)


def await_start(daemon: subprocess.Popen[bytes]) -> None:
    """Wait until the daemon serves; how long it takes to start is not measured here."""
    deadline = time.monotonic() + START_S
    while not Path("/run/lifeboat/admin.sock").exists():
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the daemon does not start:\n{Path('/run/lifeboatd.log').read_text()}")
        time.sleep(0.2)


def all_signals() -> list[dict[str, Any]]:
    """Return what the daemon has read; fail when it is not every disk, DIMM and sensor.

    Asked only at the end, for the answer itself costs more memory than all that is read.
    """
    signals = ask("/v1/signals")
    names = [item["signal"] for item in signals]
    counts = (names.count("smart.health_failed"), names.count("edac.ue_count"), names.count("hwmon.temperature"))
    if counts != (DISKS, DIMMS + CONTROLLERS, SENSORS):
        log = Path("/run/lifeboatd.log").read_text()
        raise SystemExit(f"the daemon does not read this host, but {counts}:\n{log}")
    return signals


def start_flood(lines: int) -> subprocess.Popen[bytes] | None:
    """Begin to write lines into the kernel log."""
    if not lines:
        return None
    LINE_LIMIT.write_text("on\n")
    program = (
        "import os, time\n"
        "log = os.open('/dev/kmsg', os.O_WRONLY)\n"
        "while True:\n"
        "    began = time.monotonic()\n"
        f"    for number in range({lines} // 10):\n"
        "        os.write(log, b'bench: a line like many others, of some length, about nothing at all')\n"
        "    time.sleep(max(0.0, 0.1 - (time.monotonic() - began)))\n"
    )
    return subprocess.Popen([sys.executable, "-c", program])


def ask(path: str) -> list[dict[str, Any]]:
    """Ask the daemon; an empty answer while it is not ready."""
    command = ["curl", "--silent", "--unix-socket", "/run/lifeboat/admin.sock", f"http://lifeboat{path}"]
    said = subprocess.run(command, capture_output=True, check=False).stdout
    found: list[dict[str, Any]] = json.loads(said) if said else []
    return found


def lost(signals: list[dict[str, Any]]) -> float:
    """Return how many lines of the kernel log were overwritten before they were read."""
    return sum(float(item["value"] or 0) for item in signals if item["signal"] == "kernel.lost_lines")


def processor_s(pid: int) -> tuple[float, float]:
    """Return the processor time of a process, and of its children that have ended (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, children = map(int, fields[11:13]), map(int, fields[13:15])
    return sum(own) / TICKS_PER_S, sum(children) / TICKS_PER_S


def memory(pid: int) -> dict[str, float]:
    """Return the memory of a process in MiB."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {line[0].rstrip(":"): round(int(line[1]) / 1024, 1) for line in lines if line[0].startswith("Vm")}


def host() -> str:
    """Return what it was measured on."""
    kernel, python = platform.release(), platform.python_version()
    return f"{os.cpu_count()} processors, Linux {kernel}, Python {python}"


def page(result: Mapping[str, Any]) -> str:
    """Return the page in docs/."""
    return f"""# What the daemon costs while nothing happens

`./run bench idle --page` writes this page. {DISKS} disks, {DIMMS} DIMMs, {SENSORS} sensors, {ZONES} thermal zones,
{PROCESSORS} processors with throttle counters, two mirrors; default settings, shipped policies, a cluster of one.
Everything was read once at the start; then the daemon was watched for {result["watched_s"]:g} s.
Measured on {result["host"]}.

| what | measured | may be |
| --- | --- | --- |
| processor time of the daemon | {result["daemon_percent_of_a_core"]:g} % of one core | {MOST_PERCENT:g} % |
| processor time of the programs it starts | {result["programs_percent_of_a_core"]:g} % of one core | |
| resident memory | {result["resident_mib"]:g} MiB | {MOST_MIB:g} MiB |
| most resident memory since its start | {result["largest_resident_mib"]:g} MiB | |
| threads | {result["threads"]} | |
| signals read | {result["signals"]} | |

The disks' smartctl is a shell script that prints a recorded drive; what a real one costs is not in here.
"""
