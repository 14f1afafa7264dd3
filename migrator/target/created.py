"""How a container comes into being at a target by the cold method: created by its words, started on the commit."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from migrator.command import run
from migrator.errors import LifeboatError, PrerequisiteError
from migrator.protocol.messages import ParkRequest
from migrator.runtime import podman, tombstone
from migrator.target.arrival import Arrival
from migrator.target.record import Record


class CreatedContainer(Arrival):
    """A container that podman created with the words of its first creation; it is only started on the commit."""

    @property
    def ready(self) -> bool:
        """See `Arrival.ready`: it is when its files are here, and written; the source says when they have come."""
        return Record(self._hall, self._proposal).was_written

    @property
    def known_as(self) -> str:
        """See `Arrival.known_as`."""
        return podman.created_here(self._proposal.container.id, self._proposal.container.name)

    @property
    def lives(self) -> bool:
        """See `Arrival.lives`."""
        return bool(self.known_as)

    @property
    def images(self) -> Path:
        """There are none."""
        raise PrerequisiteError("a cold migration has no images", code="no-such-tree")

    def park(self, request: ParkRequest) -> None:
        """Create it, stopped; see `podman.create_argv`."""
        if self.lives:
            return
        container = self._proposal.container
        podman.ensure_name(container.image_id, container.image)
        argv = podman.created_from(request.create_argv, container.id)
        run(argv, timeout_s=self._hall.settings.park_limit_s)
        self.move_staged_layer(podman.directories(self.known_as).upper)

    def layer(self) -> Path:
        """See `Arrival.layer`."""
        if known := self.known_as:
            return podman.directories(known).upper
        self._staging.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._staging

    def shared_memory(self) -> Path | None:
        """It is made anew."""
        return None

    def make_ready(self, images: bytes | None) -> None:
        """The files are here; its reception writes them out."""
        del images

    def open(self) -> float:
        """Start it; from here on its restart policy may do so, too."""
        tombstone.open_ban(self._hall.state, self._proposal.container)
        self.start_anew()
        return time.time()

    def rises(self) -> bool:
        """See `Arrival.rises`; it is on disk, and its ban kept its restart policy back until it was opened."""
        was_down = not self._directory.exists()
        if was_down and self.lives and not self.remains:
            with suppress(LifeboatError):
                self.open()
        return self.remains

    def surrender(self) -> None:
        """Podman has it already."""

    def abort(self) -> None:
        """Podman removes it: the reception does that."""

    def close(self) -> None:
        """Nothing was started."""
