"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from migrator.files import write_whole


def test_a_file_that_was_written_has_its_name_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        synced.append(f"{kind}, {sorted(path.name for path in tmp_path.iterdir())}")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    write_whole(tmp_path / "kept", b"data", 0o640)
    assert synced == ["file, ['.kept.new']", "directory, ['kept']"]
    assert (tmp_path / "kept").read_bytes() == b"data"
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o640
