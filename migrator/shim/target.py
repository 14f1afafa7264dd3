"""The target's shim: a restore parked one step before `runc restore`.

Commands (JSON lines on `shim.sock`): `state`, `refresh`, `begin`, `restore`, `open`, `surrender`, `abort`. podman
has created storage, network (behind the gate) and monitor; the images arrive in the bundle while it waits. Without
a daemon for too long it gives up before the restore; after the restore it waits for a word, for the container may
be committed. One that is killed after the restore is started again (`order`) and takes up what it had.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from migrator.control import ControlServer, Message
from migrator.errors import ExecutionError, LifeboatError
from migrator.model import Method, NetworkAttachment
from migrator.network import gate
from migrator.network.announce import Announcer, of_networks
from migrator.network.sever import left_behind, sever
from migrator.runtime.cgroup import Cgroup
from migrator.runtime.specification import prepare_binds, share_memory
from migrator.runtime.tombstone import allowed
from migrator.shim.order import CONTROL, HANDED_OVER, RESTORED, Order
from migrator.shim.restore import Restore, option
from migrator.storage.overlay import refresh

PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h

_log = logging.getLogger("shim")


class TargetShim:
    """One parked `restore`."""

    def __init__(self, directory: Path, order: Order, arguments: Sequence[str]) -> None:
        self._order = order
        self._restore_tree = Restore(order, arguments, directory)
        self._bundle = Path(option(arguments, "--bundle", "-b"))
        self._pid_file = Path(option(arguments, "--pid-file"))
        specification = json.loads((self._bundle / "config.json").read_text())
        self._memo, self._handed_over = directory / RESTORED, directory / HANDED_OVER
        self._root = Path(specification["root"]["path"])
        self._namespace = _network_namespace(specification)
        self._control = ControlServer(directory / CONTROL)
        self._announcer: Announcer | None = None
        self._porter: gate.Porter | None = None
        self._left_behind: tuple[str, ...] = ()
        self._tree: Cgroup | None = None
        self._pid = 0
        self._status: int | None = None
        self._parked_at = time.monotonic()
        if order.shared_memory and not self._memo.exists():
            share_memory(self._bundle / "config.json", order.shared_memory)
        self._specification = "" if self._memo.exists() else prepare_binds(self._bundle / "config.json")

    def run(self) -> int:
        """Serve commands until the container may be podman's (0) or is gone (1)."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _die_with_parent()  # without it nobody would tell podman how this ends
        if self._memo.exists():
            self._take_up(**json.loads(self._memo.read_text()))
        elif self._namespace is not None and not gate.is_shut(self._namespace):
            raise ExecutionError("the gate is open before the restore", code="gate-open")
        commands: dict[str, Callable[[Message], Message]] = {
            "state": self._state,
            "restore": self._restore,
            "open": self._open,
            "surrender": self._surrender,
            "abort": self._abort,
            "refresh": self._refresh,
            "begin": self._begin,
        }
        with allowed(self._order.container):
            self._serve(commands)
        self._control.close()
        return self._status or 0

    def _take_up(self, pid: int, left_behind: Sequence[str], networks: Sequence[dict[str, Any]]) -> None:
        """An earlier shim has restored the tree and was killed."""
        _log.warning("taking up the tree of process %d", pid)
        if self._order.container not in str(Cgroup.of_process(pid).path):
            self._memo.unlink()
            raise ExecutionError(f"process {pid} is another one by now", code="tree-gone")
        self._hold(pid, left_behind, [NetworkAttachment.model_validate(network) for network in networks])

    def _hold(self, pid: int, left_behind: Sequence[str], networks: Sequence[NetworkAttachment]) -> None:
        """The tree is restored; it stands still, and nobody hears it."""
        self._pid, self._tree, self._left_behind = pid, Cgroup.of_process(pid), tuple(left_behind)
        if self._namespace is not None and self._announcer is None:
            self._announcer = Announcer(self._namespace, of_networks(networks))

    def _serve(self, commands: dict[str, Callable[[Message], Message]]) -> None:
        while self._status is None:
            message = self._control.wait(0.2)
            if message is not None:
                self._control.say(self._answer(commands, message))
            elif not self._pid and time.monotonic() - self._parked_at > self._order.settings.park_limit_s:
                _log.warning("parked for too long")
                self._remove_remains()

    def _answer(self, commands: dict[str, Callable[[Message], Message]], message: Message) -> Message:
        try:
            return commands[str(message.get("do"))](message)
        except LifeboatError as error:
            _log.error("%s: %s", message.get("do"), error)
            return {"error": error.message, "code": error.code}
        except OSError as error:
            _log.error("%s: %s", message.get("do"), error)
            return {"error": str(error), "code": "shim-failed"}

    def _state(self, _: Message) -> Message:
        return {
            "event": "state",
            "images": str(self._restore_tree.images),
            "bundle": str(self._bundle),
            "root": str(self._root),
            "restored": bool(self._pid),
            "pid": self._pid,
        }

    def _begin(self, _: Message) -> Message:
        """Let runc come as far as it can without the images."""
        self._restore_tree.begin()
        if self._namespace is not None and self._porter is None:
            self._porter = gate.Porter(self._namespace)
        return {"event": "begun"}

    def _refresh(self, _: Message) -> Message:
        """Let the container's root show what was put into its writable layer."""
        refresh(self._root)
        return {"event": "refreshed"}

    def _restore(self, message: Message) -> Message:
        """Run the restore; the tree comes up behind the gate and stands still."""
        if self._tree is not None:
            return {"event": "restored", "pid": self._pid}
        _log.info("restoring")
        if message.get("layer_changed", True):
            self._restore_tree.give_up()
            refresh(self._root)
        networks = [NetworkAttachment.model_validate(network) for network in message.get("networks", ())]
        if self._namespace is not None:
            self._announcer = Announcer(self._namespace, of_networks(networks))
        severed = (*left_behind(networks), *self._order.left_behind)
        try:
            self._restore_tree.run(str(message.get("descriptors", "")))
        except LifeboatError:
            self._status = 1
            raise
        _log.info("runc is done")
        (self._bundle / "config.json").write_text(self._specification)
        self._hold(int(self._pid_file.read_text()), severed, networks)
        if self._tree is not None and self._order.method is not Method.LAZY:
            self._tree.ask_to_freeze()  # a lazy tree stands still by itself, waiting for its memory
        known = {"pid": self._pid, "left_behind": severed, "networks": message.get("networks", ())}
        with suppress(OSError):  # then a shim that is killed does not come back
            self._memo.with_suffix(".new").write_text(json.dumps(known))
            self._memo.with_suffix(".new").rename(self._memo)
        return {"event": "restored", "pid": self._pid}

    def _remove_remains(self) -> None:
        """Kill a tree that is not to be; runc knows its cgroup even when CRIU did not finish."""
        self._status = 1
        self._memo.unlink(missing_ok=True)
        if self._porter is not None:
            self._porter.dismiss()
        if self._tree is not None:
            self._tree.kill()
        self._restore_tree.remove()

    def _open(self, _: Message) -> Message:
        """The container belongs here: let it speak, tell its neighbours, and hand it to podman."""
        if self._tree is None:
            raise ExecutionError("nothing is restored", code="not-restored")
        if self._namespace is not None:
            sever(self._namespace, self._left_behind)
            (self._porter or gate.Porter(self._namespace)).open_gate()
        if self._announcer is not None:
            with suppress(OSError):  # neighbours find it by themselves, later
                self._announcer.announce()
        self._tree.thaw()
        self._hand_over()
        return {"event": "opened", "at": time.time(), "pid": self._pid}

    def _surrender(self, _: Message) -> Message:
        """Hand it to podman frozen and unheard: its memory will not come, and podman is to start it anew."""
        if self._tree is None:
            raise ExecutionError("nothing is restored", code="not-restored")
        self._tree.ask_to_freeze()
        self._hand_over()
        return {"event": "surrendered"}

    def _hand_over(self) -> None:
        """Let podman have it, whatever becomes of us."""
        with suppress(OSError):
            self._handed_over.touch()
        self._status = 0

    def _abort(self, _: Message) -> Message:
        """Kill what was restored; podman cleans up after the failed runtime."""
        self._remove_remains()
        return {"event": "aborted"}


def _die_with_parent() -> None:
    """Be killed when the script that waits for us is; raises `ExecutionError` when it is dead already."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise ExecutionError("whoever called is gone", code="orphan")


def _network_namespace(specification: dict[str, object]) -> Path | None:
    linux = specification.get("linux")
    namespaces = linux.get("namespaces", []) if isinstance(linux, dict) else []
    for namespace in namespaces:
        if namespace.get("type") == "network" and namespace.get("path"):
            return Path(namespace["path"])
    return None
