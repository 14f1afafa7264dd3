"""How a container that does not leave is taken back: it runs on, and nothing of its migration is left here.

What fails of that is tried again by migrator.recovery.outgoing until it is done.
"""

from __future__ import annotations

import logging

from migrator.container.settle import start_missed
from migrator.errors import LifeboatError, failure
from migrator.model import ContainerFacts
from migrator.protocol.journal import Decision
from migrator.runtime import podman, tombstone
from migrator.source.company import Company
from migrator.source.departure import Departure
from migrator.source.holding import Holding

_log = logging.getLogger(__name__)


class TakingBack:
    """What is owed to one container from the moment on at which it is parked."""

    def __init__(
        self, shared: Departure, migration: str, container: ContainerFacts, company: Company, holding: Holding
    ) -> None:
        self._shared = shared
        self._id = migration
        self._container = container
        self._company = company
        self._holding = holding
        self.runs = True  # it does, or never stood still
        self.complete = True  # nothing else is left of it either
        self.held_by: LifeboatError | None = None  # why it could not be taken back

    def owe(self) -> None:
        """From here on it has to be taken back before its migration is settled."""
        self.runs = self.complete = False
        self._company.owed.add(self._id)

    def attempt(self) -> None:
        """As `do`, but raises nothing."""
        try:
            self.do()
        except Exception as raised:  # noqa: BLE001  it must not hide why it is taken back
            self.held_by = failure(raised)
            _log.error("%s could not be taken back: %s", self._container.name, self.held_by)

    def check(self) -> None:
        """Raise what keeps it from running, or from being all it was."""
        if self.held_by is not None:
            raise self.held_by

    def do(self) -> None:
        """Let it run on, unless it is committed; the row comes before the deed. Raises what keeps it here."""
        if self._company.give_up() is Decision.COMMIT:
            return
        if self._company.unwritten:
            self._holding.give_back_unwritten()
        else:
            self._holding.give_back()
        self.runs = True
        banned = tombstone.is_banned(self._shared.state, self._container)
        missed = banned and not podman.is_running(self._container.id)  # asked first: what fails is done once more
        tombstone.lift(self._shared.state, self._container)
        if self._container.pod is not None:
            tombstone.lift_infra(self._shared.state, self._container.pod.infra)
        if missed:
            self._make_up_for_ban()
        self.complete = True
        self._company.owed.discard(self._id)

    def _make_up_for_ban(self) -> None:
        """It ended while nothing might start it, by itself or with this host; do what would have been done then."""
        try:
            start_missed(self._container)
        except LifeboatError as error:
            _log.error("%s ended, and could not be started again: %s", self._container.name, error)
