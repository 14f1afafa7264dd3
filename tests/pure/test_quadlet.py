"""The files of a unit: which go along, where they lie meanwhile, and that nothing is left if it does not come."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from migrator.command import CommandResult
from migrator.container import quadlet
from migrator.errors import PrerequisiteError
from migrator.model import QuadletUnit, UnitFile
from migrator.target import adoption

WEB = "[Container]\nImage=web\nVolume=data.volume:/data\nEnvironmentFile=-/etc/web.env\n"
UNIT = QuadletUnit(
    unit="web.service",
    files=(
        UnitFile(name="web.container", text=WEB),
        UnitFile(name="web.container.d/10-more.conf", text="[Container]\nLabel=a=b\n"),
        UnitFile(name="data.volume", text="[Volume]\n"),
    ),
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory with all places of a host in it."""
    for module, name, below in (
        (quadlet, "ADMIN", "etc"),
        (adoption, "ADMIN", "etc"),
        (adoption, "TEMPORARY", "temporary"),
        (adoption, "RUNTIME_UNITS", "units"),
    ):
        monkeypatch.setattr(module, name, tmp_path / below)
    monkeypatch.setattr(quadlet, "DIRECTORIES", (tmp_path / "temporary", tmp_path / "etc"))
    monkeypatch.setattr(adoption, "spawn", lambda *_, **__: subprocess.Popen(["true"]))
    return tmp_path


def files(place: Path) -> set[str]:
    """Return the files below a directory."""
    return {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}


def systemd(monkeypatch: pytest.MonkeyPatch, **properties: str) -> list[str]:
    """Let systemd answer with these properties; return the list in which its other orders will be."""
    ordered: list[str] = []

    def run(argv: Sequence[str], **_: Any) -> CommandResult:
        if argv[1] != "show":
            ordered.append(argv[1])
        told = "".join(f"{name}={value}\n" for name, value in properties.items())
        return CommandResult(tuple(argv), 0, told, "")

    for module in (quadlet, adoption):
        monkeypatch.setattr(module, "run", run)
    return ordered


def on_source(place: Path, **texts: str) -> None:
    """Write files of Quadlet; an underscore stands for the dot."""
    for file in UNIT.files:
        path = place / "etc" / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts.get(file.name.replace(".", "_"), file.text))


def test_what_a_unit_is_made_of(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drop_ins = "/usr/lib/systemd/system/service.d/a.conf /etc/systemd/system/web.service.d/b.conf"
    systemd(monkeypatch, SourcePath=str(place / "etc/web.container"), DropInPaths=drop_ins)
    on_source(place)
    found = quadlet.read("web.service")
    assert found.files == UNIT.files
    assert found.left_behind == ("/etc/web.env", "/etc/systemd/system/web.service.d/b.conf")


@pytest.mark.parametrize(
    ("unit", "text", "why"),
    [
        ("", WEB, "not started by a unit"),
        ("other.service", WEB, "calls its unit other.service"),
        ("web.service", f"{WEB}Pod=peas.pod\n", "belongs to a pod"),
        ("web.service", f"{WEB}Notify=healthy\n", "Notify=healthy"),
        ("web.service", f"{WEB}Image=web.build\n", "web.build"),
        ("web.service", f"{WEB}[Service]\nType=oneshot\n", "oneshot"),
        ("web.service", f"{WEB}Network=lost.network\n", "lost.network, which it names, is not here"),
        ("web.service", f"{WEB}nonsense\n", "no line of a unit file"),
    ],
)
def test_units_that_stay(place: Path, monkeypatch: pytest.MonkeyPatch, unit: str, text: str, why: str) -> None:
    systemd(monkeypatch, SourcePath=str(place / "etc/web.container"))
    on_source(place, web_container=text)
    with pytest.raises(PrerequisiteError, match=why):
        quadlet.read(unit)


def test_a_unit_that_is_not_of_quadlet_stays(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemd(monkeypatch, SourcePath="", FragmentPath="/etc/systemd/system/web.service")
    with pytest.raises(PrerequisiteError, match="not one of Quadlet's"):
        quadlet.read("web.service")


def test_a_unit_that_comes_and_stays(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was here word for word stays where it was; what came is temporary until it is here for good."""
    systemd(monkeypatch)
    (place / "etc").mkdir()
    (place / "etc/data.volume").write_text("[Volume]\n")
    coming = adoption.Adoption(UNIT, "cafe", place / "migration")
    coming.start(["podman", "restore", "a b"], {"NAME": "x y"}).wait(10)
    drop_in = "units/web.service.d/90-lifeboat-arrival.conf"
    temporary = {"temporary/web.container", "temporary/web.container.d/10-more.conf"}
    assert files(place) >= {"etc/data.volume", drop_in, *temporary}
    assert "temporary/data.volume" not in files(place)
    assert "\nConditionPathExists=\n" in (place / drop_in).read_text()  # the ban holds for everybody else
    script = (place / "migration/unit").read_text()
    assert "'NAME=x y' podman restore 'a b' || exit 1" in script
    assert "echo cafe >/run/web.cid" in script
    coming.settle()
    for directory in ("temporary", "units"):
        assert files(place / directory) == set()
    assert files(place / "etc") == {file.name for file in UNIT.files}
    coming.settle()
    coming.withdraw()  # too late, so nothing happens
    assert files(place / "etc") == {file.name for file in UNIT.files}


def test_nothing_stays_of_a_unit_that_does_not_come(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ordered = systemd(monkeypatch)
    coming = adoption.Adoption(UNIT, "cafe", place / "migration")
    coming.withdraw()
    assert ordered == []
    coming.start([], {}).wait(10)
    adoption.Adoption(UNIT, "cafe", place / "migration").withdraw()  # by a later daemon
    assert {name for name in files(place) if not name.startswith("migration/")} == set()
    assert ordered == ["daemon-reload", "stop", "reset-failed", "daemon-reload"]
