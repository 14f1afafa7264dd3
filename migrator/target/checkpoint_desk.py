"""What suspect hosts may ask of this one for a checkpoint that waits: see migrator.target.checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable

from fastapi import APIRouter

from migrator.container.here import require_fit
from migrator.errors import NotAllowedError, PrerequisiteError
from migrator.names import MigrationId
from migrator.peers.server import Member
from migrator.protocol.messages import Keep, ParkRequest, Staged
from migrator.target.hall import Hall


def routes(hall: Hall, check_accepting: Callable[[], None]) -> APIRouter:
    """Return the routes; `check_accepting` raises `PrerequisiteError` when this host takes nothing now."""
    router = APIRouter(prefix="/v1/checkpoints")

    @router.post("")
    def begin(wish: Keep, member: Member) -> Staged:
        if wish.source != member:
            raise NotAllowedError(f"{member} brings a checkpoint of {wish.source}", code="not-yours")
        check_accepting()
        require_fit(hall, wish.container, copy_image=False)
        if wish.epoch < hall.journal.epoch(wish.container.id):
            raise PrerequisiteError(f"{hall.host} knows a later one of {wish.container.name}", code="old-epoch")
        hall.checkpoints.begin(wish)
        return Staged()

    @router.post("/{checkpoint}")
    def complete(checkpoint: MigrationId, request: ParkRequest, member: Member) -> Staged:
        hall.checkpoints.complete(checkpoint, member, request, time.time())
        return Staged()

    @router.delete("/{checkpoint}")
    def withdraw(checkpoint: MigrationId, member: Member) -> Staged:
        hall.checkpoints.withdraw(checkpoint, member)
        return Staged()

    return router
