"""Images on their way: a container image the target lacks, and the images CRIU writes of a process tree."""

from __future__ import annotations

import shutil
import tarfile
from io import BytesIO
from pathlib import Path, PurePosixPath

from migrator.errors import ExecutionError
from migrator.peers.streams import send_command_output
from migrator.storage.sync import Destination

DESCRIPTORS = "descriptors.json"  # libcontainer, descriptorsFilename
DESCRIPTORS_BYTES = 1 << 16


def send_image(image_id: str, destination: Destination, timeout_s: float) -> None:
    """Send a container image; it keeps its id, for it is podman's own archive that goes over."""
    header = {"kind": "image", "migration": destination.migration}
    argv = ["podman", "save", "--format", "docker-archive", image_id]
    send_command_output(destination.directory, destination.peer, header, argv, timeout_s, go_on=destination.go_on)


def send_process_images(images: Path, destination: Destination, timeout_s: float) -> None:
    """Send everything CRIU wrote, memory included, as one complete file."""
    header = {"kind": "process-images", "migration": destination.migration}
    argv = ["tar", "--create", "--sparse", "--directory", str(images), "."]
    send_command_output(destination.directory, destination.peer, header, argv, timeout_s, go_on=destination.go_on)


def pack(images: Path) -> bytes:
    """Return CRIU's images without memory (about 0.1 MB) as a tar archive."""
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(images, arcname=".")
    return packed.getvalue()


def unpack(packed: bytes, images: Path) -> str:
    """Put CRIU's images where the restore reads them; return runc's `descriptors.json`, which is not written.

    The restore waits for that one file (see migrator.shim.restore), so whoever starts it writes it last.
    """
    descriptors = ""
    try:
        with tarfile.open(fileobj=BytesIO(packed), mode="r:") as tar:
            for member in tar:
                name = _image_name(member)
                file = tar.extractfile(member) if name else None
                if file is None:
                    continue
                if name == DESCRIPTORS:
                    descriptors = file.read(DESCRIPTORS_BYTES).decode()
                else:
                    (images / name).write_bytes(file.read())
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise ExecutionError(f"these are no images of a process tree: {error}", code="bad-images") from error
    return descriptors


def _image_name(member: tarfile.TarInfo) -> str:
    """Return the name of an image, empty for the directory itself; CRIU writes ordinary files, side by side."""
    parts = PurePosixPath(member.name).parts
    if member.isdir() and not parts:
        return ""
    if not member.isreg() or member.issparse() or len(parts) != 1 or parts[0] in ("..", "/"):
        raise ValueError(f"{member.name!r} is none")
    return parts[0]


def empty(images: Path) -> None:
    """Make the images' directory, empty."""
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir(mode=0o700)
