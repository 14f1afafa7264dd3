"""The target's end of copies: what a peer sends is checked, confined, and counted before it is used.

A source names a tree, never a path, and the programs that read its bytes see that tree and nothing else of the host
(migrator.storage.jail). A container image is looked through before podman gets it: it may only bring the image that
was proposed, and no name, for a name that is loaded is taken away from the image that has it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import ssl
import tarfile
import time
from pathlib import Path

from migrator.command import run
from migrator.errors import PrerequisiteError
from migrator.peers.stream_server import accept_stream, feed_command, join_command, parts
from migrator.storage.jail import TREE, Jail

RSYNC = ("rsync", "--server")
RSYNC_FLAGS = re.compile(r"-[lHogDtpAXrRSId]+(e[0-9]*\.[A-Za-z]*)?")
"""Short options of `RSYNC` in migrator.storage.sync as rsync hands them on (server_options, options.c); behind the
`e.` stands what the caller's version can do."""

RSYNC_OPTIONS = frozenset(
    {"--delete", "--numeric-ids", "--no-r", "-@-1", "--modify-window=-1", "--log-format=%i", "."}
)

DISK_KEPT_BYTES = 1 << 30  # below this podman itself begins to fail
MANIFEST, MANIFEST_BYTES = "manifest.json", 1 << 20
MOST_MEMBERS = 4096


def rsync_argv(command: list[str]) -> list[str]:
    """Return what rsync's receiver is run with for what a peer's rsync asked; raises `PrerequisiteError`.

    Only what our own sender asks is taken: other options can name files (--log-file, --temp-dir, --partial-dir),
    programs, or turn the receiver into a sender.
    """
    *options, _ = command[len(RSYNC) :] or [""]
    wrong = [word for word in options if word not in RSYNC_OPTIONS and not RSYNC_FLAGS.fullmatch(word)]
    if tuple(command[: len(RSYNC)]) != RSYNC or not options or wrong:
        raise PrerequisiteError("only rsync's receiving side runs here, as lifeboat calls it", code="not-rsync")
    return [*RSYNC, *options, f"{TREE}/"]


def receive_tree(link: ssl.SSLSocket, command: list[str], tree: Path, jail: Path, timeout_s: float) -> None:
    """Take a tree by rsync."""
    argv = rsync_argv(command)
    join_command(link, argv, timeout_s, start=Jail(tree, jail).spawn)


def receive_process_images(link: ssl.SSLSocket, images: Path, jail: Path, timeout_s: float) -> None:
    """Take everything CRIU wrote, memory included, as a tar archive."""
    argv = ["tar", "--extract", "--sparse", "--no-same-owner", "--directory", str(TREE)]
    room = room_bytes(images)
    feed_command(link, argv, timeout_s, most_bytes=room, start=Jail(images, jail).spawn)


def receive_image(link: ssl.SSLSocket, image_id: str, archive: Path, timeout_s: float) -> None:
    """Take a container image, and give it to podman when it is the one that was proposed."""
    archive.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    accept_stream(link)
    try:
        with archive.open("wb") as file:
            for part in parts(link, time.monotonic() + timeout_s, room_bytes(archive.parent)):
                file.write(part)
        check_image(archive, image_id)
        run(["podman", "load", "--quiet", "--input", str(archive)], timeout_s=timeout_s)
    finally:
        archive.unlink(missing_ok=True)
    accept_stream(link)


def check_image(archive: Path, image_id: str) -> None:
    """Raise `PrerequisiteError` unless this is podman's archive of this one image, without a name."""
    try:
        with tarfile.open(archive, "r:") as tar:
            names = _names(tar)
            manifest = json.loads(_read(tar, MANIFEST))
            (image,) = manifest
            configuration = _read(tar, f"{image_id}.json")
    except (tarfile.TarError, KeyError, ValueError, TypeError, EOFError, RecursionError) as error:
        raise _no_image(f"it is no archive of podman: {error}") from error
    if "index.json" in names or "oci-layout" in names:
        raise _no_image("it is an archive of another kind as well")
    if not isinstance(image, dict) or image.get("RepoTags") or image.get("Config") != f"{image_id}.json":
        raise _no_image("it is another image, or has a name")
    if hashlib.sha256(configuration).hexdigest() != image_id:
        raise _no_image("its contents are not what its id says")


def room_bytes(path: Path) -> int:
    """Return what may still be written to the file system of a path."""
    status = os.statvfs(path)
    return max(0, status.f_bavail * status.f_frsize - DISK_KEPT_BYTES)


def _names(tar: tarfile.TarFile) -> set[str]:
    names: set[str] = set()
    for member in tar:
        if member.name in names or len(names) >= MOST_MEMBERS:
            raise ValueError("too many members, or one twice")
        names.add(member.name)
    return names


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.getmember(name)
    file = tar.extractfile(member) if member.isreg() and member.size <= MANIFEST_BYTES else None
    if file is None:
        raise ValueError(f"{name} is no small file")
    return file.read()


def _no_image(why: str) -> PrerequisiteError:
    return PrerequisiteError(f"this image is not taken: {why}", code="wrong-image")
