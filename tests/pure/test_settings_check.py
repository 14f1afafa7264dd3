"""`lifeboatd --check`: it reads as the daemon would, beside one that runs, and touches nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pure.test_daemon import House
from watchdog.daemon.main import check
from watchdog.daemon.places import Places
from watchdog.toml_files import FileError


def files(directory: Path) -> dict[Path, bytes]:
    """Return all that is in a directory."""
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_check_of_the_settings_touches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    House(tmp_path, None).daemon.readings.close()
    (tmp_path / "state/readings.db").write_bytes(b"damaged, or written by another daemon")
    settings = tmp_path / "lifeboat.toml"
    settings.write_text("[evacuation]\nautomatic = false\n")
    places = Places(state=tmp_path / "state", shipped=tmp_path / "shipped", local=tmp_path / "local")
    before = files(tmp_path)
    assert check(settings, places) == 0
    assert capsys.readouterr().out == "settings and 1 rules are good\n"
    assert files(tmp_path) == before
    (tmp_path / "local/rules.toml").write_text("[[rule]]\n")
    with pytest.raises(FileError, match=r"rules\.toml") as refused:
        check(settings, places)
    assert refused.value.exit_status == 2
