"""Images on their way: a container image the target lacks, and the images CRIU writes of a process tree."""

from __future__ import annotations

import shutil
import tarfile
from io import BytesIO
from pathlib import Path

from migrator.peers.streams import send_command_output
from migrator.storage.sync import Destination

DESCRIPTORS = "descriptors.json"  # libcontainer, descriptorsFilename


def send_image(image_id: str, destination: Destination, timeout_s: float) -> None:
    """Send a container image; it keeps its id, for it is podman's own archive that goes over."""
    header = {"kind": "image", "migration": destination.migration}
    argv = ["podman", "save", "--format", "docker-archive", image_id]
    send_command_output(destination.directory, destination.peer, header, argv, timeout_s)


def send_process_images(images: Path, destination: Destination, timeout_s: float) -> None:
    """Send everything CRIU wrote, memory included, as one complete file."""
    header = {"kind": "process-images", "migration": destination.migration}
    argv = ["tar", "--create", "--sparse", "--directory", str(images), "."]
    send_command_output(destination.directory, destination.peer, header, argv, timeout_s)


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
    with tarfile.open(fileobj=BytesIO(packed)) as tar:
        for member in tar.getmembers():
            if Path(member.name).name != DESCRIPTORS:
                tar.extract(member, images, filter="data")
            elif file := tar.extractfile(member):
                descriptors = file.read().decode()
    return descriptors


def empty(images: Path) -> None:
    """Make the images' directory, empty."""
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir(mode=0o700)


def load_image_argv() -> list[str]:
    """Return what reads a sent image at the target."""
    return ["podman", "load"]


def receive_process_images_argv(images: Path) -> list[str]:
    """Return what reads sent process images at the target."""
    return ["tar", "--extract", "--sparse", "--directory", str(images)]
