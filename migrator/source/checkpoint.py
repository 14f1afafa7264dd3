"""A complete checkpoint of a container, put at a target, while the container runs on here.

It is a `full` migration that is never committed: what holds the container gives it back as soon as its memory is
written, whoever dies meanwhile, and the memory goes to the target after that.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

from migrator.errors import LifeboatError, failure
from migrator.model import MigrationOutcome, Phase
from migrator.protocol.messages import Accepted, Keep, ParkRequest, Staged
from migrator.source.migration import CONTROL_WAIT_S, REQUEST_WAIT_S, SourceMigration
from migrator.storage import image

ASIDE = "lifeboat-checkpoint"  # beside podman's own directory of images, which podman removes


class Checkpoint(SourceMigration):
    """One checkpoint."""

    leaves = False

    def run(self) -> MigrationOutcome:
        """Put it there; the outcome tells how that ended, an exception never does."""
        self._begin()
        images: Path | None = None
        try:
            with self._turn:
                with self._undo:
                    request = self._get_ready()
                    self._wait_for_freeze()
                    images = self._dump()
                self._taking_back.check()
                self._runs_again_at = time.time()
            self._bring(images, request)
        except Exception as error:  # noqa: BLE001  it ends in the journal whatever it was
            self._withdraw()
            return self._end_early(failure(error))
        finally:
            if images is not None:
                shutil.rmtree(images, ignore_errors=True)
        outcome = self.end(Phase.KEPT, None)
        with suppress(LifeboatError):  # they are forgotten after the next one
            self._shared.journal.forget_kept(self._container.name, self.id)
        return outcome

    def _get_ready(self) -> ParkRequest:
        """Everything that can be done while the container runs undisturbed."""
        self._timeline.enter(Phase.PREPARE, f"a checkpoint of {self._container.name} for {self._target.name}")
        wish = Keep(checkpoint=self.id, source=self._shared.host, container=self._container, epoch=self._epoch - 1)
        self._target.call("POST", "/v1/checkpoints", wish, Staged, timeout_s=REQUEST_WAIT_S)
        self._copy_ahead()
        self._taking_back.owe()
        self._undo.callback(self._taking_back.attempt)
        request = self.holding.park(self._target, Accepted(migration=self.id, needs_image=False, pager_port=0))
        self._timeline.tell("parked")
        return request

    def _dump(self) -> Path:
        """Freeze, and return where the images are when files and memory are of one moment."""
        with self._reach:
            _, copies = self._freeze()
            written = self.holding.written()
            self._finish(copies)
        self.holding.check_silent()
        aside = written.with_name(ASIDE)
        shutil.rmtree(aside, ignore_errors=True)
        written.rename(aside)
        return aside

    def _bring(self, images: Path, request: ParkRequest) -> None:
        self._timeline.enter(Phase.DRAIN, "its memory follows, and it runs on here")
        image.send_process_images(images, self._destination, self._shared.settings.copy_limit_s)
        self._target.call(
            "POST", f"/v1/checkpoints/{self.id}", request, Staged, timeout_s=self._shared.settings.copy_limit_s
        )

    def _withdraw(self) -> None:
        """Undo: the target forgets what has come; what is complete there from before stays."""
        with suppress(LifeboatError):
            self._target.call("DELETE", f"/v1/checkpoints/{self.id}", None, Staged, timeout_s=CONTROL_WAIT_S)
