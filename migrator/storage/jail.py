"""A jail for programs that a peer's bytes go through: rsync's receiver and tar see one directory of this host.

Both refuse names that lead elsewhere, and both have had holes in that (CVE-2024-12087, CVE-2025-45582: a link that
was sent first, then a file through it). So they run where nothing else is: a mount namespace whose root is an empty
file system with the programs, for reading, and the one tree, for writing.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

from migrator.command import spawn
from migrator.errors import ExecutionError

TREE = Path("/tree")
"""Where the tree is for whoever is in the jail."""

PROGRAMS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Programs and their libraries; links where the system has merged them into /usr."""

CLONE_NEWNS = 0x00020000  # include/uapi/linux/sched.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT = 0x1, 0x2, 0x4, 0x20  # include/uapi/linux/mount.h
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
PROGRAM_FLAGS = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV

_libc = ctypes.CDLL(None, use_errno=True)


class Jail:
    """A jail around one tree; `root` is an empty directory for its root, which stays empty."""

    def __init__(self, tree: Path, root: Path) -> None:
        self._tree = tree
        self._root = root

    def spawn(self, argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a program in the jail, as `migrator.command.spawn` does; raises `ExecutionError`.

        A thread that ends right afterwards goes in and starts it: namespace and root are a thread's own.
        """
        started: list[subprocess.Popen[bytes]] = []
        failed: list[Exception] = []

        def start() -> None:
            try:
                self._enter()
                started.append(spawn(argv, cwd=TREE, **options))
            except (OSError, ExecutionError) as error:
                failed.append(error)

        thread = threading.Thread(target=start, name="jail")
        thread.start()
        thread.join()
        if failed:
            raise ExecutionError(f"{argv[0]} cannot be confined: {failed[0]}", code="no-jail") from failed[0]
        return started[0]

    def _enter(self) -> None:
        if _libc.unshare(CLONE_NEWNS) != 0:
            raise _error("unshare")
        _mount("none", Path("/"), "", MS_REC | MS_PRIVATE)
        tree = os.open(self._tree, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            _mount("jail", self._root, "tmpfs", MS_NOSUID | MS_NODEV)
            for name in PROGRAMS:
                self._show(name)
            (self._root / "dev").mkdir()
            null = self._root / "dev/null"
            null.touch()
            _mount("/dev/null", null, "", MS_BIND)
            inside = self._root / TREE.relative_to("/")
            inside.mkdir()
            _mount(f"/proc/self/fd/{tree}", inside, "", MS_BIND)
        finally:
            os.close(tree)
        _mount("none", self._root, "", MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)
        os.chroot(self._root)
        os.chdir("/")

    def _show(self, name: str) -> None:
        path, inside = Path("/", name), self._root / name
        if path.is_symlink():
            inside.symlink_to(path.readlink())
        elif path.is_dir():
            inside.mkdir()
            _mount(str(path), inside, "", MS_BIND)
            _mount("none", inside, "", PROGRAM_FLAGS)


def _mount(source: str, target: Path, kind: str, flags: int) -> None:
    if _libc.mount(source.encode(), os.fsencode(target), kind.encode(), flags, None) != 0:
        raise _error(f"mount {target}")


def _error(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{what}: {os.strerror(code)}")
