"""The source's shim: holds the frozen container and lets go of it only by the journal's decision.

Commands (JSON lines on `shim.sock`): `call`, `stand-still`, `freeze`, `in-flight`, `abort`, `release`, `resume`,
`state`. It lives in its own systemd scope. When the daemon dies before the decision, the shim decides `abort`
itself and thaws; after a `commit` it holds the frozen tree until it is told `release`, whatever else dies.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from migrator.control import ControlServer, Message
from migrator.errors import ExecutionError, LifeboatError
from migrator.model import Method, Pager
from migrator.network import gate, repair
from migrator.network.in_flight import Capture, as_words, replay
from migrator.network.namespace import enter_private_network
from migrator.network.sever import sever
from migrator.pager.criu_source import PageServerSession
from migrator.pager.source import PageSource
from migrator.protocol.journal import Decision, Fate, Journal
from migrator.protocol.steps import may_give_back
from migrator.runtime.cgroup import Cgroup
from migrator.runtime.frozen import FrozenTree
from migrator.runtime.runc import first_pid
from migrator.shim.dump import BEGIN_LIMIT_S, PAGE_SERVER_PORT, Dump
from migrator.shim.order import CONTROL, Order, PagerAddress

FREEZE_WAIT_S = 2.0  # how long the kernel may take to stop all threads
RELEASE_WAIT_S = 30.0  # how long CRIU may take to kill and reap the tree
ABORT_WAIT_S = 1.0  # how long CRIU may take to let go of the tree before it is killed

_log = logging.getLogger("shim")


class SourceShim:
    """One parked `checkpoint`."""

    def __init__(self, directory: Path, order: Order, arguments: Sequence[str]) -> None:
        self._order = order
        self._dump = Dump(order, arguments, directory)
        pid = first_pid(order.runc, order.container)
        self._cgroup = Cgroup.of_process(pid)
        self._namespace = Path(f"/proc/{pid}/ns/net")
        self._journal = Journal(Path(order.journal))
        self._control = ControlServer(directory / CONTROL)
        self._porter: gate.Porter | None = None
        self._capture: Capture | None = None
        self._pages: PageSource | PageServerSession | None = None
        self._parked_at = time.monotonic()
        self._frozen_at: float | None = None
        self._committed = False  # known to be so; until then the journal is asked
        self._status: int | None = None

    def run(self) -> int:
        """Serve commands until the container was released (0) or given back (1, which podman expects)."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # only the decision ends this
        commands: dict[str, Callable[[], Message]] = {
            "call": self._call,
            "stand-still": self._stand_still,
            "freeze": self._freeze,
            "abort": self._abort,
            "release": self._release,
            "resume": self._resume,
            "state": self._state,
            "in-flight": self._in_flight,
        }
        while self._status is None:
            message = self._control.wait(0.1)
            if message is None:
                self._try_to_look_after()
            else:
                self._control.say(self._answer(commands, message))
        self._control.close()
        return self._status

    def _answer(self, commands: dict[str, Callable[[], Message]], message: Message) -> Message:
        try:
            return commands[str(message.get("do"))]()
        except LifeboatError as error:
            _log.error("%s: %s", message.get("do"), error)
            return {"error": error.message, "code": error.code}

    def _try_to_look_after(self) -> None:
        """A journal that cannot be used now must not end the only one who can give the container back."""
        try:
            self._look_after()
        except LifeboatError as error:
            _log.error("%s", error)

    def _look_after(self) -> None:
        """Act without the daemon: give the container back when nobody will decide any more."""
        limit, since = self._order.settings.park_limit_s, self._parked_at
        if self._frozen_at is not None:
            limit, since = self._order.settings.freeze_limit_s, self._frozen_at
        overdue = time.monotonic() - since > limit
        orphaned = self._frozen_at is not None and not self._control.connected
        if self._committed or not (overdue or orphaned):
            return
        row = self._journal.decide(self._order.migration, Decision.ABORT)
        self._committed = row is Decision.COMMIT
        if may_give_back(row):
            _log.warning("giving the container back: %s", "time is up" if overdue else "the daemon is gone")
            self._give_back()

    def _call(self) -> Message:
        """Call the page sink, then leave the host's network for one in which only CRIU's page server is."""
        if self._order.pager is not None and self._pages is None:
            self._pages = self._call_sink(self._order.pager)
            enter_private_network()
        self._porter = self._porter or self._new_porter()
        if self._order.captain:
            self._capture = self._capture or _capture(self._namespace)
        return {"event": "called"}

    def _new_porter(self) -> gate.Porter:
        return gate.Porter(self._namespace, loopback=not self._order.in_pod)

    def _call_sink(self, address: PagerAddress) -> PageSource | PageServerSession:
        pki, migration = Path(self._order.pki), self._order.migration
        if self._order.settings.pager is Pager.CRIU:
            return PageServerSession(address, pki, migration)
        return PageSource(address, pki, migration, self._order.settings)

    def _state(self) -> Message:
        return {
            "event": "state",
            "images": str(self._dump.images),
            "bundle": str(self._dump.bundle),
            "frozen": self._frozen_at is not None,
            "pages_lost": bool(self._pages and self._pages.lost),
            "sent_bytes": self._pages.sent_bytes if self._pages else 0,
        }

    def _freeze(self) -> Message:
        """Freeze and dump the tree; says `frozen`, then `ready`, and answers `silent`.

        One that stands still already is dumped. On any failure the container is given back.
        """
        with self._giving_back():
            if self._frozen_at is None:
                self._get_frozen(self._say_frozen)
            else:
                self._say_frozen()
            self._silence()  # from here on nothing may reach, or leave, what CRIU writes down
            pids = self._cgroup.pids()
            self._dump.go(pids)
            self._dump.wait_until_ready(self._order.settings.freeze_limit_s, pids)
            self._cgroup.ask_to_freeze()  # CRIU thawed it to dump it; now ptrace alone holds the tree
            if self._pages is not None:
                self._pages.start(PAGE_SERVER_PORT, pids)
            self._control.say({"event": "ready", "images": str(self._dump.images)})
            self._dump.confirm()  # while the target restores
        return {"event": "silent"}

    def _say_frozen(self) -> None:
        self._control.say({"event": "frozen", "at": time.time()})

    def _stand_still(self) -> Message:
        """Freeze the tree, and leave all else to `freeze`: what shares its network has to stand first."""
        at: list[float] = []
        with self._giving_back():
            self._get_frozen(lambda: at.append(time.time()))
        return {"event": "still", "at": at[0]}

    def _get_frozen(self, tell: Callable[[], None]) -> None:
        """Let runc come as far as it can, then freeze the tree; `tell` is called just before."""
        self._frozen_at = time.monotonic()
        pids = self._cgroup.pids()
        self._dump.start(pids)
        self._dump.foresee(pids)
        self._dump.wait_at_turnstile(BEGIN_LIMIT_S)
        tell()
        self._cgroup.freeze(FREEZE_WAIT_S)

    @contextmanager
    def _giving_back(self) -> Iterator[None]:
        """Give the container back when what is done in the block fails."""
        try:
            yield
        except (LifeboatError, OSError):
            self._journal.decide(self._order.migration, Decision.ABORT)
            self._give_back()
            raise

    def _in_flight(self) -> Message:
        packets = self._capture.packets() if self._capture is not None else []
        return {"event": "in-flight", "packets": as_words(packets)}

    def _silence(self) -> None:
        if self._capture is not None:
            with suppress(OSError):  # then senders repeat what comes now
                self._capture.begin()
        (self._porter or self._new_porter()).shut()

    def _abort(self) -> Message:
        if not may_give_back(self._journal.decide(self._order.migration, Decision.ABORT)):
            raise ExecutionError("the migration is committed: the source never runs it again", code="committed")
        self._give_back()
        return {"event": "aborted"}

    def _give_back(self) -> None:
        """Undo whatever was done and let the container run on as if nothing had happened."""
        self._status = 1
        if self._frozen_at is None:
            if self._porter is not None:
                self._porter.dismiss()
            return
        if self._pages is not None:
            self._pages.fail()  # CRIU lets go of the tree on a page server error, and kills it on a clean end
        tree = FrozenTree(self._cgroup, self._namespace)
        if self._dump.wait(ABORT_WAIT_S) is None:
            tree.hold()
            self._dump.kill()
        tree.give_back()
        _log.info("thawed after %.3f s", time.monotonic() - self._frozen_at)
        self._hear()

    def _hear(self) -> None:
        """Let the container have what came while it stood still; its senders would repeat it seconds later."""
        if self._capture is not None:
            with suppress(OSError):
                replay(self._namespace, self._order.addresses, self._capture.packets())

    def _resume(self) -> Message:
        """A human lets the committed container run here again; the journal has that word."""
        if self._journal.fate(self._order.migration) is not Fate.RESUME:
            raise ExecutionError("nobody said that it may run here again", code="committed")
        self._capture = None  # what was kept may have been answered at the target, hours ago
        self._give_back()
        return {"event": "resumed"}

    def _sever(self) -> None:
        """Tell the peers of connections that do not move along that these are over."""
        try:
            repair.end_repair(self._cgroup.pids())
            gate.let_speak(self._namespace, self._order.left_behind)
            sever(self._namespace, self._order.left_behind)
        except (LifeboatError, OSError) as error:
            _log.error("connections that stay behind: %s", error)

    def _release(self) -> Message:
        """The target has everything: kill the frozen tree and let podman clean up after it."""
        if self._journal.decision(self._order.migration) is not Decision.COMMIT:
            raise ExecutionError("not committed: nothing may be released", code="not-committed")
        if self._order.left_behind:
            self._sever()
        self._cgroup.kill()
        if self._pages is not None:
            self._pages.finish()
        if self._order.method is Method.LAZY and self._dump.wait(RELEASE_WAIT_S) is None:
            self._dump.kill()
        self._cgroup.end(RELEASE_WAIT_S)
        self._dump.drop_memory()
        self._status = 0
        return {"event": "released"}


def _capture(namespace: Path) -> Capture | None:
    """Return what will keep packets that come during the freeze; without it they are repeated by their senders."""
    try:
        return Capture(namespace)
    except OSError as error:
        _log.warning("packets that come during the freeze are not carried along: %s", error)
        return None
