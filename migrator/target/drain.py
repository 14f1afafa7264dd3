"""The daemon's end of a page sink: a program of its own that goes on when the daemon does not."""

from __future__ import annotations

import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from migrator.control import ControlClient, Message
from migrator.errors import LifeboatError, PrerequisiteError
from migrator.model import DrainDetails, Pager, Transport
from migrator.pager import sink
from migrator.pager.room import RoomState
from migrator.protocol.messages import Accepted, Proposal
from migrator.runtime.scope import Scope
from migrator.target.hall import Hall

CONTROL_WAIT_S = 10.0
LOOK_WAIT_S = 2.0  # much less than its source waits to hear how it stands
GONE_WAIT_S = 0.5
SILENT_LIMIT_S = 120.0  # a swapping host may not answer for long; a container that waits for pages hangs as long
ROOM_POLL_S = 0.05
LAST_PIECE_WAIT_S = 1.0  # 32 MiB, of which the slowest machine measured had 400 MB in a second
GONE = "the page sink is gone"


@dataclass(frozen=True)
class Progress:
    """How far a drain is."""

    state: sink.SinkState
    drained_bytes: int = 0
    drain_s: float = 0.0
    reason: str = ""
    port: int = 0
    details: DrainDetails | None = None


class Drain:
    """The page sink of one incoming migration."""

    def __init__(self, hall: Hall, proposal: Proposal, directory: Path) -> None:
        self._hall = hall
        self._proposal = proposal
        self._directory = directory
        self._client: ControlClient | None = None
        self._seen = Progress(sink.SinkState.WAITING)
        self._silent_since: float | None = None

    @property
    def present(self) -> bool:
        """Say whether there is, or was since this host booted, a sink."""
        return (self._directory / sink.CONTROL).exists()

    def offer(self, *, needs_image: bool) -> Accepted:
        """Start the sink, once; return what its source must know."""
        if not self.present:
            criu = shutil.which("criu")
            if criu is None:
                raise PrerequisiteError(f"{self._hall.host} lacks CRIU", code="target-lacks-criu")
            order = sink.SinkOrder(
                migration=self._proposal.migration,
                source=self._proposal.source,
                pki=str(self._hall.pki),
                ports=self._hall.settings.pager_ports,
                criu=criu,
                pager=self._proposal.pager,
                reconnect_limit_s=self._hall.settings.reconnect_limit_s,
                secret=secrets.token_hex(16),
                room_bytes=self._proposal.container.memory_bytes if self._makes_room else 0,
                plain=self._hall.settings.pager_transport is self._proposal.transport is Transport.PLAIN,
            )
            (self._directory / sink.ORDER).write_text(order.model_dump_json())
            Scope.start_module(f"lifeboat-sink-{self._proposal.migration}", "migrator.pager", self._directory)
            self._connect(CONTROL_WAIT_S)
        told = sink.SinkOrder.model_validate_json((self._directory / sink.ORDER).read_text())
        return Accepted(
            migration=told.migration,
            needs_image=needs_image,
            pager_port=self.progress().port,
            pager_secret=told.secret,
            pager_addresses=self._hall.settings.pager_addresses,
            pager_transport=Transport.PLAIN if told.plain else Transport.TLS,
        )

    @property
    def _makes_room(self) -> bool:
        return self._hall.settings.room_wait_s > 0 and self._proposal.pager is Pager.LIFEBOAT

    @property
    def room_bytes(self) -> int:
        """Return how much memory is kept for what is to come."""
        return RoomState.read(self._directory).held_bytes

    def wait_for_room(self) -> None:
        """Wait until there is room for what is to come, as long as the settings allow; then it grows no more."""
        if not self._is_room_made(self._hall.settings.room_wait_s):
            with suppress(LifeboatError):  # the room is for speed; a sink that is gone is found by what needs it
                self._ask({"do": "brace"})
            self._is_room_made(LAST_PIECE_WAIT_S)

    def _is_room_made(self, limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        while not (made := RoomState.read(self._directory).made) and time.monotonic() < deadline:
            time.sleep(ROOM_POLL_S)
        return made

    def expect(self, images: Path) -> None:
        """The restore is about to begin, with these images."""
        self._ask({"do": "images", "images": str(images)})

    def go(self, pid: int) -> None:
        """The tree with this first pid belongs here: let its memory flow; idempotent."""
        self._ask({"do": "go", "pid": pid})

    def progress(self, timeout_s: float = CONTROL_WAIT_S) -> Progress:
        """Ask the sink; raises `ExecutionError` when it is gone, or silent for `timeout_s` seconds."""
        told = self._ask({"do": "progress"}, timeout_s)
        return Progress(
            state=sink.SinkState(told["event"]),
            drained_bytes=int(told["drained_bytes"]),
            drain_s=float(told["drain_s"]),
            reason=str(told["reason"]),
            port=int(told["port"]),
            details=DrainDetails.model_validate(told["details"]) if told["details"] else None,
        )

    def look(self) -> Progress:
        """As `progress`; a sink that is gone has lost what was still missing, whatever happened to it.

        One that does not answer in time is as far as it was: it, or this host, has a weak moment. That has an end.
        """
        try:
            self._seen, self._silent_since = self.progress(LOOK_WAIT_S), None
        except LifeboatError as error:
            self._silent_since = self._silent_since or time.monotonic()
            if error.code != "control-timeout" or time.monotonic() - self._silent_since > SILENT_LIMIT_S:
                return Progress(sink.SinkState.LOST, reason=GONE if error.code != "control-timeout" else str(error))
        return self._seen

    def end(self) -> None:
        """Let the sink leave, now that the memory is complete or the tree is dead; quiet when it is gone."""
        if self.present:
            with suppress(LifeboatError):
                self._ask({"do": "end"})
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ask(self, message: Message, timeout_s: float = CONTROL_WAIT_S) -> Message:
        if self._client is None:
            self._connect(GONE_WAIT_S)
        assert self._client is not None  # noqa: S101  _connect raises otherwise
        try:
            return self._client.ask(message, timeout_s=timeout_s)
        except LifeboatError:
            self._client.close()
            self._client = None
            raise

    def _connect(self, timeout_s: float) -> None:
        path = self._directory / sink.CONTROL
        self._client = ControlClient(path, timeout_s=timeout_s, what="the page sink")
