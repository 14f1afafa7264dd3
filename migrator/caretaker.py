"""Settles what nobody else will: incoming migrations whose source has gone quiet, or whose daemon has died.

A source that is alive brings its migrations to an end. When it is silent, what may be done here follows from
what was journalled: before the restore the container cannot have been committed, so it may be cleared away;
a restored one only waits, however long, for the source's decision; a committed one is ours.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

from migrator.control import ControlClient
from migrator.errors import LifeboatError
from migrator.hall import Hall
from migrator.journal import Decision, Journal, Side
from migrator.model import MigrationOutcome, Phase
from migrator.peers.client import PeerClient
from migrator.peers.membership import PeerDirectory
from migrator.protocol import DecisionTold, Proposal, Standing
from migrator.shim.order import CONTROL
from migrator.target import Reception

LOOK_S = 3.0
QUIET_S = 10.0  # a source that is at work is heard more often, but for long copies
FORGET_S = 600.0  # an ended migration still answers its source for so long
SHIM_WAIT_S = 2.0
PEER_WAIT_S = 10.0

_log = logging.getLogger(__name__)


class Step(StrEnum):
    """What is to be done with an incoming migration."""

    WAIT = "wait"
    ABORT = "abort"
    COMMIT = "commit"  # or go on with a commit that was cut short
    COMPLETE = "complete"
    LOSE = "lose"  # tell people; when they have removed the container, clear away


AFTER_RESTORE: dict[str, Step] = {Decision.COMMIT: Step.COMMIT, Decision.ABORT: Step.ABORT}


def next_step(standing: Standing, own: Decision | None, told: DecisionTold | None, *, patient: bool) -> Step:
    """Return what follows from the journal's decision here and the source's word.

    `told` is None when the source does not answer; then `patient` says that it may yet come back.
    """
    if own is Decision.ABORT:
        return Step.ABORT
    if standing is Standing.LOST:
        return Step.LOSE
    if standing is Standing.RESTORED:
        word = own or (told.decision if told else "")
        return AFTER_RESTORE.get(word, Step.WAIT)
    if standing is Standing.DRAINED:
        over = told.ended if told else not patient
        return Step.COMPLETE if over else Step.WAIT
    if standing in (Standing.RESERVED, Standing.PARKED) and own is None:
        over = told.decision == Decision.ABORT if told else not patient
        return Step.ABORT if over else Step.WAIT
    return Step.WAIT


class Caretaker:
    """Looks after the receptions of a host, in a thread of its own."""

    def __init__(
        self,
        hall: Hall,
        peers: PeerDirectory,
        receptions: Callable[[], Sequence[Reception]],
        forget: Callable[[str], None],
        tell: Callable[[MigrationOutcome], None],
    ) -> None:
        """`tell` takes a migration whose memory was lost here, for nobody else may be left to say so."""
        self._hall = hall
        self._tell = tell
        self._told: set[str] = set()
        self._peers = peers
        self._receptions = receptions
        self._forget = forget

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._run, name="caretaker", daemon=True).start()

    def look(self) -> None:
        """Settle what can be settled now; one that fails is looked at again later."""
        for reception in self._receptions():
            try:
                self._settle(reception)
            except (LifeboatError, OSError) as error:
                _log.warning("migration %s: %s", reception.proposal.migration, error)

    def _run(self) -> None:
        while True:
            time.sleep(LOOK_S)
            self.look()

    def _settle(self, reception: Reception) -> None:
        quiet_s, migration = reception.quiet_s, reception.proposal.migration
        if reception.ended:
            if quiet_s > FORGET_S:
                self._forget(migration)
            return
        report = reception.report()
        if quiet_s < QUIET_S and report.standing is not Standing.LOST:
            return
        told = self._ask(reception.proposal)
        patient = quiet_s < self._hall.settings.reconnect_limit_s
        step = next_step(report.standing, self._hall.journal.decision(migration), told, patient=patient)
        if step not in (Step.WAIT, Step.LOSE):
            _log.info("migration %s: its source is quiet; %s", migration, step)
        if step is Step.COMMIT:
            reception.commit()
        elif step is Step.COMPLETE:
            reception.complete()
        elif step is Step.ABORT:
            if told is None:
                reception.abandon("its source is gone")
            else:
                reception.abort("its source aborted it")
        elif step is Step.LOSE:
            self._lose(reception, report.reason)

    def _lose(self, reception: Reception, reason: str) -> None:
        if reception.given_up:
            reception.lose()
        elif reception.proposal.migration not in self._told:
            self._told.add(reception.proposal.migration)
            self._tell(reception.outcome(Phase.LOST, reason))

    def _ask(self, proposal: Proposal) -> DecisionTold | None:
        """Ask the source what it decided; None when it does not answer."""
        path = f"/v1/migrations/{proposal.migration}/decision"
        try:
            client = PeerClient(self._peers.peer(proposal.source), self._peers.pki)
            return client.call("GET", path, None, DecisionTold, timeout_s=PEER_WAIT_S)
        except LifeboatError:
            return None


def adopted(hall: Hall, journal: Journal) -> list[Reception]:
    """After a restart: return the incoming migrations that have no end yet, joined to what lived on."""
    found = []
    for entry in journal.entries(unfinished=True):
        if entry.side is not Side.TARGET:
            continue
        reception = Reception(hall, Proposal.model_validate_json(entry.request))
        try:
            reception.adopt(_shim(reception.directory))
        except (LifeboatError, OSError) as error:
            _log.error("migration %s cannot be taken up: %s", entry.migration, error)
        found.append(reception)
    return found


def _shim(directory: Path) -> ControlClient | None:
    try:
        return ControlClient(directory / CONTROL, timeout_s=SHIM_WAIT_S, what="the parked podman")
    except LifeboatError:
        return None
