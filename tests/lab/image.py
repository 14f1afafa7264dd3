"""Container images made of Debian packages, as archives that have the same image ID wherever they are loaded.

The archive has the format of `docker save` (image-spec of the Docker engine, v1.2): `manifest.json`, the
configuration, whose SHA-256 is the image ID, and the layers as plain tar files.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from migrator.errors import ExecutionError
from tests.lab import contained
from tests.lab.cache import cached
from tests.lab.mirror import keyring, mirror
from tests.lab.settings import SUITE

BUILD_TIMEOUT_S = 900
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
FIXED_TIME = "2024-01-01T00:00:00Z"


@dataclass(frozen=True)
class Image:
    """What an image is made of; `files` maps absolute paths to text (executable when it begins with #!)."""

    name: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)
    hooks: tuple[str, ...] = ()
    """Shell lines run at the end of the packages' build, with the image's root as $1 (see mmdebstrap(1))."""


WORKLOAD = Path(__file__).with_name("workload.py")

BASE = Image(
    name="localhost/lifeboat-base:1",
    packages=("python3", "netbase"),
    command=("python3", "/usr/local/bin/workload"),
    files={"/usr/local/bin/workload": WORKLOAD.read_text()},
)
"""What the workload of the tests runs in."""


def archive(image: Image = BASE) -> Path:
    """Return the archive of an image, building what is not in the cache.

    The packages are the first layer and take half a minute; the files are the second and take none.
    """
    kind = image.name.rpartition("/")[2].replace(":", "-")
    recipe = json.dumps([image.packages, image.hooks, SUITE, platform.machine()])
    packages = cached(f"layer-{kind}", recipe, lambda target: build_packages(image, target), keep=1)
    recipe = json.dumps([asdict(image), str(packages)])
    return cached(f"image-{kind}", recipe, lambda target: build(image, packages, target), keep=1) / "image.tar"


def build(image: Image, packages: Path, target: Path) -> None:
    """Make the directory `target` with `image.tar` in it."""
    target.mkdir()
    files = target / "files.tar"
    write_files(image, files)
    write_archive(image, [packages / "layer.tar", files], target / "image.tar")


def build_packages(image: Image, target: Path) -> None:
    """Make the directory `target` with the layer of the image's Debian packages in it."""
    target.mkdir()
    result = contained.run(
        [
            "mmdebstrap",
            "--variant=essential",
            "--mode=root",
            "--format=tar",
            f"--include={','.join(image.packages)}",
            *(f'--dpkgopt=path-exclude="/usr/share/{name}/*"' for name in ("man", "doc", "locale")),
            *(f"--customize-hook={hook}" for hook in image.hooks),
            '--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*',
            SUITE,
            str(target / "layer.tar"),
            f"deb [signed-by={keyring()}] {mirror()} {SUITE} main",
        ],
        timeout_s=BUILD_TIMEOUT_S,
    )
    if result.status != 0:
        complaints = [line for line in result.errors.splitlines() if line.startswith("E:")]
        raise ExecutionError(
            f"image {image.name} cannot be built: {' '.join(complaints[:2]) or result.reason}",
            code="lab-image",
        )


def write_files(image: Image, layer: Path) -> None:
    """Write the layer of the image's own files, the same bytes each time."""
    with tarfile.open(layer, "w") as tar:
        for path, text in sorted(image.files.items()):
            member = tarfile.TarInfo(path.lstrip("/"))
            member.mode = 0o755 if text.startswith("#!") else 0o644
            content = text.encode()
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def write_archive(image: Image, layers: list[Path], target: Path) -> None:
    """Write an archive that `podman load` takes."""
    configuration = json.dumps(
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": FIXED_TIME,
            "config": {
                "Cmd": list(image.command),
                "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(layer)}" for layer in layers]},
            "history": [{"created": FIXED_TIME, "created_by": "lifeboat's lab"} for _ in layers],
        },
        sort_keys=True,
    ).encode()
    configuration_name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    names = [f"layer{number}.tar" for number, _ in enumerate(layers)]
    manifest = [{"Config": configuration_name, "RepoTags": [image.name], "Layers": names}]
    with tarfile.open(target, "w") as tar:
        for name, content in (
            ("manifest.json", json.dumps(manifest).encode()),
            (configuration_name, configuration),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for layer, name in zip(layers, names, strict=True):
            tar.add(layer, name)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
