"""What the registry knows of hosts and migrations, and what follows when it knows nothing.

The embedded registry is the hosts themselves: nothing is recorded anywhere else, and all questions go to whom they
concern. The hosts' own journals stay the truth with every registry: a record only tells what a journal says when
its host cannot be asked any more.
"""

from __future__ import annotations

from typing import Protocol

from pydantic import Field

from migrator.health import Verdict
from migrator.model import Value
from migrator.names import Bytes, HostName, MigrationId
from migrator.protocol.journal import Decision
from migrator.target.reservations import Held, Hold


class Commit(Value):
    """A source has journalled the commit of a migration: the container is its target's, whatever happens."""

    migration: MigrationId
    source: HostName
    target: HostName
    at: float  # Unix seconds


class Registry(Protocol):
    """What there is besides asking hosts directly. No call raises, and none takes longer than some seconds."""

    def start(self) -> None:
        """Begin to tell that this host is here."""

    def promise(self, target: str, wish: Hold) -> Held:
        """Note that memory of a target is held; refused when others hold too much of it."""

    def record(self, commit: Commit) -> None:
        """Note, soon and beside the migration, a commit that is in this host's journal."""

    def decision(self, migration: str, source: str, target: str) -> Decision | None:
        """Return what the source is known to have decided; None when nothing is known."""

    def lost_for_s(self, host: str) -> float | None:
        """Return for how long a host has been gone; None while it is there, or when nothing is known."""

    def standing(self) -> Standing:
        """Tell how the registry stands."""


class Presence(Value):
    """A host is there, and how; written again and again while it is."""

    host: HostName
    verdict: Verdict
    evacuating: bool = False
    spare_bytes: Bytes = 0  # memory nobody uses, less the headroom; promises not subtracted


class Standing(Value):
    """How the registry stands, for people."""

    kind: str
    answers: bool = True
    hosts: tuple[Presence, ...] = ()  # that are there now
    lost_s: dict[str, float] = Field(default_factory=dict)  # that were there, and for how long they have not been


class NoRecords:
    """The embedded registry."""

    def start(self) -> None:
        """There is nobody to tell."""

    def promise(self, target: str, wish: Hold) -> Held:
        """Refuse nothing: the target itself is asked anyway."""
        return Held(memory_bytes=wish.memory_bytes)

    def record(self, commit: Commit) -> None:
        """Note nothing: the journal has it."""

    def decision(self, migration: str, source: str, target: str) -> Decision | None:
        """Know nothing: only the source's journal does."""
        return None

    def lost_for_s(self, host: str) -> float | None:
        """Know nothing."""
        return None

    def standing(self) -> Standing:
        """There is nothing that could fail."""
        return Standing(kind="embedded")
