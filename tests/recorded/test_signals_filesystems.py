"""File systems that the kernel has made read-only, and errors that ext4 has counted."""

from __future__ import annotations

from pathlib import Path

from tests.recorded.signal_data import DATA, values
from watchdog.signals.filesystems import FileSystemReader
from watchdog.signals.mounts import mounted_from, parse_mounts

TEXT = (DATA / "mountinfo.txt").read_text()


def test_what_the_kernel_made_read_only_is_told_from_what_an_admin_did(tmp_path: Path) -> None:
    errors = tmp_path / "fs/ext4/sda1/errors_count"
    errors.parent.mkdir(parents=True)
    errors.write_text("4\n")
    found = values(FileSystemReader(60, DATA / "mountinfo.txt", tmp_path).read(1.0))
    assert found["/", "filesystem.read_only"] == 0.0
    assert found["/", "filesystem.errors"] == 4
    assert found["/backup", "filesystem.read_only"] == 1.0
    assert found["/new", "filesystem.read_only"] == 1.0
    assert found["/srv/data one", "filesystem.read_only"] == 0.0
    assert found["/tank", "filesystem.read_only"] == 0.0
    assert ("/var", "filesystem.read_only") not in found
    assert ("/proc", "filesystem.read_only") not in found


def test_a_list_that_cannot_be_read_is_blindness(tmp_path: Path) -> None:
    assert values(FileSystemReader(60, tmp_path / "none").read(1.0)) == {("reader mounts", "reader.blind"): None}


def test_a_changed_list_is_read_anew(tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(TEXT)
    reader = FileSystemReader(60, mountinfo, tmp_path)
    reader.read(1.0)
    mountinfo.write_text(TEXT.replace("/dev/sdb1 rw", "/dev/sdb1 ro"))
    assert values(reader.read(2.0))["/srv/data one", "filesystem.read_only"] == 1.0
    assert reader.alarm() is not None


def test_a_file_system_is_found_by_the_kernels_name_for_it() -> None:
    mount = mounted_from(parse_mounts(TEXT), "sdb1")
    assert mount is not None
    assert mount.place == "/srv/data one"
    assert mounted_from(parse_mounts(TEXT), "sdz9") is None
