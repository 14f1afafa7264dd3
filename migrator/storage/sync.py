"""Copy directory trees and images to another host: rsync and podman's own archives, over the peers' TLS.

rsync does what it does best (hard links, sparse files, extended attributes, ACLs, devices, deltas); the
remote shell it calls is ours and opens a stream to the other lifeboatd. The other end chooses the
directory by the tree's name: a source cannot name a path.
"""

from __future__ import annotations

import shlex
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from migrator.command import LOOK_S, run
from migrator.errors import CommandError, ExecutionError, LifeboatError
from migrator.storage.disks import write_out
from migrator.storage.tree import Snapshot, compare, scan

RSYNC = ("rsync", "--archive", "--hard-links", "--acls", "--xattrs", "--sparse", "--numeric-ids", "--delete")
NANOSECONDS = "--modify-window=-1"
"""Compare times to the nanosecond (rsync 3.1.3): two writes in one second are two versions."""

LAYER, SHARED_MEMORY, POD_MEMORY, VOLUME, BIND = "layer", "shm", "pod-shm", "volume:", "bind:"
"""Names of trees: the writable layer, /dev/shm, its pod's, `volume:NAME`, and `bind:NUMBER` of the mounts."""

PARTIAL = 23  # rsync: some files could not be transferred: also one that became another kind of file meanwhile
AHEAD_ATTEMPTS = 3  # of a copy whose files change under it; what is partial after that is a failure

VANISHED = 24  # rsync: some files vanished before they could be transferred; normal while a container runs


@dataclass(frozen=True)
class Tree:
    """One directory tree of a container; see the names above."""

    name: str
    path: Path


@dataclass(frozen=True)
class Destination:
    """Where trees go: a migration at a peer. `directory` is /etc/lifeboat, where the certificates are.

    `go_on` is called now and then while something is copied; what it raises ends the copy.
    """

    directory: Path
    peer: str
    migration: str
    go_on: Callable[[], None] = lambda: None

    def remote_shell(self, tree: Tree) -> str:
        """Return what rsync calls in ssh's place; it appends the host and its own server command."""
        argv = [
            sys.executable,
            "-P",
            "-m",
            "migrator.storage.remote_shell",
            str(self.directory),
            self.migration,
        ]
        return shlex.join([*argv, tree.name])


def copy_ahead(tree: Tree, destination: Destination, timeout_s: float) -> Snapshot:
    """Copy a tree while its container runs; return the scan from which the copy began."""
    _write_out(tree.path, timeout_s, destination.go_on)
    before = scan(tree.path)
    _rsync(tree, destination, timeout_s, [NANOSECONDS], attempts=AHEAD_ATTEMPTS)
    return before


def _write_out(path: Path, timeout_s: float, go_on: Callable[[], None]) -> None:
    """Write a file system out, but wait no longer than may be copied: a slow disk may need minutes."""
    failed: list[Exception] = []
    done = threading.Event()

    def write() -> None:
        try:
            write_out(path)
        except (LifeboatError, OSError) as error:
            failed.append(error)
        finally:
            done.set()

    threading.Thread(target=write, name="write-out", daemon=True).start()  # nothing can end it
    deadline = time.monotonic() + timeout_s
    while not done.wait(LOOK_S):
        go_on()
        if time.monotonic() > deadline:
            raise ExecutionError(f"{path} is not written out after {timeout_s:g} s", code="copy-failed")
    if failed:
        raise failed[0]


def copy_difference(tree: Tree, destination: Destination, before: Snapshot | None, timeout_s: float) -> bool:
    """Copy what changed since `before`, with the container frozen; return whether anything had to go."""
    now = scan(tree.path)
    if before is None:
        if now.entries:
            _rsync(tree, destination, timeout_s, [NANOSECONDS])
        return bool(now.entries)
    difference = compare(before, now)
    if not difference.changed:
        return False
    _rsync(tree, destination, timeout_s, [NANOSECONDS])
    if difference.doubtful:
        names = b"\0".join(name.encode("utf-8", "surrogateescape") for name in difference.doubtful)
        _rsync(tree, destination, timeout_s, ["--ignore-times", "--from0", "--files-from=-"], names)
    return True


def _rsync(
    tree: Tree,
    destination: Destination,
    timeout_s: float,
    options: list[str],
    stdin: bytes | None = None,
    *,
    attempts: int = 1,
) -> None:
    remote = f"{destination.peer}:{tree.name.replace(':', '-')}"
    argv = [*RSYNC, *options, "-e", destination.remote_shell(tree), f"{tree.path}/", remote]
    try:
        for _ in range(attempts):
            result = run(argv, timeout_s=timeout_s, check=False, stdin=stdin, go_on=destination.go_on)
            if result.status != PARTIAL:
                break
    except CommandError as error:
        raise ExecutionError(
            f"copying {tree.name} to {destination.peer} failed: {error.message}", code="copy-failed"
        ) from error
    if result.status not in (0, VANISHED):
        raise ExecutionError(
            f"copying {tree.name} to {destination.peer} failed: {result.reason}",
            code="copy-failed",
            temporary=True,
        )
