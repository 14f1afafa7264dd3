"""Running a build so that nothing of it outlives us: its mounts and processes end with it, and it with us."""

from __future__ import annotations

from collections.abc import Sequence

from migrator import command
from migrator.command import CommandResult

CONTAINED = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"),
)
"""A killed mmdebstrap would leave /proc and /dev mounted in a directory that is removed next time."""


def run(argv: Sequence[str], *, timeout_s: float, stdin: bytes | None = None) -> CommandResult:
    """Run a program in mount and pid namespaces of its own; its exit status is the caller's to judge."""
    return command.run([*CONTAINED, *argv], timeout_s=timeout_s, stdin=stdin, check=False)
