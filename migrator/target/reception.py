"""The target's side of a migration: reserves, receives, parks, restores, opens the gate, drains.

A `Reception` is one incoming migration. Everything that outlives the daemon (the parked podman, the page
sink) is a program of its own with a control socket in the migration's directory, so a restarted daemon
builds its receptions anew from the journal and these sockets. What follows from what is in migrator.protocol.steps.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from migrator.admission.rules import Joined
from migrator.container.here import require_fit
from migrator.container.settle import settle
from migrator.control import ControlClient
from migrator.errors import ExecutionError, LifeboatError, PrerequisiteError
from migrator.model import Method, Phase
from migrator.pager.sink import SinkState
from migrator.protocol.journal import Decision
from migrator.protocol.messages import Accepted, Opened, ParkRequest, Standing
from migrator.protocol.steps import Reply, answer_commit, sealed_as
from migrator.runtime import podman, tombstone
from migrator.storage.sync import LAYER, POD_MEMORY, SHARED_MEMORY
from migrator.target.arrival import ParkedRestore
from migrator.target.incoming import Incoming


class Reception(Incoming):
    """One incoming migration."""

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
            self._reserved = True
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            accepted = Accepted(migration=self._id, needs_image=needs_image, pager_port=0)
            if self.proposal.method is Method.LAZY:
                accepted = self._drain.offer(needs_image=needs_image)
            self._hall.stagings.give(self.proposal, self._volumes, self._staging)
            self.delivery.get_ready()
            self._accepted = accepted
            return accepted

    def tree_path(self, tree: str) -> Path:
        """Return where a tree of this migration lies here; raises `LifeboatError` for any other name."""
        self._check_reserved()
        if tree == LAYER:
            return self._arrival.layer()
        if tree == SHARED_MEMORY and (path := self._arrival.shared_memory()):
            return path
        if tree == POD_MEMORY and self._pod is not None and (path := self._pod.shared_memory):
            return path
        if path := self._volumes.path(tree):
            return path
        raise PrerequisiteError(f"this migration has no tree {tree!r} here", code="no-such-tree")

    def joined(self) -> Joined | None:
        """Return the pod that the container comes into, made here if need be; None for one without."""
        with self._lock:
            if self._pod is None or self._standing is not Standing.RESERVED:
                return self._pod.joined if self._pod is not None else None
            self._check_reserved()
            return self._pod.make()

    def park(self, request: ParkRequest) -> None:
        """Prepare everything up to the last step; the request was looked through.

        Raises `ExecutionError` where no reservation was taken: a container of this id may be this host's own.
        """
        with self._lock:
            if self._standing is not Standing.RESERVED:
                self._check(Standing.PARKED)
                return
            self._check_reserved()
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
            if self._pod is not None:
                self._pod.allow()
            if self._opened_at is None:
                self._opened_at = self._open()
            self._arrival.hear(packets)
            try:
                if reply is Reply.DO:
                    self._let_memory_flow()
            finally:
                self._note_opening()  # behind it, for the container waits for its memory
            return Opened(migration=self._id, at=self._opened_at)

    def _note_opening(self) -> None:
        """It may speak here, and is ours: or it could never go back, for an epoch that nobody has heard of."""
        if not self._noted:
            self.record.opened(self._restored_in_ms)
            self._noted = True

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

    def adopt(self, shim: ControlClient | None) -> None:
        """Take up what an earlier daemon began: the parked or restored podman, and the page sink."""
        with self._lock:
            try:
                self._adopt(shim)
            except LifeboatError:
                self.adopted = self._standing is Standing.LOST  # that is known, at least
                raise
            self.adopted = True

    def _adopt(self, shim: ControlClient | None) -> None:
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
        self._hall.journal.learn_epoch(self.proposal.container.id, self.proposal.epoch)
        self._noted = True
        lazy, drained = self.proposal.method is Method.LAZY, self.record.was_drained
        if fate := self.record.fate:
            self._standing = sealed_as(fate)
        elif drained and self.record.was_written:
            self._standing = Standing.DRAINED
        elif (drained and self.directory.exists()) or (self.remains and (self._drain.present or not lazy)):
            self._let_memory_flow()  # it may have ended by itself meanwhile, but this host was not down
        else:
            self._lose(f"{self._hall.host} was down before it had all memory, and all files on its disks")

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
