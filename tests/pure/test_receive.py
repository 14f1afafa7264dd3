"""What a peer may send: trees, images, process images; and where it can never write."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from migrator.errors import ExecutionError, PrerequisiteError
from migrator.model import ContainerFacts, HostFacts, NetworkAttachment, VolumeMount
from migrator.protocol.messages import Proposal
from migrator.runtime.tombstone import remove
from migrator.storage.image import unpack
from migrator.storage.jail import Jail
from migrator.storage.receive import check_image, rsync_argv
from migrator.storage.sync import NANOSECONDS, RSYNC, SENT_FORMAT
from migrator.words import UNIT_LABEL, is_unit, printable
from tests.pure.cluster import host_facts

OURS = "rsync --server -lHogDtpAXrSe.iLsfxCIvu --delete -@-1 --numeric-ids . layer"
LISTED = "rsync --server -ldHogDtpAXIRSe.LsfxCIvu --no-r --delete -@-1 --numeric-ids . layer"


def test_what_our_own_rsync_asks() -> None:
    assert rsync_argv(OURS.split()) == [*OURS.split()[:-1], "/tree/"]
    assert rsync_argv(LISTED.split()) == [*LISTED.split()[:-1], "/tree/"]


@pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync")
@pytest.mark.parametrize(
    "more",
    [["--ignore-times"], [SENT_FORMAT], ["--ignore-times", "--ignore-missing-args", "--from0", "--files-from=-"]],
)
def test_what_this_machine_s_rsync_asks(tmp_path: Path, more: list[str]) -> None:
    shell = tmp_path / "shell"
    shell.write_text(f'#!/bin/sh\nshift\nprintf "%s\\n" "$@" > {tmp_path}/said\nexit 1\n')
    shell.chmod(0o700)
    argv = [*RSYNC, NANOSECONDS, *more, "-e", str(shell), f"{tmp_path}/", "beta:layer"]
    subprocess.run(argv, check=False, input=b"said\0", capture_output=True)
    rsync_argv((tmp_path / "said").read_text().split())


@pytest.mark.parametrize(
    "command",
    [
        "",
        "rsync",
        "rsync --server",
        "rsync --server layer",
        "sh -c id",
        "rsync --server --daemon . layer",
        "rsync --server --sender -logDtpr . /etc/shadow",
        "rsync --server -logDtpre.iLsfxCIvu --log-file=/etc/cron.d/x . layer",
        "rsync --server -logDtpre.iLsfxCIvu --temp-dir=/etc . layer",
        "rsync --server -logDtpre.iLsfxCIvu --partial-dir /etc . layer",
        "rsync --server -logDtpre.iLsfxCIvu --backup-dir=/etc . layer",
        "rsync --server -logDtpre.iLsfxCIvu --config=/x . layer",
        "rsync --server -logDtpre.iLsfxCIvu --only-write-batch=/etc/x . layer",
        "rsync --server -logDtpre.iLsfxCIvu --remove-source-files . layer",
        "rsync --server -logDtpre.iLsfxCIvu --copy-dest=/etc . layer",
        "rsync --server -logDtpre.iLsfxCIvu --files-from=/etc/shadow . layer",
        "rsync --server -logDtpre.iLsfxCIvu -M--log-file=/x . layer",
        "rsync --server -logDtprT/etc . layer",
        "rsync --server -logDtprKe.iLsfxCIvu . layer",
        "rsync --server -logDtpre./usr/bin/x . layer",
    ],
)
def test_what_no_peer_may_ask_of_rsync(command: str) -> None:
    with pytest.raises(PrerequisiteError, match="only rsync's receiving side"):
        rsync_argv(command.split())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a mount namespace")
def test_who_is_in_the_jail_sees_one_tree_and_changes_nothing_else(tmp_path: Path) -> None:
    tree, root, outside = tmp_path / "tree", tmp_path / "jail", tmp_path / "outside"
    for path in (tree, root, outside):
        path.mkdir()
    (tree / "link").symlink_to(outside)  # as one that was sent first
    script = "echo in > /tree/in; echo out > /tree/link/out; echo usr > /usr/lifeboat; ls /; cat /etc/passwd"
    process = Jail(tree, root).spawn(["sh", "-c", script])
    said, errors = process.communicate(timeout=30)
    assert (
        {"dev", "tree", "usr"}
        <= set(said.decode().split())
        <= {"dev", "tree", *["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"]}
    )
    assert b"Read-only file system" in errors
    assert b"/etc/passwd" in errors
    assert (tree / "in").read_text() == "in\n"
    assert not list(outside.iterdir())
    assert not list(root.iterdir())
    assert Path("/etc/passwd").exists(), "we are where we were"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a mount namespace")
def test_a_jail_is_not_made_around_a_link(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "tree").symlink_to("/etc")
    with pytest.raises(ExecutionError, match="cannot be confined"):
        Jail(tmp_path / "tree", tmp_path / "root").spawn(["true"])


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Return a tar archive."""
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
    return packed.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """Return a member of an archive."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_process_images_are_plain_files_side_by_side(tmp_path: Path) -> None:
    packed = tar_of(
        (member(".", tarfile.DIRTYPE), b""),
        (member("./core-1.img"), b"core"),
        (member("./descriptors.json"), b"[]"),
    )
    assert unpack(packed, tmp_path) == "[]"
    assert [path.name for path in tmp_path.iterdir()] == ["core-1.img"]


@pytest.mark.parametrize(
    "hostile",
    [
        member("../escaped"),
        member("/etc/escaped"),
        member("sub/file"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("hard", tarfile.LNKTYPE, "/etc/passwd"),
        member("pipe", tarfile.FIFOTYPE),
        member("device", tarfile.CHRTYPE),
        member("directory", tarfile.DIRTYPE),
        member(".."),
    ],
    ids=lambda item: item.name,
)
def test_hostile_process_images(tmp_path: Path, hostile: tarfile.TarInfo) -> None:
    images = tmp_path / "images"
    images.mkdir()
    with pytest.raises(ExecutionError, match="no images"):
        unpack(tar_of((hostile, b"")), images)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    assert not list(images.iterdir())


@pytest.mark.parametrize("packed", [b"", b"x" * 600, b"\x1f\x8b" + b"x" * 600], ids=["empty", "noise", "gzip"])
def test_what_are_no_process_images(tmp_path: Path, packed: bytes) -> None:
    with pytest.raises(ExecutionError, match="no images"):
        unpack(packed, tmp_path)


CONFIGURATION = b'{"architecture": "amd64"}'
IMAGE_ID = hashlib.sha256(CONFIGURATION).hexdigest()


def image(**changes: Any) -> bytes:
    """Return an archive as podman writes it."""
    entry = {"Config": f"{IMAGE_ID}.json", "RepoTags": [], "Layers": ["l.tar"], **changes}
    return tar_of(
        (member("l.tar"), b"layer"),
        (member(f"{IMAGE_ID}.json"), CONFIGURATION),
        (member("manifest.json"), json.dumps([entry]).encode()),
    )


def with_member(*added: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Return an image's archive with more in it."""
    plain = [(member(f"{IMAGE_ID}.json"), CONFIGURATION)]
    manifest = json.dumps([{"Config": f"{IMAGE_ID}.json", "RepoTags": None}]).encode()
    return tar_of(*plain, (member("manifest.json"), manifest), *added)


