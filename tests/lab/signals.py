"""Signals for lab hosts, by the real paths: smartctl's answers, and trees over sysfs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.lab.host import Host

SMARTCTL = Path(__file__).with_name("smartctl.py")
DRIVES = "/var/lib/lab-smart"
PLACES = {"edac": "/sys/devices/system/edac", "hwmon": "/sys/class/hwmon"}
TREES = "/run/lab-trees"


def install_smartctl(host: Host) -> None:
    """Put the lab's smartctl in the place of the real one."""
    host.write("/usr/sbin/smartctl", SMARTCTL.read_text(), mode=0o755)
    host.path(DRIVES).mkdir(parents=True, exist_ok=True)


def set_drive(host: Host, drive: Mapping[str, Any]) -> None:
    """Let smartctl in the host answer with this drive from now on (see `tests.lab.drives`).

    The device file is an empty plain file: it is there to be named, nothing opens it.
    """
    name = Path(drive["device"]["name"]).name
    device = host.path(f"/dev/{name}")
    if not device.exists():
        device.touch()
    host.write(f"{DRIVES}/{name}.json", json.dumps(drive))


def remove_drive(host: Host, name: str) -> None:
    """Let a drive vanish from the host."""
    host.path(f"{DRIVES}/{name}.json").unlink()
    host.path(f"/dev/{name}").unlink(missing_ok=True)


def remove_all_drives(host: Host) -> None:
    """Let every drive vanish; smartctl finds none until the next `set_drive`."""
    for file in host.path(DRIVES).glob("*"):
        host.path(f"/dev/{file.stem}").unlink(missing_ok=True)
        file.unlink()


def hang_drive(host: Host, name: str, seconds: float) -> None:
    """Let smartctl wait this long before it answers for a drive; 0 ends it."""
    host.write(f"{DRIVES}/{name}.delay", str(seconds))


def set_tree(host: Host, place: str, files: Mapping[str, str]) -> None:
    """Show `files` (relative path to content) at a place of sysfs in the host: `edac` or `hwmon`.

    The tree is bind-mounted there once, and later calls replace files in it, so a daemon with a mount
    namespace of its own sees them as well. Files not named stay as they are.
    """
    base = f"{TREES}/{place}"
    for path, content in files.items():
        host.write(f"{base}/{path}", content if content.endswith("\n") else f"{content}\n")
    mounted = host.run(["mountpoint", "--quiet", PLACES[place]], check=False)
    if mounted.status != 0:
        host.run(["mount", "--bind", base, PLACES[place]])


def remove_tree(host: Host, place: str) -> None:
    """Take a tree away again; the place is as the kernel has it."""
    if host.run(["mountpoint", "--quiet", PLACES[place]], check=False).status == 0:
        host.run(["umount", PLACES[place]])
    host.run(["rm", "-rf", f"{TREES}/{place}"])


def dimm(controller: int = 0, number: int = 0, *, corrected: int = 0, uncorrected: int = 0) -> dict[str, str]:
    """Return the EDAC files of one DIMM (Documentation/admin-guide/ras.rst, per-DIMM attributes)."""
    top = f"mc/mc{controller}"
    return {
        f"{top}/mc_name": "lab memory controller",
        f"{top}/ce_count": str(corrected),
        f"{top}/ue_count": str(uncorrected),
        f"{top}/ce_noinfo_count": "0",
        f"{top}/ue_noinfo_count": "0",
        f"{top}/size_mb": "16384",
        f"{top}/dimm{number}/dimm_label": f"CPU_SrcID#0_MC#{controller}_Chan#0_DIMM#{number}",
        f"{top}/dimm{number}/dimm_location": f"channel 0 slot {number}",
        f"{top}/dimm{number}/dimm_ce_count": str(corrected),
        f"{top}/dimm{number}/dimm_ue_count": str(uncorrected),
        f"{top}/dimm{number}/dimm_mem_type": "Registered-DDR4",
        f"{top}/dimm{number}/dimm_edac_mode": "S4ECD4ED",
        f"{top}/dimm{number}/size": "16384",
    }


def processor_temperature(celsius: float, *, maximum: float = 84.0, critical: float = 100.0) -> dict[str, str]:
    """Return the hwmon files of a processor's sensor (Documentation/hwmon/sysfs-interface.rst)."""
    return {
        "hwmon0/name": "coretemp",
        "hwmon0/temp1_label": "Package id 0",
        "hwmon0/temp1_input": str(int(celsius * 1000)),
        "hwmon0/temp1_max": str(int(maximum * 1000)),
        "hwmon0/temp1_crit": str(int(critical * 1000)),
        "hwmon0/temp1_crit_alarm": "1" if celsius >= critical else "0",
    }
