"""`python -m migrator.shim.standby DIRECTORY`: the source's shim has died after the commit, this takes its place.

The tree stands in its frozen cgroup, so its memory can be served as before: the sink, whose links broke, is called
again. Commands on `shim.sock`: `state`, `release`, `resume`. Podman knows nothing of it; its checkpoint has failed.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from migrator.control import ControlServer, Message
from migrator.errors import ExecutionError, LifeboatError
from migrator.model import Pager
from migrator.pager.source import PageSource
from migrator.protocol.journal import Decision, Fate, Journal
from migrator.runtime.frozen import FrozenTree
from migrator.shim.order import CONTROL, Order, read_order

RELEASE_WAIT_S = 30.0

_log = logging.getLogger("shim")


class Standby:
    """Serves the memory of a frozen tree until it is released, or a human resumes it."""

    def __init__(self, directory: Path, order: Order) -> None:
        tree = FrozenTree.find(order.runc, order.container)
        journal = Journal(Path(order.journal))
        decision, fate = journal.decision(order.migration), journal.fate(order.migration)
        if tree is None or not tree.cgroup.frozen or decision is not Decision.COMMIT or fate is not None:
            raise ExecutionError("no committed container stands frozen here", code="not-frozen")
        if order.pager is None or order.settings.pager is not Pager.LIFEBOAT:
            raise ExecutionError("only lifeboat's own pager can be taken over", code="no-standby")
        self._tree = tree
        self._journal = journal
        self._migration = order.migration
        self._control = ControlServer(directory / CONTROL)
        self._pages = PageSource(order.pager, Path(order.pki), order.migration, order.settings)
        self._ended = False

    def run(self) -> int:
        """Serve commands until the end."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._pages.start(None, self._tree.cgroup.pids())
        commands: dict[str, Callable[[], Message]] = {
            "state": self._state,
            "release": self._release,
            "resume": self._resume,
        }
        while not self._ended:
            message = self._control.wait(1.0)
            if message is not None:
                self._control.say(self._answer(commands, message))
        self._control.close()
        return 0

    def _answer(self, commands: dict[str, Callable[[], Message]], message: Message) -> Message:
        command = commands.get(str(message.get("do")))
        try:
            return command() if command else {"error": "it is committed", "code": "committed"}
        except LifeboatError as error:
            return {"error": error.message, "code": error.code}

    def _state(self) -> Message:
        return {"event": "state", "pages_lost": self._pages.lost, "sent_bytes": self._pages.sent_bytes}

    def _release(self) -> Message:
        self._tree.cgroup.end(RELEASE_WAIT_S)
        self._end()
        return {"event": "released"}

    def _resume(self) -> Message:
        if self._journal.fate(self._migration) is not Fate.RESUME:
            raise ExecutionError("nobody said that it may run here again", code="committed")
        self._tree.give_back()
        self._end()
        return {"event": "resumed"}

    def _end(self) -> None:
        self._pages.finish()
        self._ended = True


def main() -> int:
    """Run it; the argument is its migration's directory."""
    directory = Path(sys.argv[1])
    logging.basicConfig(
        filename=directory / "standby.log", level=logging.INFO, format="%(asctime)s.%(msecs)03d %(message)s"
    )
    try:
        return Standby(directory, read_order(directory)).run()
    except Exception:  # the entry point: the log must tell
        logging.exception("the standby failed")
        return 1


if __name__ == "__main__":
    sys.exit(main())
