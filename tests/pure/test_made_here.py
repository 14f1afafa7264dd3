"""What was made for a container that does not come goes, also after a restart of its host, and nothing else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from migrator.errors import CommandError, ExecutionError
from migrator.model import Method, Phase
from migrator.protocol.messages import Proposal, Standing
from migrator.recovery import incoming
from migrator.recovery.incoming import adopted
from migrator.runtime import podman
from migrator.settings import MigratorSettings
from migrator.storage.volumes import Made, Volumes
from migrator.target.hall import Hall
from migrator.target.incoming import MADE
from migrator.target.reception import Reception
from tests.pure.halls import hall_in
from tests.pure.test_staging import PODMAN, mount, wish
from tests.pure.test_taken_up import caretaker
from tests.pure.values import container


class Beta:
    """A target, its podman's volumes, and a container that comes with two of them and a directory."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.volumes = place / "volumes"
        self.site = place / "srv/site"
        mounts = (mount("data"), mount("old"), mount("", kind="bind", source=str(self.site)))
        self.facts = container("web", 0.1, id="a" * 64, volumes=mounts)
        self.proposal = Proposal(
            migration="0a0a", source="alpha", container=self.facts, method=Method.FULL, copy_image=False, epoch=1
        )  # fmt: skip  # two lines of facts
        self.hall = self.started()

    def started(self) -> Hall:
        """Return what a daemon that was just started has."""
        return hall_in(self.place, MigratorSettings())

    def reserve(self) -> Reception:
        """Take the proposal, as far as volumes go; half of their files come."""
        reception = Reception(self.hall, self.proposal)
        reception.record.begin()
        self.hall.stagings.give(self.proposal, reception._volumes, reception._staging)
        for directory in (self.volumes / "data", self.site):
            (directory / "half").write_text("x")
        return reception

    @property
    def record(self) -> Path:
        """Return the file that tells what was made."""
        return self.place / MADE / "0a0a.json"

    def there(self) -> list[str]:
        """Return the volumes that are there, and the directory."""
        return sorted(path.name for path in (*self.volumes.iterdir(), *self.site.parent.glob("*")))


@pytest.fixture
def beta(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Beta:
    """Return a target that has a volume of the container's already, with a file."""
    script = tmp_path / "bin/podman"
    for directory in (script.parent, tmp_path / "volumes/old"):
        directory.mkdir(parents=True)
    (tmp_path / "volumes/old/file").write_text("precious")
    script.write_text(PODMAN.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.setenv("PODMAN_PLACE", str(tmp_path / "volumes"))
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(incoming, "ask_source", lambda *_: None)
    monkeypatch.setattr(incoming, "_shim", lambda _: None)
    return Beta(tmp_path)


@pytest.mark.parametrize("staged", [False, True])
def test_a_daemon_that_was_started_again_takes_away_what_was_made(beta: Beta, *, staged: bool) -> None:
    """Half full, it would keep every later offer of the container from this host."""
    if staged:
        beta.hall.stagings.stage(wish(facts=beta.facts), now=0)
    beta.reserve()
    assert beta.there() == ["data", "old", "site"]
    hall = beta.started()
    (reception,) = adopted(hall, hall.journal)
    caretaker(hall, [reception], []).look()
    assert (reception.standing, reception.ended) == (Standing.ABORTED, True)
    assert beta.there() == ["old"]
    assert (beta.volumes / "old/file").read_text() == "precious"
    assert not beta.record.exists()


def test_what_a_commit_has_given_to_the_container_stays(beta: Beta) -> None:
    beta.reserve().record.commit()
    hall = beta.started()
    (reception,) = adopted(hall, hall.journal)
    with pytest.raises(ExecutionError, match="committed"):
        reception.abort("the source withdrew")
    assert beta.there() == ["data", "old", "site"]
    reception._end(Phase.DONE, "complete")
    assert not beta.record.exists()
    Volumes(beta.facts, beta.record).remove()
    assert beta.there() == ["data", "old", "site"]


@pytest.mark.parametrize("at", ["data", "site"])
def test_it_is_written_down_before_it_is_made(beta: Beta, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    class DiedError(BaseException):
        """The daemon."""

    def die(*_: object, **__: object) -> None:
        raise DiedError

    with monkeypatch.context() as dying:
        dying.setattr(*((podman, "create_volume", die) if at == "data" else (Path, "mkdir", mkdir_or(die, beta))))
        with pytest.raises(DiedError):
            beta.reserve()
    told = Made.model_validate_json(beta.record.read_bytes())
    assert (told.volume, told.directory) == (("data", None) if at == "data" else (None, beta.site))
    place = beta.volumes / "data" if at == "data" else beta.site
    for foreign in (True, False):  # somebody else made one and has written to it; it was ours, empty
        place.mkdir(parents=True, exist_ok=True)
        (place / "theirs").write_text("x")
        if not foreign:
            (place / "theirs").unlink()
        beta.record.write_text(told.model_dump_json())
        Volumes(beta.facts, beta.record).remove()
        assert place.exists() is foreign
    beta.record.write_text(told.model_dump_json())
    Volumes(beta.facts, beta.record).remove()  # nothing is there


def mkdir_or(die: object, beta: Beta) -> object:
    """Return what dies where the directory of the container's is made."""
    real = Path.mkdir

    def mkdir(path: Path, mode: int = 0o777, *, parents: bool = False, exist_ok: bool = False) -> None:
        if path == beta.site:
            assert callable(die)
            die()
        real(path, mode, parents, exist_ok)

    return mkdir


def test_what_somebody_else_makes_at_the_same_time_stays_his(beta: Beta, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(name: str, *_: object) -> None:
        (beta.volumes / name).mkdir()
        raise CommandError("volume already exists", code="command-failed")

    monkeypatch.setattr(podman, "create_volume", create)
    with pytest.raises(CommandError):
        beta.reserve()
    assert Made.model_validate_json(beta.record.read_bytes()) == Made()
    hall = beta.started()
    (reception,) = adopted(hall, hall.journal)
    caretaker(hall, [reception], []).look()
    assert beta.there() == ["data", "old"]


def test_a_record_that_nobody_understands_takes_nothing_away(beta: Beta) -> None:
    beta.reserve()
    beta.record.write_text("{")
    Volumes(beta.facts, beta.record).remove()
    assert beta.there() == ["data", "old", "site"]


def test_a_directory_that_a_container_has_mounted_by_now_stays(beta: Beta) -> None:
    beta.reserve()
    (beta.place / "mounted").write_text(str(beta.site / "below"))
    Volumes(beta.facts, beta.record).remove()
    assert beta.there() == ["old", "site"]
    assert (beta.site / "half").exists()


def test_what_waits_stays_known_while_nobody_has_written_down_that_he_has_it(
    beta: Beta, monkeypatch: pytest.MonkeyPatch
) -> None:
    beta.hall.stagings.stage(wish(facts=beta.facts), now=0)
    reception = Reception(beta.hall, beta.proposal)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Volumes, "_write", refuse)
        with pytest.raises(OSError, match="No space left"):
            beta.hall.stagings.give(beta.proposal, reception._volumes, reception._staging)
    assert len(beta.hall.stagings.records()) == 1


def test_what_waits_is_at_no_time_nobody_s(beta: Beta) -> None:
    """The record of what waits goes when the migration has its own."""
    beta.hall.stagings.stage(wish(facts=beta.facts), now=0)
    with beta.hall.stagings.taking(beta.facts, "alpha") as taken:
        assert taken.volumes == ("data",)
        assert len(beta.hall.stagings.records()) == 1
    assert not beta.hall.stagings.records()
