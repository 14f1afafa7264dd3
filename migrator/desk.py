"""The target's desk: the peer API's routes and streams for incoming migrations."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Mapping

from anyio import to_thread
from fastapi import APIRouter, Request

from migrator.errors import PrerequisiteError
from migrator.hall import Hall
from migrator.peers.streams import Header, StreamHandler, feed_command, join_command
from migrator.protocol import Accepted, DecisionTold, Opened, ParkRequest, Proposal, Report
from migrator.reservations import Held, Hold, Reservations
from migrator.storage import image
from migrator.target import Reception

IMAGE_LIMIT_BYTES = 1 << 28  # of images without memory; a usual container has 0.1 to 1 MB
RSYNC_SERVER = ("rsync", "--server")


class Desk:
    """All receptions of this host."""

    def __init__(self, hall: Hall, accepting: Callable[[], str], spare_bytes: Callable[[], int]) -> None:
        """`accepting` returns why this host takes nothing now, or an empty text.

        `spare_bytes` returns the memory nobody uses, less the headroom; promises are not yet subtracted.
        """
        self._hall = hall
        self._accepting = accepting
        self._spare_bytes = spare_bytes
        self._reservations = Reservations()
        self._receptions: dict[str, Reception] = {}
        self._lock = threading.Lock()

    @property
    def reserved_bytes(self) -> int:
        """Return the memory promised to migrations under way."""
        with self._lock:
            return self._reserved_bytes()

    @property
    def held(self) -> dict[str, int]:
        """Return the memory held for evacuations of other hosts, by host."""
        return self._reservations.held(time.monotonic())

    @property
    def busy(self) -> bool:
        """Say whether a migration is under way here: podman may be slow to answer then."""
        return any(not reception.ended for reception in self.receptions())

    def receptions(self) -> tuple[Reception, ...]:
        """Return all receptions known to this process."""
        with self._lock:
            return tuple(self._receptions.values())

    def reserve(self, proposal: Proposal) -> Accepted:
        """Take a proposal, or refuse it with a reason; a repeated one is answered again."""
        self._check_accepting()
        with self._lock:
            if proposal.migration in self._receptions:
                raise PrerequisiteError("this migration is known already", code="already-known")
            self._check_room(proposal)
            reception = Reception(self._hall, proposal)
            self._receptions[proposal.migration] = reception
            self._reservations.take(proposal.source, proposal.container.memory_bytes)
        return reception.reserve()

    def hold(self, wish: Hold) -> Held:
        """Hold memory for an evacuation of another host, or refuse with a reason."""
        if wish.memory_bytes:
            self._check_accepting()
        with self._lock:
            free = self._spare_bytes() - self._reserved_bytes()
            return self._reservations.hold(wish, free, time.monotonic())

    def _check_accepting(self) -> None:
        if refusal := self._accepting():
            raise PrerequisiteError(
                f"{self._hall.host} takes no container: {refusal}", code="target-refuses", temporary=True
            )

    def _check_room(self, proposal: Proposal) -> None:
        """Refuse what would overbook this host, whatever the source read in facts that are old by now."""
        most = self._hall.settings.incoming_at_once
        if sum(not reception.ended for reception in self._receptions.values()) >= most:
            raise PrerequisiteError(
                f"{self._hall.host} takes {most} migrations at once and has as many",
                code="target-busy",
                temporary=True,
            )
        others = self._reservations.held_for_others(proposal.source, time.monotonic())
        free = self._spare_bytes() - self._reserved_bytes() - others
        if proposal.container.memory_bytes > free:
            raise PrerequisiteError(
                f"{self._hall.host} has {max(0, free) >> 20} MiB left to promise, "
                f"{proposal.container.name} needs {proposal.container.memory_bytes >> 20} MiB",
                code="target-lacks-memory",
                temporary=True,
            )

    def _reserved_bytes(self) -> int:
        return sum(reception.reserved_bytes for reception in self._receptions.values())

    def reception(self, migration: str) -> Reception:
        """Return one reception; raises `PrerequisiteError` for an unknown one."""
        with self._lock:
            found = self._receptions.get(migration)
        if found is None:
            raise PrerequisiteError(
                f"{self._hall.host} knows nothing of the migration {migration}", code="unknown-migration"
            )
        found.touch()
        return found

    def take_up(self, reception: Reception) -> None:
        """Know a reception that an earlier daemon began."""
        with self._lock:
            self._receptions[reception.proposal.migration] = reception

    def forget(self, migration: str) -> None:
        """Drop a reception that has ended."""
        with self._lock:
            self._receptions.pop(migration, None)

    def routes(self) -> APIRouter:
        """Return the routes; see migrator/protocol.py."""
        router = APIRouter(prefix="/v1/migrations")

        @router.post("")
        def reserve(proposal: Proposal) -> Accepted:
            return self.reserve(proposal)

        @router.post("/{migration}/park")
        def park(migration: str, request: ParkRequest) -> Report:
            reception = self.reception(migration)
            reception.park(request)
            return reception.report()

        @router.post("/{migration}/restore")
        async def restore(migration: str, request: Request) -> Report:
            images = await _body(request)
            return await _in_thread(lambda: self._restore(migration, images))

        @router.post("/{migration}/commit")
        def commit(migration: str) -> Opened:
            return self.reception(migration).commit()

        @router.post("/{migration}/complete")
        def complete(migration: str) -> Report:
            reception = self.reception(migration)
            reception.complete()
            return reception.report()

        @router.get("/{migration}")
        def report(migration: str) -> Report:
            return self.reception(migration).report()

        @router.delete("/{migration}")
        def abort(migration: str) -> Report:
            reception = self.reception(migration)
            reception.abort("the source withdrew")
            self.forget(migration)
            return reception.report()

        @router.get("/{migration}/decision")
        def decision(migration: str) -> DecisionTold:
            word, entry = self._hall.journal.decision(migration), self._hall.journal.entry(migration)
            ended = entry is not None and entry.outcome is not None
            return DecisionTold(migration=migration, decision=word or "", ended=ended)

        return router

    def streams(self) -> Mapping[str, StreamHandler]:
        """Return what takes bulk data: trees by rsync, container images, complete process images."""
        return {
            "rsync": self._take_tree,
            "image": self._take_image,
            "process-images": self._take_process_images,
        }

    def _restore(self, migration: str, images: bytes) -> Report:
        reception = self.reception(migration)
        reception.restore(images or None)
        return reception.report()

    def _take_tree(self, header: Header, link: ssl.SSLSocket) -> None:
        path = self.reception(header["migration"]).tree_path(header["tree"])
        command = header["command"].split("\0")
        if tuple(command[:2]) != RSYNC_SERVER or "--sender" in command:
            raise PrerequisiteError("only rsync's receiving side runs here", code="not-rsync")
        join_command(link, [*command[:-1], f"{path}/"])

    def _take_image(self, header: Header, link: ssl.SSLSocket) -> None:
        self.reception(header["migration"])
        feed_command(link, image.load_image_argv(), self._hall.settings.copy_limit_s)

    def _take_process_images(self, header: Header, link: ssl.SSLSocket) -> None:
        images = self.reception(header["migration"]).images_directory
        image.empty(images)
        argv = image.receive_process_images_argv(images)
        feed_command(link, argv, self._hall.settings.copy_limit_s)


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > IMAGE_LIMIT_BYTES:
            raise PrerequisiteError("the images are too large", code="images-too-large")
        parts.append(part)
    return b"".join(parts)


async def _in_thread(work: Callable[[], Report]) -> Report:
    return await to_thread.run_sync(work)
