"""Copy directory trees and images to another host: rsync and podman's own archives, over the peers' TLS.

rsync does what it does best (hard links, sparse files, extended attributes, ACLs, devices, deltas); the
remote shell it calls is ours and opens a stream to the other lifeboatd. The other end chooses the
directory by the tree's name: a source cannot name a path.
"""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from migrator.command import LOOK_S, run
from migrator.container.mounts import MOUNTINFO, mount_of, parse
from migrator.errors import CommandError, ExecutionError, LifeboatError
from migrator.storage.disks import write_out
from migrator.storage.tree import Snapshot, compare, doubtful, scan

RSYNC = ("rsync", "--archive", "--hard-links", "--acls", "--xattrs", "--sparse", "--numeric-ids", "--delete")
NANOSECONDS = "--modify-window=-1"
"""Compare times to the nanosecond (rsync 3.1.3): two writes in one second are two versions."""

SENT_FORMAT = "--out-format=%i %n"
"""What was done, and the name: `<f...` is a file that was sent (rsync(1), --itemize-changes)."""

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


def copy_ahead(tree: Tree, destination: Destination, timeout_s: float, since_ns: int | None) -> Snapshot:
    """Copy a tree while its container runs; return what a later copy to there has to know.

    `since_ns` is the `at_ns` of the last one to there that was complete, None when there is none, or there may be
    one that is not known.
    """
    at_ns = time.time_ns()
    _write_out(tree.path, timeout_s, destination.go_on)
    before = scan(tree.path, at_ns)
    copy = _Copy(tree, destination, timeout_s, attempts=AHEAD_ATTEMPTS)
    if since_ns is None:
        copy.all_in_full()
    else:
        copy.changed(before, doubtful(before, since_ns))
    return before if _times_tell(tree.path) else Snapshot(0, before.entries)


def _times_tell(path: Path) -> bool:
    """Say whether files here show by their times that a mapping of them was written to; those in memory do not."""
    mount = mount_of(os.path.realpath(path), parse(MOUNTINFO.read_text()))
    return mount is None or mount.file_system not in ("tmpfs", "ramfs")


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
    """Copy what changed since `before`, with the container frozen; return whether anything had to go.

    Without a `before` all goes, and what is there already is compared in full.
    """
    now = scan(tree.path, time.time_ns())
    copy = _Copy(tree, destination, timeout_s)
    if before is None:
        if now.entries:
            copy.all_in_full()
        return bool(now.entries)
    difference = compare(before, now)
    if difference.changed:
        copy.changed(now, difference.doubtful)
    return difference.changed


@dataclass(frozen=True)
class _Copy:
    """rsync, of one tree."""

    tree: Tree
    destination: Destination
    timeout_s: float
    attempts: int = 1

    def all_in_full(self) -> None:
        """Trust no times."""
        self._rsync("--ignore-times")

    def changed(self, now: Snapshot, doubtful: tuple[str, ...]) -> None:
        """Send what differs in size or times, and compare in full what is doubtful and was not sent.

        Of hard links rsync sends one; all names of a file are compared, or none, for a copy that knows of one name
        only cuts the link.
        """
        sent = {now.entries[name][0] for name in sent_files(self._rsync(SENT_FORMAT)) if name in now.entries}
        if left := [name for name in doubtful if now.entries[name][0] not in sent]:
            names = b"\0".join(name.encode("utf-8", "surrogateescape") for name in left)
            self._rsync("--ignore-times", "--ignore-missing-args", "--from0", "--files-from=-", names=names)

    def _rsync(self, *options: str, names: bytes | None = None) -> str:
        """Run it and return what it said; raises `ExecutionError`."""
        tree, destination = self.tree, self.destination
        remote = f"{destination.peer}:{tree.name.replace(':', '-')}"
        argv = [*RSYNC, NANOSECONDS, *options, "-e", destination.remote_shell(tree), f"{tree.path}/", remote]
        said = ""
        try:
            for _ in range(self.attempts):
                result = run(argv, timeout_s=self.timeout_s, check=False, stdin=names, go_on=destination.go_on)
                said += result.output
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
        return said


def sent_files(said: str) -> frozenset[str]:
    """Return the files whose contents were sent, from what rsync says by `SENT_FORMAT`.

    A name that rsync had to escape (a backslash, `#` and three octal digits) is left out.
    """
    lines = (line for line in said.split("\n") if line.startswith("<f") and "\\#" not in line)
    return frozenset(line.partition(" ")[2] for line in lines)
