"""Files that are copied while a program writes to them through a mapping: the copy must be right in the end."""

from __future__ import annotations

import mmap
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from migrator.storage.sync import Destination, Tree, copy_ahead, copy_difference, sent_files
from migrator.storage.tree import SAFE_AGE_NS, Snapshot

LIMIT_S = 60.0
pytestmark = pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync")


@dataclass(frozen=True)
class Beside(Destination):
    """A peer that is a directory beside."""

    there: Path = Path()

    def remote_shell(self, tree: Tree) -> str:
        """Return what runs rsync's other end here, in that directory."""
        shell = self.directory / "shell"
        shell.write_text(f'#!/bin/sh\nshift\ncd {self.there}\nexec "$@"\n')
        shell.chmod(0o700)
        return str(shell)


class Copied:
    """A tree with one file that a program has mapped, and its copy."""

    def __init__(self, place: Path) -> None:
        self.here, self.there = place / "here", place / "there"
        for directory in (self.here, self.there / "layer"):
            directory.mkdir(parents=True)
        self.tree = Tree("layer", self.here)
        self.destination = Beside(place, "beta", "0a0a", there=self.there)
        self.file = self.here / "mapped"
        self.file.write_bytes(b"0" * 8192)
        os.utime(self.file, (0, 0))
        with self.file.open("r+b") as opened:
            self.mapped = mmap.mmap(opened.fileno(), 8192)

    def write(self, byte: bytes) -> None:
        """Write as the program does."""
        self.mapped[0:1] = byte

    def is_copied(self) -> None:
        """The file goes as it is now, its page still dirty: the end of a copy that has begun before."""
        with (self.there / "layer/mapped").open("wb") as copy:
            copy.write(self.mapped[:])
        status = self.file.stat()
        os.utime(copy.name, ns=(status.st_atime_ns, status.st_mtime_ns))

    def ahead(self, since: Snapshot | None) -> Snapshot:
        """Copy while it runs."""
        return copy_ahead(self.tree, self.destination, LIMIT_S, None if since is None else since.at_ns)

    def last(self, before: Snapshot | None) -> None:
        """Copy when it stands still; what came is what is here."""
        copy_difference(self.tree, self.destination, before, LIMIT_S)
        found = {path.name: path.read_bytes() for path in (self.there / "layer").iterdir()}
        assert found == {path.name: path.read_bytes() for path in self.here.iterdir()}


@pytest.fixture
def copied(tmp_path: Path) -> Copied:
    return Copied(tmp_path)


def be_old() -> None:
    """Let what was changed before be no more doubtful by its age alone: the time of a file cannot be chosen."""
    time.sleep(2.1 * SAFE_AGE_NS / 1e9)


def test_what_is_written_after_a_file_was_copied_with_its_new_time(copied: Copied) -> None:
    before = copied.ahead(None)
    copied.write(b"1")  # it has its new time, and its page is dirty
    copied.is_copied()
    copied.write(b"2")  # no time tells of that
    copied.last(before)


def test_a_second_copy_does_not_forget_what_the_first_one_doubted(copied: Copied) -> None:
    first = copied.ahead(None)
    copied.write(b"1")
    copied.is_copied()
    copied.write(b"2")
    be_old()
    copied.last(copied.ahead(first))


def test_a_slow_disk_gives_no_false_comfort(copied: Copied, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is dirty again before the file system is all written out."""
    first = copied.ahead(None)

    def write_out(_: Path) -> None:
        os.sync()
        copied.write(b"1")
        be_old()

    monkeypatch.setattr("migrator.storage.sync.write_out", write_out)
    second = copied.ahead(first)
    copied.write(b"2")
    copied.last(second)


def test_without_a_copy_that_is_known_no_time_is_trusted(copied: Copied) -> None:
    stale = copied.there / "layer/mapped"
    stale.write_bytes(b"1" * 8192)
    status = copied.file.stat()
    os.utime(stale, ns=(status.st_atime_ns, status.st_mtime_ns))
    copied.last(None)
    stale.write_bytes(b"1" * 8192)
    os.utime(stale, ns=(status.st_atime_ns, status.st_mtime_ns))
    copied.last(copied.ahead(None))


def test_hard_links_stay_whole(copied: Copied) -> None:
    """An old pair and a new one, sent in the last copy; and a pair that is only doubtful."""
    for pair in ("old", "quiet"):
        (copied.here / f"{pair}1").write_text("x")
        os.link(copied.here / f"{pair}1", copied.here / f"{pair}2")
    before = copied.ahead(None)
    with (copied.here / "old1").open("a") as file:
        file.write("y")
    (copied.here / "new1").write_text("z")
    os.link(copied.here / "new1", copied.here / "new2")
    copied.last(before)
    there = {path.name: path.stat() for path in (copied.there / "layer").iterdir()}
    for pair in ("old", "new", "quiet"):
        assert there[f"{pair}1"].st_ino == there[f"{pair}2"].st_ino, pair


def test_names_as_files_may_have_them(copied: Copied) -> None:
    names = ["a b", "a\nb", "a\\#012b", " c", "d\u2028e", "f\udcff"]
    before = copied.ahead(None)
    for name in names:
        (copied.here / name).write_text(name.encode("utf-8", "replace").decode())
    copied.last(before)
    for name in names:
        (copied.here / name).unlink()
    copied.last(before)


def test_what_rsync_says_it_sent() -> None:
    said = "<f.st...... a b\ncd+++++++++ c/\n<f+++++++++ d\\#012e\n.f...p..... f\n*deleting   g\n"
    assert sent_files(said) == {"a b"}
