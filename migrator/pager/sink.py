"""The page sink: brings a restored tree's memory in, and never lets it run on pages that are not its own.

It stands where `criu restore` expects a lazy-pages daemon and takes what the restore sends (criu/uffd.c: each
pid and its userfaultfd, at last `LAZY_PAGES_RESTORE_FINISHED`). From that last word on, which comes before the
tree is let go, no page is given until the commit: every thread of the tree then stands at its first touch
of its own memory, so it can neither run nor speak. (Giving nothing from the beginning would not do: the
restore itself touches memory, for restartable sequences.) Every userfaultfd stays open here until the memory
is complete or the tree is dead: a closed one would turn missing pages into zeros.

What both kinds of sink share is here; `own_sink` and `criu_sink` bring the pages.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from migrator.control import ControlServer, Message
from migrator.errors import ExecutionError, LifeboatError, NotAllowedError
from migrator.model import Pager, Value
from migrator.pager.greeting import BULK, CRIU, FAULTS, read_greeting
from migrator.pager.guard import Guard
from migrator.pager.links import Link, welcome_link
from migrator.pager.restored import RESTORE_SOCKET, Task, receive_task, restore_listener
from migrator.peers.identity import Identity, RollFile, check_member
from migrator.peers.tls import Door, listen
from migrator.runtime.cgroup import Cgroup

ORDER = "sink.json"
CONTROL = "sink.sock"
LINK_WAIT_S = 10.0
RESTORED_WAIT_S = 5.0  # from the restore's last word until all of its tasks are taken: milliseconds
RETRY_S = 0.1
PURPOSES = re.compile(rf"{FAULTS}|{BULK}[0-9]+|{CRIU}")

_log = logging.getLogger("sink")


class SinkOrder(Value):
    """What a sink is told when it starts."""

    migration: str
    source: str  # host name in the certificate of the only host that may call
    pki: str
    ports: tuple[int, int]
    criu: str
    pager: Pager
    reconnect_limit_s: float
    secret: str  # what the caller must name, known to the two hosts' daemons only
    plain: bool = False  # whether links are not encrypted
    room_bytes: int = 0  # of memory to have at hand before any comes


class SinkState(StrEnum):
    """How far a sink has come."""

    WAITING = "waiting"  # for the source's call, the images, the restore
    DRAINING = "draining"
    DRAINED = "drained"
    LOST = "lost"  # the tree is frozen; what it lacks will not come


class Sink(ABC):
    """The sink of one migration; commands on `sink.sock`: `brace`, `images`, `go`, `progress`, `give-up`, `end`.

    When it is lost the tree is frozen and every userfaultfd stays open here, until one of two words: `give-up`
    poisons what is missing and kills the tree; `end` poisons, in case that the tree was not killed, and leaves.
    """

    pure_tls = False  # whether the links must be Python's own TLS

    def __init__(self, directory: Path, order: SinkOrder) -> None:
        self.directory = directory
        self.order = order
        self.tasks: list[Task] = []
        self.state = SinkState.WAITING
        self.links: dict[str, Link] = {}
        self._callers: dict[str, Identity] = {}
        self._pki = Path(order.pki)
        self._roll = RollFile(self._pki.parent)
        self.changed = threading.Condition()
        self._control = ControlServer(directory / CONTROL)
        self._restore = restore_listener(directory / RESTORE_SOCKET)
        self._listener = listen(order.ports)
        self._tree_pid = 0
        self._reason = ""
        self._froze = False  # whether the tree stands because of us
        self._began_at = 0.0
        self._ended_at = 0.0
        self._restored = False  # whether the restore has said that it sent all of its tasks
        self._finished = False
        self.guard = Guard(f"lifeboat-guard-{order.migration}")

    @abstractmethod
    def brace(self) -> None:
        """Both sides are parked: from the freeze on, which may come now, every moment counts."""

    @abstractmethod
    def begin(self, images: Path) -> None:
        """The images are here, the restore begins: be ready to give the pages it touches."""

    @abstractmethod
    def take(self, task: Task) -> None:
        """A process of the tree came into being."""

    @abstractmethod
    def hold(self) -> None:
        """The tree is complete and about to be let go: give nothing any more."""

    @abstractmethod
    def release(self) -> None:
        """The tree belongs here now: let its memory flow."""

    @property
    @abstractmethod
    def drained_bytes(self) -> int:
        """Return how much has come."""

    @abstractmethod
    def tidy(self) -> None:
        """End what was started for the drain."""

    @abstractmethod
    def poison(self) -> int:
        """Let whoever reads missing memory get SIGBUS instead of zeros; return how many bytes that were.

        Raises `OSError` on a kernel that cannot.
        """

    def details(self) -> dict[str, object]:
        """Return more of the drain's progress, where it is known."""
        return {}

    def surrender_userfaults(self) -> list[int]:
        """Return the userfaultfds, to be closed when the memory is complete; from here on none is used."""
        return [task.userfault for task in self.tasks if task.userfault is not None]

    def run(self) -> int:
        """Serve until the end is allowed; the userfaultfds close with this process."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        threading.Thread(target=self._take_calls, name="calls", daemon=True).start()
        threading.Thread(target=self._take_restore, name="restore", daemon=True).start()
        while not self._finished:
            try:
                self._turn()
            except Exception:  # a mistake of ours must not end who holds the userfaultfds
                logging.exception("a turn failed")
                time.sleep(RETRY_S)
        self._control.close()
        return 0

    def _turn(self) -> None:
        message = self._control.wait(1.0)
        if message is not None:
            self._control.say(self._answer(message))
        self._cut_removed()

    def link(self, purpose: str, timeout_s: float = LINK_WAIT_S) -> Link:
        """Return the source's link of this purpose, waiting for its call; raises `ExecutionError`."""
        with self.changed:
            if not self.changed.wait_for(lambda: purpose in self.links, timeout_s):
                raise ExecutionError(f"the page source does not call ({purpose})", code="no-page-source")
            return self.links[purpose]

    def freeze_tree(self) -> None:
        """Stop the tree while all its userfaultfds are still open here; before the commit it stands anyway."""
        try:
            tree = self._tree()
            if tree is None or tree.told_to_freeze:
                return
            tree.ask_to_freeze()
        except (LifeboatError, OSError):  # a tree that died already needs no freezing
            return
        self._froze = True

    def thaw_tree(self) -> None:
        """Let the tree run again if it was frozen here, after a loss that was made good."""
        if self._froze:
            self._froze = False
            with suppress(LifeboatError, OSError):
                if (tree := self._tree()) is not None:
                    tree.thaw()

    def _tree(self) -> Cgroup | None:
        """Return the tree's cgroup, None before the commit; raises `ExecutionError` when the tree is gone."""
        return Cgroup.of_process(self._tree_pid) if self._tree_pid else None

    @property
    def is_over(self) -> bool:
        """Say whether nothing more will come: all of it is here, or it is lost."""
        return self.state not in (SinkState.WAITING, SinkState.DRAINING)

    def lose(self, reason: str) -> None:
        """What is missing will not come: the tree must never run again."""
        with self.changed:
            if self.is_over:
                return
            self.freeze_tree()
            self.state, self._reason, self._ended_at = SinkState.LOST, reason, time.time()
        _log.error("%s", reason)
        self.tidy()

    def complete(self) -> None:
        """Everything is here: the userfaultfds are not needed any more."""
        with self.changed:
            if self.state is not SinkState.DRAINING:
                return
            self.state, self._ended_at = SinkState.DRAINED, time.time()
        self.guard.dismiss()
        for descriptor in self.surrender_userfaults():
            os.close(descriptor)
        with self.changed:  # nobody waits for a link any more for which it stands
            self.thaw_tree()
        _log.info("drained %d bytes in %.3f s", self.drained_bytes, self._ended_at - self._began_at)

    def _answer(self, message: Message) -> Message:
        commands = {
            "brace": self._brace,
            "images": self._images,
            "go": self._go,
            "progress": self._progress,
            "give-up": self._give_up,
            "end": self._end,
        }
        try:
            return commands[str(message.get("do"))](message)
        except LifeboatError as error:
            _log.error("%s: %s", message.get("do"), error)
            return {"error": error.message, "code": error.code}

    def _take_calls(self) -> None:
        """Take the source's calls, also new ones after a link broke; each heard by itself, for strangers dawdle."""
        door = Door()
        while not self._finished:
            try:
                caller, address = self._listener.accept()
            except OSError:
                time.sleep(RETRY_S)
                continue
            if door.enter(address[0]):
                threading.Thread(
                    target=self._hear, args=(caller, address[0], door), name="call", daemon=True
                ).start()
            else:
                caller.close()

    def _hear(self, caller: socket.socket, address: str, door: Door) -> None:
        """Take one call, if it is the source's and for this migration."""
        try:
            link, who = welcome_link(caller, self._pki, self._plain_caller, pure=self.pure_tls)
            if who.name != self.order.source:
                raise NotAllowedError(f"{who.name} may not call here", code="not-the-source")
            purpose = read_greeting(link, self.order.migration, self.order.secret)
        except (LifeboatError, OSError, ValueError) as error:
            _log.warning("a caller was turned away: %s", error)
            caller.close()
            return
        finally:
            door.leave(address)
        if not PURPOSES.fullmatch(purpose or ""):
            _log.warning("%s called for nothing that is known here", who.name)
            link.close()
            return
        link.settle()
        with self.changed:
            if self.state is SinkState.LOST:
                link.close()
                return
            self.links[str(purpose)], self._callers[str(purpose)] = link, who
            self.changed.notify_all()

    @property
    def _plain_caller(self) -> Identity | None:
        """Return whom we take a caller for who shows no certificate, as both hosts' admins want it."""
        return Identity(self.order.source, "", float("inf")) if self.order.plain else None

    def _cut_removed(self) -> None:
        """Hang up on a source that is removed from the cluster meanwhile; what is missing then will not come."""
        known = self._roll.known
        with self.changed:
            for purpose, link in self.links.items():
                try:
                    check_member(self._callers[purpose], known)
                except NotAllowedError as error:
                    _log.warning("the %s link is cut: %s", purpose, error)
                    link.hang_up()

    def _take_restore(self) -> None:
        connection, _ = self._restore.accept()
        try:
            with connection:
                while (task := receive_task(connection)) is not None:
                    self.tasks.append(task)
                    if task.userfault is not None:
                        self.guard.hold(task.userfault)
                    self.take(task)
            self.hold()
        except (LifeboatError, OSError) as error:
            self.lose(f"the restore could not be joined to the pager: {error}")
        else:
            _log.info("holding %d tasks", len(self.tasks))
            with self.changed:
                self._restored = True
                self.changed.notify_all()

    def _brace(self, _: Message) -> Message:
        self.brace()
        return {"event": "braced"}

    def _images(self, message: Message) -> Message:
        self.begin(Path(message["images"]))
        return {"event": "images"}

    def _go(self, message: Message) -> Message:
        with self.changed:  # what is still to be taken would not be drained
            self.changed.wait_for(lambda: self._restored or self.state is SinkState.LOST, RESTORED_WAIT_S)
        if self.state is SinkState.WAITING:
            if not self._restored:
                raise ExecutionError("the restore is not complete", code="not-restored")
            self._tree_pid = int(message["pid"])
            self.guard.watch(self._tree_pid)
            self.state, self._began_at = SinkState.DRAINING, time.time()
            self.release()
        return {"event": self.state}

    def _progress(self, _: Message) -> Message:
        end = self._ended_at or time.time()
        return {
            "event": self.state,
            "reason": self._reason,
            "drained_bytes": self.drained_bytes,
            "drain_s": end - self._began_at if self._began_at else 0.0,
            "port": self._listener.getsockname()[1],
            "tasks": len(self.tasks),
            "details": self.details(),
        }

    def _give_up(self, _: Message) -> Message:
        """The memory will not come: poison it, kill the tree; then `end` may follow."""
        if self.state is SinkState.DRAINED:
            raise ExecutionError("the memory is complete", code="drained")
        self.lose("given up")
        poisoned = self._poison_quietly()
        with suppress(LifeboatError, OSError):
            if (tree := self._tree()) is not None:
                tree.kill()
        return {"event": "given-up", "poisoned_bytes": poisoned}

    def _poison_quietly(self) -> int:
        try:
            return self.poison()
        except (LifeboatError, OSError) as error:  # the kernel cannot: what is frozen must be killed
            _log.error("missing memory cannot be poisoned: %s", error)
            return 0

    def _end(self, _: Message) -> Message:
        """Leave: allowed when the memory is complete, or when the caller has killed the tree."""
        if self.state is SinkState.DRAINING:
            raise ExecutionError("the drain is not over", code="draining")
        if self.state is SinkState.LOST:
            self._poison_quietly()
        self._finished = True
        self.guard.dismiss()
        self.tidy()
        return {"event": "ended"}
