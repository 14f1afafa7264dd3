"""Layers on top of the root: the changes of a program run inside it, as an overlay's upper directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from migrator import command
from migrator.errors import ExecutionError
from tests.lab import contained

BUILD_TIMEOUT_S = 600

IN_ROOT = """
set -e
target=$1 lower=$2 input=$3 place=$4
shift 4
mkdir "$target/work" "$target/root"
mount -t overlay -o "lowerdir=$lower,upperdir=$target/files,workdir=$target/work" overlay "$target/root"
mount -t proc proc "$target/root/proc"
mount -t sysfs sysfs "$target/root/sys"
mount -t cgroup2 cgroup2 "$target/root/sys/fs/cgroup"
mount --bind /dev "$target/root/dev"
mkdir -p "$target/root$place"
mount --bind "$input" "$target/root$place"
chroot "$target/root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin HOME=/root LC_ALL=C.UTF-8 "$@"
"""
"""Runs a program in an overlay of its own. The mounts are in a mount namespace, so they end with it."""


def build_layer(
    target: Path,
    lower: Sequence[Path],
    bind: tuple[Path, str],
    argv: Sequence[str],
    stdin: bytes | None = None,
) -> None:
    """Run `argv` inside the root made of `lower` (topmost first) and keep its changes in `target/files`.

    `bind` is a directory of the machine and its place in there.
    """
    (target / "files").mkdir(parents=True, exist_ok=True)
    names = [str(target), ":".join(str(path) for path in lower), str(bind[0]), bind[1]]
    shell = ["sh", "-c", IN_ROOT, "sh", *names]
    result = contained.run([*shell, *argv], timeout_s=BUILD_TIMEOUT_S, stdin=stdin)
    if result.status != 0:
        raise ExecutionError(f"{argv[0]} failed in the lab's root: {result.errors.strip()}", code="lab-layer")
    command.run(["rm", "-rf", str(target / "work"), str(target / "root")], timeout_s=60)