def test_the_proposed_image_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(image())
    check_image(tmp_path / "a", IMAGE_ID)


@pytest.mark.parametrize(
    "archive",
    [
        b"",
        b"noise" * 1000,
        image(RepoTags=["docker.io/library/nginx:latest"]),
        image(Config="other.json"),
        tar_of((member("manifest.json"), b"[]")),
        tar_of((member("manifest.json"), b"[[]]"), (member(f"{IMAGE_ID}.json"), CONFIGURATION)),
        tar_of((member("manifest.json", tarfile.SYMTYPE, "/etc/shadow"), b"")),
        tar_of((member("manifest.json"), b"[" * 100_000)),
        with_member((member("index.json"), b"{}")),
        with_member((member("oci-layout"), b"{}")),
        with_member((member("manifest.json"), b"[]")),
        tar_of(
            (member(f"{IMAGE_ID}.json"), b"something else"),
            (member("manifest.json"), json.dumps([{"Config": f"{IMAGE_ID}.json"}]).encode()),
        ),
    ],
    ids=["empty", "noise", "named", "other", "none", "odd", "link", "deep", "oci", "layout", "twice", "contents"],
)
def test_other_images_are_not(tmp_path: Path, archive: bytes) -> None:
    (tmp_path / "a").write_bytes(archive)
    with pytest.raises(PrerequisiteError, match="this image is not taken"):
        check_image(tmp_path / "a", IMAGE_ID)


