"""A container that stands frozen, and how it is given back or killed: by its shim, or by the daemon without one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from migrator.errors import CommandError, ExecutionError, LifeboatError
from migrator.network import gate, repair
from migrator.runtime.cgroup import Cgroup
from migrator.runtime.runc import first_pid
from migrator.runtime.scope import end_scope, scope_active

LET_GO_S = 1.0
"""How long CRIU may take to let go of a tree; when it is killed instead, the frozen cgroup must hold it."""

UNKNOWN = "container does not exist"
"""What `runc state` says of one it does not know (libcontainer, ErrNotExist)."""

_log = logging.getLogger(__name__)


class FrozenTree:
    """The processes of one container on this host."""

    def __init__(self, cgroup: Cgroup, namespace: Path) -> None:
        self.cgroup = cgroup
        self.namespace = namespace

    @classmethod
    def find(cls, runc: str, container: str) -> FrozenTree | None:
        """Return the tree of a container (its id), None when it has no processes here, or nobody can tell."""
        try:
            return cls.seek(runc, container)
        except (LifeboatError, ValueError, KeyError):
            return None

    @classmethod
    def seek(cls, runc: str, container: str) -> FrozenTree | None:
        """As `find`; raises `LifeboatError` when nobody can tell."""
        try:
            pid = first_pid(runc, container)
        except CommandError as error:
            if UNKNOWN in error.message:
                return None
            raise
        return cls(Cgroup.of_process(pid), Path(f"/proc/{pid}/ns/net")) if pid else None

    def hold(self) -> None:
        """Let its cgroup hold it from now on, whoever else is about to be killed.

        CRIU thaws the cgroup while it dumps, and then only its ptrace holds the tree, with sockets in repair mode.
        """
        _undo("the thaw", self.cgroup.ask_to_freeze)

    def give_back(self) -> None:
        """Let it run on as if nothing had happened, once nobody holds it any more; idempotent.

        Raises `ExecutionError` when it runs and nobody hears it.
        """
        _undo("sockets in repair", lambda: repair.end_repair(self.cgroup.pids()))
        failed = _undo("the gate", lambda: gate.open_gate(self.namespace))
        self.cgroup.thaw()
        if failed is not None:
            raise ExecutionError(f"its gate does not open: {failed}", code="gate-stuck") from failed


def let_go(scope: str, find: Callable[[], FrozenTree | None]) -> None:
    """Wait until what held the tree in a scope has ended; else `find` the tree, hold it, and kill that."""
    deadline = time.monotonic() + LET_GO_S
    while scope_active(scope):
        if time.monotonic() > deadline:
            if tree := find():
                tree.hold()
            end_scope(scope)
            return
        time.sleep(0.02)


def _undo(what: str, step: Callable[[], object]) -> Exception | None:
    try:
        step()
    except (LifeboatError, OSError) as error:
        _log.error("undoing %s failed: %s", what, error)
        return error
    return None
