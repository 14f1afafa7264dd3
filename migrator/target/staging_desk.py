"""What suspect hosts may ask of this one, and where the streams of their stagings go."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from fastapi import APIRouter

from migrator.container.here import require_fit
from migrator.errors import NotAllowedError, PrerequisiteError
from migrator.names import MigrationId
from migrator.peers.server import Member
from migrator.peers.streams import Header
from migrator.protocol.messages import Stage, Staged
from migrator.storage.sync import VOLUME
from migrator.target.hall import Hall
from migrator.target.staging import Staging


class StagingDesk:
    """The desk beside that of the migrations."""

    def __init__(self, hall: Hall, check_accepting: Callable[[], None]) -> None:
        """`check_accepting` raises `PrerequisiteError` when this host takes nothing now."""
        self._hall = hall
        self._check_accepting = check_accepting

    def routes(self) -> APIRouter:
        """Return the routes; see migrator/protocol/messages.py."""
        router = APIRouter(prefix="/v1/stagings")

        @router.post("")
        def stage(wish: Stage, member: Member) -> Staged:
            if wish.source != member:
                raise NotAllowedError(f"{member} stages a container of {wish.source}", code="not-yours")
            self._check_accepting()
            needs_image = require_fit(self._hall, wish.container, copy_image=wish.copy_image)
            record = self._hall.stagings.stage(wish, time.time())
            return Staged(needs_image=needs_image, trees=record.trees)

        @router.delete("/{staging}")
        def withdraw(staging: MigrationId, member: Member) -> Staged:
            self._hall.stagings.withdraw(staging, member)
            return Staged()

        return router

    def record(self, header: Header) -> AbstractContextManager[Staging | None]:
        """Hold what waits here and a stream is for, None when it is for a migration."""
        return self._hall.stagings.writing(header.get("migration", ""), header["peer"])

    def path(self, record: Staging, tree: str) -> Path:
        """Return where a tree waits; raises `PrerequisiteError` for none, and when somebody here uses it by now."""
        path, name = self._hall.stagings.tree_path(record, tree), tree.removeprefix(VOLUME)
        if name != tree and self._hall.known.volume_users(name):
            raise PrerequisiteError(
                f"a container of {self._hall.host} uses the volume {name}", code="target-volume-in-use"
            )
        return path

    def image_came(self, record: Staging) -> None:
        """Know that a container's image came for it."""
        self._hall.stagings.came(record)
