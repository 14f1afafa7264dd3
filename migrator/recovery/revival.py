"""Containers of a host that died all of a sudden, started from the checkpoints that wait here.

What such a container did, wrote and promised since its checkpoint is lost, and its connections are over. Nothing of
it happens by itself: whether a silent host is dead, only a human knows.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path

from migrator.errors import CallAHumanError, LifeboatError
from migrator.model import Method, MigrationOutcome, Phase
from migrator.names import new_id
from migrator.peers.neighbours import Neighbours
from migrator.protocol.journal import Decision, Entry, Fate, Side
from migrator.protocol.messages import ParkRequest, Proposal
from migrator.storage import local
from migrator.storage.disks import write_out
from migrator.target.checkpoints import Kept
from migrator.target.desk import Desk
from migrator.target.hall import Hall
from migrator.target.reception import Reception

UNREACHABLE = "peer-unreachable"  # migrator.peers.client: no answer at all
LOST = "lost"  # below the state directory: the files of what went back to a checkpoint, by migration


class Revival:
    """What may be done with the checkpoints of this host."""

    def __init__(self, hall: Hall, desk: Desk, neighbours: Neighbours) -> None:
        self._hall = hall
        self._desk = desk
        self._neighbours = neighbours

    def orphans(self) -> tuple[tuple[Kept, str], ...]:
        """Return the checkpoints whose sources do not answer, each with why it may not be started now."""
        if not (kept := self._hall.checkpoints.kept):
            return ()
        told = self._look()
        lonely = [item for item in kept if item.source not in told or self._lost_here(item) is not None]
        return tuple((item, self._refusal(item, told, declared_dead=False)) for item in lonely)

    def find(self, word: str) -> Kept | None:
        """Return one by its id, or by its container's name or id, if that is no other one's, too."""
        kept = self._hall.checkpoints.kept
        found = [item for item in kept if word in (item.checkpoint, item.container.name, item.container.id)]
        return found[0] if len(found) == 1 else None

    def go_back(self, reception: Reception, kept: Kept) -> MigrationOutcome:
        """Start a container whose memory was lost here from its checkpoint; the files it had are kept aside.

        Raises `LifeboatError`; nothing was touched when this host refuses it, for then it may start elsewhere.
        """
        wanted = self._wanted(kept)
        aside = self._hall.state / LOST / reception.proposal.migration
        aside.mkdir(parents=True, exist_ok=True, mode=0o700)
        reception.make_way(aside)
        return self._start(kept, wanted, aside)

    def start(self, kept: Kept, *, declared_dead: bool) -> MigrationOutcome:
        """Let a container run here from its checkpoint; raises `CallAHumanError` when its source may live."""
        if refused := self.refusal(kept, declared_dead=declared_dead):
            raise not_proved(kept.source, refused)
        wanted = self._wanted(kept)
        if (lost := self._lost_here(kept)) is not None:  # from here on it is not yielded to its source any more
            sealed = self._hall.journal.seal_all(lost.together, Fate.FALL_BACK)
            if sealed is not Fate.FALL_BACK:
                raise not_proved(kept.source, f"{sealed} was decided here of {lost.migration}")
        return self._start(kept, wanted, None)

    def _wanted(self, kept: Kept) -> tuple[Proposal, ParkRequest]:
        """Return what is wanted of this host, if it may be; raises `PrerequisiteError`."""
        proposal = Proposal(
            migration=new_id(),
            source=kept.source,
            container=kept.container,
            method=Method.FULL,
            copy_image=False,
            epoch=max(self._hall.journal.epoch(kept.container.id), kept.epoch) + 1,
        )
        return proposal, self._desk.revivable(proposal, kept.request)

    def _start(self, kept: Kept, wanted: tuple[Proposal, ParkRequest], aside: Path | None) -> MigrationOutcome:
        proposal, request = wanted
        reception = self._desk.revive(proposal)
        try:
            reception.park(request)
            self._put(kept, reception, aside)
            reception.restore(None)
            reception.commit()
        except LifeboatError as error:
            reception.abort(str(error))
            raise
        reception.complete()
        return reception.record.outcome(Phase.DONE, "")

    def forget(self, kept: Kept) -> None:
        """Throw a checkpoint away."""
        self._hall.checkpoints.remove(kept.container.id)

    def refusal(self, kept: Kept, *, declared_dead: bool) -> str:
        """Return why it may not be started now; empty when it may."""
        return self._refusal(kept, self._look(), declared_dead=declared_dead)

    def _refusal(self, kept: Kept, told: Mapping[str, Collection[str]], *, declared_dead: bool) -> str:
        """Return why it may not be started, by what the hosts say; empty when it may."""
        if self._lost_here(kept) is not None:
            return ""
        if kept.source in told:
            return f"{kept.source} answers, and the container is there"
        for host, names in told.items():
            if kept.container.name in names:
                return f"{host} has a container named {kept.container.name}, which may be this one"
        return "" if declared_dead else f"{kept.source} does not answer, and nobody said that it is dead"

    def _put(self, kept: Kept, reception: Reception, aside: Path | None) -> None:
        """Put files and memory, which are of one moment, where podman has made room."""
        place, limit_s = self._hall.checkpoints.place(kept), self._hall.settings.copy_limit_s
        for name, path in place.trees.items():
            if path.exists():
                reception.touch()
                replaced = aside / name if aside else None
                local.mirror(path, reception.tree_path(name), limit_s, aside=replaced)
        reception.touch()
        local.copy(place.images, reception.images_directory, limit_s)
        if aside is not None:
            write_out(aside)
        reception.touch()

    def _lost_here(self, kept: Kept) -> Proposal | None:
        """Return how the container came to be this host's since, and was lost; None when it may be another's now.

        It may be where that migration has yielded to its source, or was thrown away, or was not the last one.
        """
        epoch = self._hall.journal.epoch(kept.container.id)
        if epoch <= kept.epoch:
            return None
        for entry in filter(_is_lost, self._hall.journal.entries()):
            proposal = Proposal.model_validate_json(entry.request)
            if (proposal.container.id, proposal.epoch) == (kept.container.id, epoch):
                return proposal
        return None

    def _look(self) -> Mapping[str, Collection[str]]:
        """Return the containers of every host that answers, all asked at once; of one that only refuses, none."""
        told, silent = self._neighbours.facts()
        refusing = {item.host: () for item in silent if item.code != UNREACHABLE}
        return {**refusing, **{facts.host: facts.container_names for facts in told}}


def _is_lost(entry: Entry) -> bool:
    """Say whether a migration to this host is over that was committed, and whose memory did not come."""
    over = entry.settled and entry.outcome is not None and entry.outcome.phase is Phase.LOST
    ours = entry.decision is Decision.COMMIT and entry.fate in (None, Fate.FALL_BACK)
    return entry.side is Side.TARGET and over and ours


def not_proved(host: str, why: str) -> CallAHumanError:
    """Return the error of who may not start a container, for it may run at another host."""
    return CallAHumanError(
        f"two copies could run: {why}",
        code="not-proved",
        hint=f"make sure that {host} is dead, and stays so, before you say that it is",
    )


def told_of(kept: Kept) -> str:
    """Say what waits."""
    return f"a checkpoint that is {time.time() - kept.at:.0f} s old: memory and files of one moment"
