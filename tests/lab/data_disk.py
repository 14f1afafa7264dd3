"""A data disk for a host of the lab: a loop device with a file system, at a mount point of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.host import Host

LOOP_MAJOR = 7  # Documentation/admin-guide/devices.txt
DISK_BYTES = 64 << 20
MOUNTINFO = "/proc/1/mountinfo"


@contextmanager
def data_disk(host: Host, place: str) -> Iterator[str]:
    """Give a host a disk, mounted at `place`; returns its name, as `loop3`."""
    image = host.data / "data-disk"
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    loop = subprocess.run(["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True)
    name = Path(loop.stdout.strip()).name
    minor = name.removeprefix("loop")
    try:
        host.run(["mknod", f"/dev/{name}", "b", str(LOOP_MAJOR), minor])
        host.run(["mkdir", "--parents", place])
        host.run(["mount", f"/dev/{name}", place])
        try:
            yield name
        finally:
            host.run(["umount", "--lazy", place])
            host.run(["rm", "-f", f"/dev/{name}"])
    finally:
        subprocess.run(["losetup", "--detach", f"/dev/{name}"], check=True)
        image.unlink()


@contextmanager
def disk_below_root(host: Host) -> Iterator[None]:
    """Let a host's mountinfo say that its root lies on the disk of its containers.

    A lab's root is an overlay of directories that the host cannot see, so what its root lies on is not known
    there; on a real host it is.
    """
    lines = host.read(MOUNTINFO).splitlines(keepends=True)
    source = next(line.split(" - ")[1].split(" ")[1] for line in lines if " /var/lib/containers " in line)
    said = "".join(line.replace(" - overlay overlay ", f" - ext4 {source} ") for line in lines)
    host.write("/run/mountinfo", said)
    host.run(["mount", "--bind", "/run/mountinfo", MOUNTINFO])
    try:
        yield
    finally:
        host.run(["umount", "--lazy", MOUNTINFO])
