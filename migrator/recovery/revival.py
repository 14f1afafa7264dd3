"""Containers of a host that died all of a sudden, started from the checkpoints that wait here.

What such a container did, wrote and promised since its checkpoint is lost, and its connections are over. Nothing of
it happens by itself: whether a silent host is dead, only a human knows.
"""

from __future__ import annotations

import time
from pathlib import Path

from migrator.command import run
from migrator.errors import CallAHumanError, LifeboatError, PrerequisiteError
from migrator.model import Method, MigrationOutcome, Phase
from migrator.names import new_id
from migrator.peers.neighbours import Neighbours
from migrator.protocol.messages import Proposal
from migrator.target.checkpoints import Kept
from migrator.target.desk import Desk
from migrator.target.hall import Hall
from migrator.target.reception import Reception

LOST = "lost"  # below the state directory: the files of what went back to a checkpoint, by migration
PUT = ("rsync", "-aHAXS", "--numeric-ids", "--delete")


class Revival:
    """What may be done with the checkpoints of this host."""

    def __init__(self, hall: Hall, desk: Desk, neighbours: Neighbours) -> None:
        self._hall = hall
        self._desk = desk
        self._neighbours = neighbours

    def orphans(self) -> tuple[Kept, ...]:
        """Return the checkpoints whose sources do not answer."""
        kept = self._hall.checkpoints.kept
        silent = {source for source in {item.source for item in kept} if not self._answers(source)}
        ours = [item for item in kept if self._is_ours(item)]
        return tuple(item for item in kept if item.source in silent or item in ours)

    def find(self, word: str) -> Kept | None:
        """Return one by its id, or by its container's name or id, if that is no other one's, too."""
        kept = self._hall.checkpoints.kept
        found = [item for item in kept if word in (item.checkpoint, item.container.name, item.container.id)]
        return found[0] if len(found) == 1 else None

    def go_back(self, reception: Reception, kept: Kept) -> MigrationOutcome:
        """Start a container whose memory was lost here from its checkpoint; the files it had are kept aside."""
        aside = self._hall.state / LOST / reception.proposal.migration
        aside.mkdir(parents=True, exist_ok=True, mode=0o700)
        reception.make_way(aside)
        return self._start(kept, aside)

    def start(self, kept: Kept, *, declared_dead: bool) -> MigrationOutcome:
        """Let a container run here from its checkpoint; raises `CallAHumanError` when its source may live."""
        if refused := self.refusal(kept, declared_dead=declared_dead):
            raise CallAHumanError(
                f"two copies could run: {refused}",
                code="not-proved",
                hint=f"make sure that {kept.source} is dead, and stays so, before you say that it is",
            )
        return self._start(kept, None)

    def _start(self, kept: Kept, aside: Path | None) -> MigrationOutcome:
        proposal = Proposal(
            migration=new_id(),
            source=kept.source,
            container=kept.container,
            method=Method.FULL,
            copy_image=False,
            epoch=max(self._hall.journal.epoch(kept.container.id), kept.epoch) + 1,
        )
        request = self._desk.admitted(proposal, kept.request)
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
        """Return why it may not be started; empty when it may."""
        if self._is_ours(kept):
            return ""
        if self._answers(kept.source):
            return f"{kept.source} answers, and the container is there"
        told, _ = self._neighbours.facts()
        for facts in told:
            if kept.container.name in facts.container_names:
                return f"{facts.host} has a container named {kept.container.name}, which may be this one"
        return "" if declared_dead else f"{kept.source} does not answer, and nobody said that it is dead"

    def _put(self, kept: Kept, reception: Reception, aside: Path | None) -> None:
        """Put files and memory, which are of one moment, where podman has made room."""
        place, limit_s = self._hall.checkpoints.place(kept), self._hall.settings.copy_limit_s
        for name, path in place.trees.items():
            if path.exists():
                reception.touch()
                replaced = ["--backup", f"--backup-dir={aside / name}"] if aside else []
                run([*PUT, *replaced, f"{path}/", f"{reception.tree_path(name)}/"], timeout_s=limit_s)
        reception.touch()
        images: Path = reception.images_directory
        run(["cp", "--archive", "--reflink=auto", f"{place.images}/.", str(images)], timeout_s=limit_s)
        reception.touch()

    def _is_ours(self, kept: Kept) -> bool:
        """Say whether the container was committed to this host since, and did not come to run here."""
        return self._hall.journal.epoch(kept.container.id) > kept.epoch

    def _answers(self, source: str) -> bool:
        try:
            self._neighbours.client(source).facts()
        except PrerequisiteError:
            return True  # it answers, though it refuses
        except LifeboatError:
            return False
        return True


def told_of(kept: Kept) -> str:
    """Say what waits."""
    return f"a checkpoint that is {time.time() - kept.at:.0f} s old: memory and files of one moment"
