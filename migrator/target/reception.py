"""The target's side of a migration: reserves, receives, parks, restores, opens the gate, drains.

A `Reception` is one incoming migration. Everything that outlives the daemon (the parked podman, the page
sink) is a program of its own with a control socket in the migration's directory, so a restarted daemon
builds its receptions anew from the journal and these sockets. What follows from what is in migrator.protocol.steps.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from migrator.container.here import require_fit
from migrator.container.settle import settle
from migrator.control import ControlClient
from migrator.errors import ExecutionError, LifeboatError, PrerequisiteError
from migrator.model import Method, Phase
from migrator.pager.sink import SinkState
from migrator.protocol import evidence
from migrator.protocol.journal import Decision, Fate
from migrator.protocol.messages import Accepted, Opened, ParkRequest, Proposal, Report, Standing
from migrator.protocol.steps import Reply, answer_abort, answer_commit, answer_yield, sealed_as
from migrator.runtime import podman, tombstone
from migrator.storage.disks import Disks
from migrator.storage.sync import LAYER, SHARED_MEMORY
from migrator.storage.volumes import Volumes
from migrator.target.arrival import Arrival, ParkedRestore
from migrator.target.created import CreatedContainer
from migrator.target.delivery import Delivery
from migrator.target.drain import Drain
from migrator.target.hall import Hall
from migrator.target.record import Record


class Reception:
    """One incoming migration."""

    def __init__(self, hall: Hall, proposal: Proposal, *, stale: bool = False) -> None:
        """`stale` says that it starts from a checkpoint of the past."""
        self._hall = hall
        self.proposal = proposal
        self._id = proposal.migration
        self.directory = hall.runtime / "migrations" / self._id
        self._staging = hall.state / "staging" / self._id
        self._lock = threading.RLock()
        self.record = Record(hall, proposal)
        self._drain = Drain(hall, proposal, self.directory)
        places = (self.directory, self._staging)
        self._arrival: Arrival = ParkedRestore(hall, proposal, *places, self._drain, stale=stale)
        if proposal.method is Method.COLD:
            self._arrival = CreatedContainer(hall, proposal, *places)
        self._volumes = Volumes(proposal.container)
        self.delivery = Delivery(self._drain, self.record, Disks(self._volumes.places), proposal.method)
        self._stale = stale
        self._restored_in_ms = 0.0
        self._opened_at: float | None = None
        self.may_have_spoken = False  # whether the gate may have been open
        self._accepted: Accepted | None = None
        self._standing = Standing.RESERVED
        self._reason = ""
        self._heard_at = time.monotonic()

    @property
    def ended(self) -> bool:
        """Say whether it is over, and the journal says so."""
        return self.record.ended

    @property
    def standing(self) -> Standing:
        """Return how it stood when somebody last looked."""
        return self._standing

    def touch(self) -> None:
        """The source was heard."""
        self._heard_at = time.monotonic()

    @property
    def quiet_s(self) -> float:
        """Return for how long the source was not heard."""
        return time.monotonic() - self._heard_at

    @property
    def reserved_bytes(self) -> int:
        """Return the memory this migration will still take from this host; room for it is taken already."""
        waits = self._standing.takes_memory and not (self.delivery.memory_is_here or self.ended)
        return max(0, self.proposal.container.memory_bytes - self._drain.room_bytes) if waits else 0

    def reserve(self) -> Accepted:
        """Take the reservation; start the page sink, so that the source can call it at once."""
        with self._lock:
            if self._accepted is not None:
                return self._accepted
            needs_image = require_fit(self._hall, self.proposal.container, copy_image=self.proposal.copy_image)
            tombstone.check_hook()
            self.record.begin()
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            accepted = Accepted(migration=self._id, needs_image=needs_image, pager_port=0)
            if self.proposal.method is Method.LAZY:
                accepted = self._drain.offer(needs_image=needs_image)
            self._hall.stagings.give(self.proposal, self._volumes, self._staging)
            self.delivery.get_ready()
            self._accepted = accepted
            return accepted

    def tree_path(self, tree: str) -> Path:
        """Return where a tree of this migration lies here; raises `PrerequisiteError` for any other name."""
        if tree == LAYER:
            return self._arrival.layer()
        if tree == SHARED_MEMORY and (path := self._arrival.shared_memory()):
            return path
        if path := self._volumes.path(tree):
            return path
        raise PrerequisiteError(f"this migration has no tree {tree!r} here", code="no-such-tree")

    def park(self, request: ParkRequest) -> None:
        """Prepare everything up to the last step; the request was looked through."""
        with self._lock:
            if self._standing is not Standing.RESERVED:
                self._check(Standing.PARKED)
                return
            tombstone.ban(
                self._hall.state, self.proposal.container, unit=self.proposal.container.quadlet is not None
            )
            self._arrival.park(request)
            if self.proposal.method is Method.COLD:
                self.delivery.write_ahead()
            self._standing = Standing.PARKED
            self.record.write(Phase.PREPARE, "restore parked")

    def restore(self, images: bytes | None) -> None:
        """Bring the tree up behind the gate; it stands still. `images` is None when they came as a stream."""
        with self._lock:
            if self._standing is Standing.RESTORED:
                return
            self._check(Standing.PARKED)
            began_at = time.time()
            self._arrival.make_ready(images)
            if self.proposal.method is Method.COLD or self._stale:
                self.delivery.write_files()  # it may start, also by itself, as soon as it is committed
            self._standing = Standing.RESTORED
            self._restored_in_ms = (time.time() - began_at) * 1000

    def _check(self, wanted: Standing) -> None:
        if self._standing is not wanted:
            raise ExecutionError(f"this migration is {self._standing} here, not {wanted}", code=f"not-{wanted}")

    @property
    def images_directory(self) -> Path:
        """Return where the images of a full migration are to be unpacked."""
        return self._arrival.images

    def commit(self, packets: Sequence[bytes] = ()) -> Opened:
        """The source has committed: the container is ours from here on, whatever happens.

        Every step may be repeated, for a daemon may die, or an answer be lost, after any of them. `packets` came to
        the source meanwhile, and are given to the container.
        """
        with self._lock:
            reply = answer_commit(self._standing, self.record.decision)
            if reply is Reply.REFUSE:
                raise ExecutionError(f"this migration is {self._standing} here", code="not-restored")
            self.record.commit()
            opened_now = self._opened_at is None
            if self._opened_at is None:
                self._opened_at = self._open()
            self._arrival.hear(packets)
            if reply is Reply.DO:
                self._let_memory_flow()
            if opened_now:
                self.record.opened(self._restored_in_ms)
            return Opened(migration=self._id, at=self._opened_at)

    def _open(self) -> float:
        """Open the gate; return when (Unix seconds). A lazy tree says nothing before its memory flows."""
        self.may_have_spoken = self.proposal.method is not Method.LAZY
        try:
            return self._arrival.open()
        except LifeboatError as error:
            if not self._arrival.lives:
                self._lose(f"the restored container is gone: {error}")
            raise

    def _let_memory_flow(self) -> None:
        self.may_have_spoken = True
        if self.proposal.method is Method.LAZY and not (self._arrival.pid or self.record.was_drained):
            self._arrival.pid = podman.first_pid(self.proposal.container.id)  # what is frozen on a loss
        try:
            self.delivery.begin(self._arrival.pid)
        except LifeboatError as error:
            if self.delivery.look().state is SinkState.LOST:
                self._lose(f"{error}: its memory cannot come any more")
            raise
        self._standing = Standing.DRAINING

    def _lose(self, reason: str) -> None:
        if self._standing is not Standing.LOST:
            self._arrival.freeze()
            self._standing, self._reason = Standing.LOST, reason
            self.record.write(Phase.DRAIN, f"lost: {reason}")

    def adopt(self, shim: ControlClient | None) -> None:
        """Take up what an earlier daemon began: the parked or restored podman, and the page sink."""
        with self._lock:
            self._heard_at = float("-inf")  # look at it soon
            decision, fate = self.record.decision, self.record.fate
            if shim is not None and isinstance(self._arrival, ParkedRestore):
                self._arrival.adopt(shim)
                self._standing = Standing.RESTORED if self._arrival.ready else Standing.PARKED
                self._standing = sealed_as(fate) if fate else self._standing
            elif decision is Decision.COMMIT and (
                self.proposal.method is not Method.COLD or fate or self._arrival.rises()
            ):
                self.may_have_spoken = True  # the shim ends well only after it opened the gate
                self._take_up_committed()
            elif self._arrival.ready and self._arrival.lives:
                self._standing = Standing.RESTORED
            else:
                self._standing, self._reason = Standing.LOST, f"{self._hall.host} lost what was parked here"

    def _take_up_committed(self) -> None:
        self._opened_at = time.time()
        lazy, drained = self.proposal.method is Method.LAZY, self.record.was_drained
        if fate := self.record.fate:
            self._standing = sealed_as(fate)
        elif drained and self.record.was_written:
            self._standing = Standing.DRAINED
        elif (drained and self.directory.exists()) or (self.remains and (self._drain.present or not lazy)):
            self._let_memory_flow()  # it may have ended by itself meanwhile, but this host was not down
        else:
            self._lose(f"{self._hall.host} was down before it had all memory, and all files on its disks")

    def report(self) -> Report:
        """Tell how the migration stands, and notice here that its drain has ended, or what was parked has died."""
        with self._lock:
            if self._standing is Standing.DRAINING:
                if self.delivery.look().state is SinkState.LOST:
                    self._lose(self.delivery.progress.reason)
                elif self.delivery.complete:
                    self._standing = Standing.DRAINED
            elif self._standing in (Standing.PARKED, Standing.RESTORED) and not self._arrival.lives:
                self._lose("what was restored here is gone: its shim died")
            progress = self.delivery.progress
            return Report(
                migration=self._id,
                standing=self._standing,
                drained_bytes=progress.drained_bytes,
                drain=progress.details,
                drain_s=progress.drain_s,
                reason=self._reason,
                unwritten=self.delivery.trouble if self.delivery.memory_is_here else "",
            )

    @property
    def remains(self) -> bool:
        """Say whether the tree is here; it is not when this host was down meanwhile."""
        return self._arrival.remains

    def abandon(self, reason: str) -> None:
        """Abort on behalf of a source that is quiet, unless something was restored meanwhile without a word."""
        with self._lock:
            if self.record.decision is not None or self._standing is not Standing.RESTORED:
                self.abort(reason)

    def abort(self, reason: str) -> None:
        """Undo everything here; refused after the commit."""
        with self._lock:
            if answer_abort(self._standing, self.record.decision) is Reply.AGAIN:
                return
            self.record.abort()
            self._reason = reason
            self._arrival.abort()
            self._remove()
            self._volumes.remove()
            self._standing = Standing.ABORTED
            self._end(Phase.ABORTED, reason)

    def yield_container(self) -> None:
        """A human resumes the container at the source: promise that it never runs here, and clear away."""
        with self._lock:
            standing = self.report().standing
            reply = answer_yield(standing, self.record.decision, self.record.fate)
            if reply is Reply.REFUSE:
                raise ExecutionError(f"this migration is {standing} here: it runs here", code="runs-here")
            if reply is Reply.AGAIN and (self.ended or self.record.fate is None):
                return
            if self.record.decision is None:
                self.abort("a human resumes it at the source")
                return
            self.record.seal(Fate.YIELD)
            self.stay_away()

    def take_over(self) -> None:
        """A human lets the container start here, from its files; the source is dead, or has committed it to us."""
        with self._lock:
            self.record.commit()
            self.record.seal(Fate.FALL_BACK)
            self._standing, self._reason = Standing.FALLING_BACK, self._reason or "its source is dead"
        self.delivery.write_files()
        self.fall_back()

    def give_way(self) -> None:
        """The source says that a human resumed the container there, perhaps while this host was down."""
        if self.record.decision is Decision.COMMIT:
            self.stay_away()
        else:
            self.abort("a human resumed it at the source")

    def stay_away(self) -> None:
        """Clear away a committed container that a human has resumed at the source."""
        with self._lock:
            self._remove()
            self._standing = Standing.YIELDED
            self._end(Phase.LOST, "a human resumed it at the source")

    def fall_back(self) -> None:
        """The memory will not come: start the container anew from its files, as a crash of it would end."""
        with self._lock:
            if self.ended:
                return  # by a human's word and by ourselves at once
            self._kill_lost()
            tombstone.clear(self._hall.state, self.proposal.container)
            self._arrival.start_anew()
            self._standing = Standing.FELL_BACK
            self._end(Phase.LOST, f"{self._reason or 'the memory did not come'}; started anew from its files")

    def make_way(self, aside: Path) -> None:
        """The memory will not come, and it starts from a checkpoint: remove it, and put its own layer aside."""
        with self._lock:
            self._kill_lost()
            self._arrival.put_aside(aside / LAYER)
            tombstone.leave(self._hall.state, self.proposal.container, self._hall.host, self._id)
            self._remove()
            self._standing = Standing.FELL_BACK
            self._end(Phase.LOST, f"{self._reason}; it goes back to its checkpoint")

    def _kill_lost(self) -> None:
        self.record.seal(Fate.FALL_BACK)
        self._standing = Standing.FALLING_BACK
        if self._opened_at is None:
            self._arrival.surrender()
        podman.kill_and_wait(self.proposal.container.name)

    def forget(self) -> None:
        """A human throws away what is here of a lost container."""
        with self._lock:
            if self._standing not in (Standing.LOST, Standing.FALLING_BACK):
                raise ExecutionError(f"this migration is {self._standing} here", code="not-lost")
            self._hall.journal.seal(self._id, Fate.FORGET)
            self._remove()
            self._end(Phase.LOST, f"{self._reason}; a human threw it away")

    def complete(self) -> None:
        """The memory is here and the source is released: take the scaffolding down."""
        with self._lock:
            if self.ended:
                return
            self._arrival.close()
            report = self.report()
            self._check(Standing.DRAINED)
            tombstone.clear(self._hall.state, self.proposal.container)
            self._arrival.settle()
            for missing in settle(self.proposal.container):
                self.record.write(Phase.DRAIN, missing)
            self._hall.checkpoints.remove(self.proposal.container.id)
            self._standing = Standing.COMPLETE
            self._end(Phase.DONE, "complete", report)

    @property
    def given_up(self) -> bool:
        """Say whether somebody removed the container of a lost drain."""
        return not podman.has_container(self.proposal.container.id)

    def lose(self) -> None:
        """Somebody removed the container: only now, with the tree dead, may its userfaultfds close."""
        with self._lock:
            self._remove()
            self._end(Phase.LOST, f"{self._reason}; somebody removed the container")

    def _remove(self) -> None:
        """Kill what is here and remove it; the tree first, then what holds its userfaultfds."""
        if tombstone.is_banned(self._hall.state, self.proposal.container):
            podman.remove_container(self.proposal.container.name)
            self._arrival.withdraw()
            tombstone.lift(self._hall.state, self.proposal.container)

    def _end(self, phase: Phase, reason: str, report: Report | None = None) -> None:
        evidence.keep(self.directory, self._hall.state, self._id)
        self._drain.end()
        self.delivery.close()
        with suppress(LifeboatError):
            self._arrival.close()
        shutil.rmtree(self._staging, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)
        tombstone.disallow(self.proposal.container)
        self.record.end(phase, reason, report)
