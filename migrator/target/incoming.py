"""One incoming migration: what is known of it at its target, and how it ends there if it is not complete.

Until the commit it may be aborted at any moment. After it the memory may be lost, and then it falls back, goes back
to a checkpoint, or yields to a human at the source. How it comes, and completes, is migrator.target.reception.
"""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

from migrator.container import removal
from migrator.errors import ExecutionError, LifeboatError
from migrator.model import Method, Phase
from migrator.pager.sink import SinkState
from migrator.protocol import evidence
from migrator.protocol.journal import Decision, Fate
from migrator.protocol.messages import Accepted, Proposal, Report, Standing
from migrator.protocol.steps import Reply, answer_abort, answer_yield, with_its_pod
from migrator.runtime import podman, tombstone
from migrator.storage.disks import Disks
from migrator.storage.sync import LAYER
from migrator.storage.volumes import Volumes
from migrator.target.arrival import Arrival, ParkedRestore
from migrator.target.created import CreatedContainer
from migrator.target.delivery import Delivery
from migrator.target.drain import Drain
from migrator.target.hall import Hall
from migrator.target.record import Record

MADE = "made"  # below the state directory: what was made for containers that come, by migration


class Incoming:
    """One incoming migration."""

    def __init__(self, hall: Hall, proposal: Proposal, *, stale: bool = False, adopted: bool = True) -> None:
        """`stale` says that it starts from a checkpoint of the past; not `adopted`: an earlier daemon began it."""
        self.adopted = adopted
        self._reserved = not adopted  # this host has taken it on; until then what has its name or id is another's
        self._hall = hall
        self.proposal = proposal
        self._id = proposal.migration
        self.directory = hall.runtime / "migrations" / self._id
        self._staging = hall.state / "staging" / self._id
        self._lock = threading.RLock()
        self.record = Record(hall, proposal)
        self._drain = Drain(hall, proposal, self.directory)
        places = (self.directory, self._staging)
        self._pod = hall.pods.of(hall.state, hall.runtime, proposal)
        self._arrival: Arrival = ParkedRestore(hall, proposal, *places, self._drain, stale=stale, pod=self._pod)
        if proposal.method is Method.COLD:
            self._arrival = CreatedContainer(hall, proposal, *places)
        self._volumes = Volumes(proposal.container, hall.state / MADE / f"{self._id}.json")
        self.delivery = Delivery(self._drain, self.record, Disks(self._volumes.places), proposal.method)
        self._stale = stale
        self._restored_in_ms = 0.0
        self._opened_at: float | None = None
        self._noted = False  # that it was opened
        self._felled = False
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

    def report(self) -> Report:
        """Tell how the migration stands, and notice here that its drain has ended, or what was parked has died.

        Raises `ExecutionError` while nobody knows, after this daemon's start.
        """
        with self._lock:
            self._check_adopted()
            self._follow_pod()
            if self._standing is Standing.DRAINING:
                if self.delivery.look().state is SinkState.LOST:
                    self._lose(self.delivery.progress.reason)
                elif self.delivery.complete:
                    self._standing = Standing.DRAINED
            elif self._waits and not self._arrival.lives:
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
    def _waits(self) -> bool:
        """Say whether it waits behind its gate; once that was open the one who held it there may be gone."""
        return self._standing in (Standing.PARKED, Standing.RESTORED) and self._opened_at is None

    def _follow_pod(self) -> None:
        """What was decided of one member was decided of all; and they have lost what one of them has lost."""
        if self._pod is None:
            return
        stands = with_its_pod(self._standing, self.record.fate, lost=bool(self._pod.lost))
        if stands is self._standing:
            return
        if not self._arrival.pid:  # an earlier daemon opened it
            with suppress(LifeboatError):
                self._arrival.pid = podman.first_pid(self.proposal.container.id)
        self._arrival.freeze()  # before anybody hears that it does not run here any more
        if stands is Standing.LOST:
            self._lose(f"it belongs together with {self._pod.lost}")
        self._standing = stands

    def _lose(self, reason: str) -> None:
        if self._pod is not None and not self._pod.lost:
            self._pod.lost = f"{self.proposal.container.name}: {reason}"
        if self._standing is not Standing.LOST:
            self._arrival.freeze()
            self._standing, self._reason = Standing.LOST, reason
            self.record.write(Phase.DRAIN, f"lost: {reason}")

    def _check(self, wanted: Standing) -> None:
        if self._standing is not wanted:
            raise ExecutionError(f"this migration is {self._standing} here, not {wanted}", code=f"not-{wanted}")

    def _check_reserved(self) -> None:
        """Raise `ExecutionError` unless this host has taken it on, and knows what became of it since."""
        if not self._reserved:
            raise ExecutionError("this migration was not taken on here", code="not-reserved")
        self._check_adopted()

    def _check_adopted(self) -> None:
        if not self.adopted:
            raise ExecutionError("nobody here knows yet how it stands", code="not-taken-up", temporary=True)

    @property
    def remains(self) -> bool:
        """Say whether the tree is here; it is not when this host was down meanwhile."""
        return self._arrival.remains

    @property
    def given_up(self) -> bool:
        """Say whether somebody removed the container of a lost drain.

        Raises `LifeboatError` when podman cannot tell.
        """
        known = self._arrival.known_as
        return not known or not podman.has_container(known)

    def abandon(self, reason: str) -> None:
        """Abort on behalf of a source that is quiet, unless something was restored meanwhile without a word."""
        with self._lock:
            waits_for_a_word = not self.adopted or self._standing is Standing.RESTORED
            if self.record.decision is not None or not waits_for_a_word:
                self.abort(reason)

    def abort(self, reason: str) -> None:
        """Undo everything here; refused after the commit."""
        with self._lock:
            if answer_abort(self._standing, self.record.decision) is Reply.AGAIN:
                return
            self.record.abort()
            self._reason = reason
            if self._reserved:
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

    def claim(self) -> None:
        """A human lets the container start here, from its files; the source is dead, or has committed it to us."""
        with self._lock:
            self.record.commit()
            self.fell()
            self._reason = self._reason or "its source is dead"

    def take_over(self) -> None:
        """Do it: it, and all of its pod, was claimed."""
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
            self._hall.checkpoints.remove(self.proposal.container.id)  # it is of the past, and runs elsewhere
            self._standing = Standing.YIELDED
            self._end(Phase.LOST, "a human resumed it at the source")

    def fall_back(self) -> None:
        """The memory will not come: start the container anew from its files, as a crash of it would end."""
        with self._lock:
            if self.ended:
                return  # by a human's word and by ourselves at once
            self.fell()
            tombstone.clear(self._hall.state, self.proposal.container)
            self._arrival.start_anew()
            self._hall.checkpoints.remove(self.proposal.container.id)
            self._standing = Standing.FELL_BACK
            self._end(Phase.LOST, f"{self._reason or 'the memory did not come'}; started anew from its files")

    def make_way(self, aside: Path) -> None:
        """The memory will not come, and it starts from a checkpoint: remove it, and put its own layer aside."""
        with self._lock:
            self.fell()
            self._arrival.put_aside(aside / LAYER)
            tombstone.leave(self._hall.state, self.proposal.container, self._hall.host, self._id)
            self._remove()
            self._standing = Standing.FELL_BACK
            self._end(Phase.LOST, f"{self._reason}; it goes back to its checkpoint")

    def fell(self) -> None:
        """Kill what will be started anew, once; all of a pod before any of it starts and talks to what must go."""
        with self._lock:
            if self.ended or self._felled:
                return
            self.record.seal(Fate.FALL_BACK)
            self._standing = Standing.FALLING_BACK
            if self._opened_at is None:
                self._arrival.surrender()
            podman.kill_and_wait(self._arrival.known_as)
            self._felled = True

    def forget(self) -> None:
        """A human throws away what is here of a lost container."""
        with self._lock:
            self.check_lost()
            self._hall.journal.seal_all(self.proposal.together, Fate.FORGET)
            self._remove()
            self._hall.checkpoints.remove(self.proposal.container.id)
            self._end(Phase.LOST, f"{self._reason}; a human threw it away")

    def check_lost(self) -> None:
        """Raise `ExecutionError` unless its memory did not come."""
        if self._standing not in (Standing.LOST, Standing.FALLING_BACK):
            raise ExecutionError(f"this migration is {self._standing} here", code="not-lost")

    def lose(self) -> None:
        """Somebody removed the container: only now, with the tree dead, may its userfaultfds close."""
        with self._lock:
            self._remove()
            self._end(Phase.LOST, f"{self._reason}; somebody removed the container")

    def _remove(self) -> None:
        """Kill what is here and remove it; the tree first, then what holds its userfaultfds.

        Only what came by this migration: of its name there may be another, which is somebody else's. Raises
        `LifeboatError`, and the ban stays, when it may still be here.
        """
        if tombstone.is_banned(self._hall.state, self.proposal.container):
            if known := self._arrival.known_as:
                removal.remove(known, self.proposal.container.name)
            self._arrival.withdraw()
            tombstone.lift(self._hall.state, self.proposal.container)

    def _end(self, phase: Phase, reason: str, report: Report | None = None) -> None:
        evidence.keep(self.directory, self._hall.state, self._id)
        self._drain.end()
        self.delivery.close()
        with suppress(LifeboatError):
            self._arrival.close()
        self._volumes.keep()
        shutil.rmtree(self._staging, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._reserved:
            tombstone.disallow(self.proposal.container)
        if self._pod is not None:
            self._pod.leave(self._id)
        self.record.end(phase, reason, report)
