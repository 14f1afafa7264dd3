"""The target's intake: streams of bulk data that come for migrations, for what waits here, and for checkpoints."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from migrator.peers.stream_server import StreamHandler
from migrator.peers.streams import Header
from migrator.storage import image, receive
from migrator.target.hall import Hall
from migrator.target.reception import Reception
from migrator.target.staging import Staging
from migrator.target.staging_desk import StagingDesk

JAIL = "jail"  # an empty directory below /run/lifeboat


class Intake:
    """Takes what peers send, each to its place."""

    def __init__(
        self,
        hall: Hall,
        stagings: StagingDesk,
        reception: Callable[[str, str], Reception],
        knows: Callable[[str], bool],
    ) -> None:
        """`reception` returns that of a migration and its source, `knows` says whether there is one."""
        self._hall = hall
        self._stagings = stagings
        self._reception = reception
        self._knows = knows

    def streams(self) -> Mapping[str, StreamHandler]:
        """Return what takes bulk data: trees by rsync, container images, complete process images."""
        return {
            "rsync": self._take_tree,
            "image": self._take_image,
            "process-images": self._take_process_images,
        }

    def _take_tree(self, header: Header, link: ssl.SSLSocket) -> None:
        tree, limit_s = header.get("tree", ""), self._hall.settings.copy_limit_s
        command = header.get("command", "").split("\0")
        with self._hall.checkpoints.writing(header) as kept, self._staged(header) as record:
            if kept:
                path = kept.tree_path(tree)
            else:
                path = self._stagings.path(record, tree) if record else self._called(header).tree_path(tree)
            receive.receive_tree(link, command, path, self._jail(), limit_s)

    def _take_image(self, header: Header, link: ssl.SSLSocket) -> None:
        limit_s = self._hall.settings.copy_limit_s
        with self._staged(header) as record:
            name = record.staging if record else self._called(header).proposal.migration
            container = record.container if record else self._called(header).proposal.container
            archive = self._hall.state / "staging" / f"{name}.image"
            receive.receive_image(link, container.image_id, archive, limit_s)
            if record:
                self._stagings.image_came(record)

    def _take_process_images(self, header: Header, link: ssl.SSLSocket) -> None:
        with self._hall.checkpoints.writing(header) as kept:
            images = kept.images if kept else self._called(header).images_directory
            image.empty(images)
            receive.receive_process_images(link, images, self._jail(), self._hall.settings.copy_limit_s)

    def _staged(self, header: Header) -> AbstractContextManager[Staging | None]:
        """Hold what waits here and a stream is for, None when it is for a migration; that looks at no record."""
        return nullcontext() if self._knows(header.get("migration", "")) else self._stagings.record(header)

    def _called(self, header: Header) -> Reception:
        """Return the reception a stream is for; `peer` is who opened it, by its certificate."""
        return self._reception(header.get("migration", ""), header["peer"])

    def _jail(self) -> Path:
        root = self._hall.runtime / JAIL
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        return root