CONTAINER: dict[str, Any] = {
    "id": "a" * 64, "name": "web", "image": "docker.io/library/nginx:1", "image_id": "b" * 64, "runtime": "runc",
    "running": True,
}  # fmt: skip
PROPOSAL: dict[str, Any] = {
    "migration": "0123456789ab", "source": "alpha", "container": CONTAINER, "method": "lazy", "copy_image": True,
    "epoch": 1,
}  # fmt: skip
BAD_NAMES = ["", ".", "..", "../x", "a/b", "/etc", "-v", "--privileged", "a b", "a\nb", "a\0b", "ä", "a" * 300]


@pytest.mark.parametrize("bad", BAD_NAMES)
@pytest.mark.parametrize("key", ["id", "name", "image_id"])
def test_names_of_containers(key: str, bad: str) -> None:
    Proposal.model_validate(PROPOSAL)
    if (key, bad) == ("image_id", ""):
        return  # a container that was made from a directory has none
    with pytest.raises(ValueError, match=key):
        Proposal.model_validate({**PROPOSAL, "container": {**CONTAINER, key: bad}})


@pytest.mark.parametrize("bad", [*BAD_NAMES, "A", "a-b"])
def test_ids_of_migrations(bad: str) -> None:
    with pytest.raises(ValueError, match="migration"):
        Proposal.model_validate({**PROPOSAL, "migration": bad})


@pytest.mark.parametrize("bad", BAD_NAMES)
def test_names_of_networks_volumes_and_interfaces(bad: str) -> None:
    network = {"network": "lan", "driver": "macvlan", "interface": "eth0", "mac": "", "addresses": ["10.0.0.1/24"]}
    NetworkAttachment.model_validate(network)
    for key in ("network", "interface"):
        with pytest.raises(ValueError, match=key):
            NetworkAttachment.model_validate({**network, key: bad})
    if bad:
        with pytest.raises(ValueError, match="mac"):
            NetworkAttachment.model_validate({**network, "mac": bad})
        with pytest.raises(ValueError, match="addresses"):
            NetworkAttachment.model_validate({**network, "addresses": [bad]})
        with pytest.raises(ValueError, match="name"):
            VolumeMount(kind="volume", name=bad, source="/x", destination="/y", writable=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [("memory_bytes", 0), ("memory_bytes", -1), ("reserved_bytes", -(1 << 40)), ("load", "NaN"), ("load", -1.0)],
)
def test_facts_that_would_upset_a_plan(key: str, value: object) -> None:
    facts = host_facts("beta").model_dump()
    with pytest.raises(ValueError, match=key):
        HostFacts.model_validate({**facts, key: value})


def test_a_label_is_no_path(tmp_path: Path) -> None:
    assert is_unit("web.service")
    assert is_unit("dev-disk-by\\x2dlabel.swap")
    for bad in ("../../../etc/passwd.service", "a/b.service", "", "web", ".service", "a\n.service", "-a.service"):
        assert not is_unit(bad)
    victim = tmp_path / "victim.d/50-lifeboat-moved.conf"
    victim.parent.mkdir()
    victim.touch()
    label = os.path.relpath(tmp_path / "victim", "/etc/systemd/system")
    remove(tmp_path, ContainerFacts.model_validate({**CONTAINER, "labels": {UNIT_LABEL: label}}))
    assert victim.exists()


def test_what_a_peer_says_commands_no_terminal() -> None:
    assert printable("\x1b[2Jhello\r\nthere\x9b1m") == " [2Jhello there 1m"
    assert len(printable("x" * 5000)) == 1000
