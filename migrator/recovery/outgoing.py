"""Brings to an end the migrations away from this host that have none: after the daemon's own death, after a reboot,
and where a human was called and the waiting goes on.

The shims and the pagers lived on in their scopes. Without a decision the container is given back (its shim has
done so already, for it heard the daemon die); a committed one goes on draining and is released. What comes in from
others is looked after by migrator.recovery.incoming.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from migrator.errors import ExecutionError, LifeboatError, failure
from migrator.model import MigrationOutcome, Phase
from migrator.peers.client import PeerClient
from migrator.peers.membership import PeerDirectory
from migrator.protocol.journal import Decision, Entry, Fate, Journal
from migrator.protocol.messages import Report, Standing
from migrator.protocol.steps import Claim, claim_after_reboot
from migrator.runtime import podman, tombstone
from migrator.source.departure import Departure
from migrator.source.migration import Journey, SourceMigration

ASK_WAIT_S = 10.0
AGAIN_S = 5.0

Ended = Callable[[MigrationOutcome], None]
Failed = Callable[[str], None]

_log = logging.getLogger(__name__)


def entry_of(journal: Journal, migration: str) -> Entry | None:
    """Return what the journal knows of a migration, as soon as it can be read."""
    while True:
        try:
            return journal.entry(migration)
        except LifeboatError as error:
            _log.error("%s", error)
            time.sleep(AGAIN_S)


class SourceRecovery:
    """One migration away from this host that has no end yet."""

    def __init__(self, shared: Departure, entry: Entry, peers: PeerDirectory) -> None:
        self._shared = shared
        self._entry = entry
        self._told = {entry.outcome.error_code} if entry.outcome is not None else set()
        self.journey = Journey.model_validate_json(entry.request)
        self.client = PeerClient(peers.known(self.journey.target), peers.pki)
        self.migration = SourceMigration(
            shared,
            migration=entry.migration,
            container=self.journey.container,
            target=self.client,
            method=self.journey.method,
            observe=lambda _: None,
            company=self.journey.company,
            epoch=self.journey.epoch,
        )

    def run(self, ended: Ended, failed: Failed) -> None:
        """Bring it to its end, however long that takes; `failed` takes what a human must know meanwhile.

        What fails is tried again: a podman that does not answer, a disk that takes no row.
        """
        while True:
            try:
                self._bring_to_an_end(ended, failed)
            except Exception as raised:  # noqa: BLE001  whatever it is, the container is still owed its end
                error = failure(raised)
                if self._is_news(error):
                    failed(f"{self.journey.container.name} has still no end of its migration: {error}")
                time.sleep(AGAIN_S)
            else:
                return

    def _is_news(self, error: LifeboatError) -> bool:
        """Say whether nobody has heard of this trouble yet; several may take turns."""
        news = error.code not in self._told
        self._told.add(error.code)
        return news

    def _bring_to_an_end(self, ended: Ended, failed: Failed) -> None:
        self.migration.holding.adopt()
        if self._entry.decision is Decision.COMMIT:  # nothing is to be written, and the target may not know it
            self.follow(ended)
            return
        company = self.migration.company
        if company.unwritten and self._entry.migration in company.owed:  # it does not wait for the disk
            self.migration.take_back()
        first = self._entry.outcome if company.unwritten else None
        undecided = self._entry.decision is None and not company.unwritten
        if undecided and self._was_down_in_the_freeze and not self._ours(failed):
            company.decide(Decision.COMMIT)
        if company.decide(Decision.ABORT) is Decision.COMMIT:
            self.follow(ended)
        elif first is not None and first.phase is Phase.ABORTED:
            # Only the row was missing: it runs here since it was told so; whatever became of it then is not ours.
            self.migration.conclude(ExecutionError(first.error, code="not-committed"))
        else:
            ended(self._revert())

    def follow(self, ended: Ended) -> None:
        """Follow a committed migration until it is released or a human settled it; `ended` hears of it once more
        only when something changes.
        """
        while self._unsettled():
            try:
                self.migration.handover.follow(self._unsettled)
                if self._unsettled():
                    ended(self.migration.end(Phase.DONE, None))
                return
            except Exception as raised:  # noqa: BLE001  whatever it is, the waiting goes on
                error = failure(raised)
                self.migration.company.trouble(error)
                if self._is_news(error):
                    ended(self.migration.end(Phase.LOST, error, settled=False))
            time.sleep(AGAIN_S)

    def ask_target(self) -> Standing | None:
        """Return how the migration stands at the target; None when it does not answer."""
        path = f"/v1/migrations/{self._entry.migration}"
        try:
            return self.client.call("GET", path, None, Report, timeout_s=ASK_WAIT_S).standing
        except LifeboatError:
            return None

    def _unsettled(self) -> bool:
        entry = self._shared.journal.entry(self._entry.migration)
        at_work = entry is not None and entry.fate in (None, Fate.RELEASE)  # else a human is at it
        return entry is not None and not entry.settled and at_work

    @property
    def _was_down_in_the_freeze(self) -> bool:
        """Say whether the container was banned and is not here any more: then somebody may have taken it over."""
        container = self.journey.container
        return tombstone.is_banned(self._shared.state, container) and not podman.is_running(container.id)

    def _ours(self, failed: Failed) -> bool:
        """Ask the target whose the container is, until it answers."""
        name, told = self.journey.container.name, False
        while (claim := claim_after_reboot(None, self.ask_target(), declared_dead=False)) is Claim.ASK:
            if not told:
                why = f"this host died in its freeze, and {self.client.name} does not answer"
                failed(f"{name} stays down: {why}; see: lifeboat recover {self._entry.migration}")
            told = True
            time.sleep(AGAIN_S)
        return claim is Claim.OURS

    def _revert(self) -> MigrationOutcome:
        """Give the container back; one whose host was down starts as its restart policy would have it."""
        error = ExecutionError("lifeboatd ended before the commit; the container stays here", code="daemon-ended")
        if (told := self._entry.outcome) is not None:  # it could not be taken back at once
            error = ExecutionError(f"{told.error}; now it runs here", code="taken-back-late")
        return self.migration.revert(error)
