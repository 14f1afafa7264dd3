"""PID 1 of a lab host until systemd takes over.

Runs as `unshare --mount --uts --ipc --net --pid --fork python3 boot.py SETTINGS.json` and nothing but the
standard library: it joins the host's cgroup, enters a cgroup namespace, mounts the host's file systems
in its own mount namespace (so they vanish with its last process), changes root and executes systemd.
"""

from __future__ import annotations

import ctypes
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

CLONE_NEWCGROUP = 0x02000000  # include/uapi/linux/sched.h

DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "kmsg": (1, 11),
    "tty": (5, 0),
}
"""Character devices of a host, from Documentation/admin-guide/devices.txt."""

MISC_DEVICES = ("fuse", "userfaultfd", "net/tun")
"""Devices with the misc major 10; their minors are in /proc/misc (tun: 200 by devices.txt)."""


def main(settings: dict[str, str]) -> None:
    """Become the init of a lab host; returns only by an exception."""
    (Path(settings["cgroup"]) / "cgroup.procs").write_text("0")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWCGROUP) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWCGROUP)")
    root = Path(settings["root"])
    mount("--make-rprivate", "/")
    mount_root(root, settings)
    mount_kernel_file_systems(root)
    mount_devices(root)
    mount_sysfs_places(root)
    call("hostname", settings["hostname"])
    change_root(root)
    environment = {"container": "lifeboat-lab", "PATH": "/usr/sbin:/usr/bin"}
    os.execve("/sbin/init", ["/sbin/init"], environment)  # noqa: S606 - PID 1 has to stay this process


def mount_root(root: Path, settings: dict[str, str]) -> None:
    """Mount the host's overlay and, on a real file system, its container storage (no overlay on overlay)."""
    options = f"lowerdir={settings['layers']},upperdir={settings['upper']},workdir={settings['work']}"
    mount("-t", "overlay", "-o", options, "overlay", str(root))
    (root / "var/lib/containers").mkdir(exist_ok=True)
    mount("--bind", settings["containers"], str(root / "var/lib/containers"))


def mount_kernel_file_systems(root: Path) -> None:
    """Mount fresh proc, sysfs, cgroup2, /run; sysfs is read-only, as in every container with systemd."""
    mount("-t", "proc", "-o", "nosuid,nodev,noexec", "proc", str(root / "proc"))
    mount("-t", "sysfs", "-o", "nosuid,nodev,noexec,ro", "sysfs", str(root / "sys"))
    mount("-t", "cgroup2", "-o", "nosuid,nodev,noexec", "cgroup2", str(root / "sys/fs/cgroup"))
    mount("-t", "tmpfs", "-o", "nosuid,nodev,mode=755", "tmpfs", str(root / "run"))
    (root / "run/lock").mkdir()


def mount_devices(root: Path) -> None:
    """Fill a private /dev: no device of the machine is reachable but those named here."""
    dev = root / "dev"
    mount("-t", "tmpfs", "-o", "nosuid,mode=755", "tmpfs", str(dev))
    for name, numbers in DEVICES.items():
        make_device(dev / name, *numbers)
    lines = [line.split() for line in Path("/proc/misc").read_text().splitlines()]
    minors = {name: minor for minor, name in lines}
    for name in MISC_DEVICES:
        minor = minors.get(name, minors.get(Path(name).name))
        if minor is not None:
            make_device(dev / name, 10, int(minor))
    for name, options in (("pts", "newinstance,ptmxmode=0666,mode=0620,gid=5"), ("shm", "mode=1777")):
        (dev / name).mkdir()
        mount("-t", "devpts" if name == "pts" else "tmpfs", "-o", options, name, str(dev / name))
    for link, target in (("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0")):
        (dev / link).symlink_to(target)
    for link, target in (("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2")):
        (dev / link).symlink_to(target)


def make_device(path: Path, major: int, minor: int) -> None:
    """Make a character device that everybody may use."""
    path.parent.mkdir(exist_ok=True)
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    path.chmod(0o666)


def mount_sysfs_places(root: Path) -> None:
    """Make /sys/class/hwmon and /sys/devices/system/edac exist, so that a test can mount its tree there.

    A kernel without these subsystems has no such directories and sysfs allows none to be made; an
    overlay adds them. Parts that change (net, block) are mounted over it again, because an overlay may
    show an old list of a lower directory.
    """
    for parent, name, live in (("class", "hwmon", ("net", "block")), ("devices/system", "edac", ())):
        place = root / "sys" / parent
        if (place / name).exists():
            continue
        extra = root / "run/lab-sysfs" / parent
        (extra / name).mkdir(parents=True)
        originals = root / "run/lab-sysfs/original" / parent
        originals.mkdir(parents=True)
        mount("--bind", str(place), str(originals))
        mount("-t", "overlay", "-o", f"ro,lowerdir={extra}:{place}", "overlay", str(place))
        for directory in live:
            if (originals / directory).is_dir():
                mount("--bind", str(originals / directory), str(place / directory))


def change_root(root: Path) -> None:
    """Make the overlay the root, let go of the machine's mounts, and share what follows with daemons."""
    old = root / "run/old-root"
    old.mkdir()
    os.chdir(root)
    call("pivot_root", ".", "run/old-root")
    os.chroot(".")
    os.chdir("/")
    call("umount", "--lazy", "/run/old-root")
    Path("/run/old-root").rmdir()
    mount("--make-rshared", "/")


def mount(*arguments: str) -> None:
    """Run mount(8)."""
    call("mount", *arguments)


def call(*argv: str) -> None:
    """Run a program to its end; its complaint goes to the host's console file.

    Not by way of `migrator.command`: this file runs alone, in a place where the project cannot be seen.
    """
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, timeout=30)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
