"""Two containers of one name or id: only one comes here at a time, and what ends removes nothing of another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from migrator.command import CommandResult
from migrator.errors import CommandError, ExecutionError, PrerequisiteError
from migrator.model import Method
from migrator.protocol.journal import Journal, Side
from migrator.protocol.messages import Accepted, ParkRequest, Proposal, Standing
from migrator.runtime import podman, tombstone
from migrator.settings import MigratorSettings
from migrator.target import arrival, created
from migrator.target.desk import Desk
from migrator.target.reception import Reception
from migrator.words import ORIGIN
from tests.pure.halls import hall_in
from tests.pure.values import container, pod

OURS, THEIRS, MADE = "a" * 64, "b" * 64, "c" * 64
REQUEST = ParkRequest(
    configuration="", specification="", network_status="", create_argv=("podman", "create", "--name", "web", "i")
)


class Podman:
    """What podman knows: ids, with the name and the origin (`words.ORIGIN`) of each."""

    def __init__(self, place: Path, known: dict[str, tuple[str, str]]) -> None:
        self.place = place
        self.known = known

    def run(self, argv: Sequence[str], *, check: bool = True, **_: object) -> CommandResult:
        """As `command.run`."""
        if argv[2] == "exists":
            return CommandResult(tuple(argv), int(not self._find(argv[-1])), "", "")
        output, errors = self._answer(list(argv))
        if check and errors:
            raise CommandError(errors, code="command-failed")
        return CommandResult(tuple(argv), 125 if errors else 0, output, errors)

    def _answer(self, argv: list[str]) -> tuple[str, str]:
        found = self._find(argv[-1])
        if argv[1] == "create":
            name, (origin,) = argv[argv.index("--name") + 1], (word for word in argv if ORIGIN in word)
            if any(name == taken for taken, _ in self.known.values()):
                return "", f'Error: the container name "{name}" is already in use'
            self.known[MADE] = (name, origin.rpartition("=")[2])
        elif argv[1] == "rm":
            for item in found:
                del self.known[item]
        elif argv[1:3] == ["container", "inspect"]:
            return json.dumps(
                [self._inspected(item) for item in found]
            ), "" if found else "Error: no such container"
        return "", ""

    def _find(self, word: str) -> list[str]:
        return [item for item, (name, _) in self.known.items() if word in (item, name)]

    def _inspected(self, identifier: str) -> dict[str, object]:
        origin = self.known[identifier][1]
        return {
            "Id": identifier,
            "Config": {"Annotations": {ORIGIN: origin} if origin else None},
            "GraphDriver": {"Name": "overlay", "Data": {"UpperDir": str(self.place / "upper")}},
            "StaticDir": str(self.place),
        }


def offer(
    migration: str, name: str = "web", identifier: str = OURS, source: str = "alpha", method: Method = Method.FULL
) -> Proposal:
    """Return what a source offers."""
    facts = container(name, id=identifier)
    return Proposal(
        migration=migration, source=source, container=facts, method=method, copy_image=False, epoch=1
    )  # fmt: skip  # two lines of facts


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Return a desk with room for everything, at which a reservation costs nothing."""

    def reserve(reception: Reception) -> Accepted:
        reception.record.begin()
        reception._reserved = True
        return Accepted(migration=reception.proposal.migration, needs_image=False, pager_port=0)

    monkeypatch.setattr(Reception, "reserve", reserve)
    monkeypatch.setattr(arrival, "end_scope", lambda _: None)
    monkeypatch.setattr(podman, "run", Podman(tmp_path, {}).run)
    return Desk(hall_in(tmp_path, MigratorSettings()), lambda: "", lambda: 1 << 40)


@pytest.mark.parametrize(
    ("name", "identifier", "source"),
    [("web", THEIRS, "gamma"), ("web", THEIRS, "alpha"), ("db", OURS, "gamma"), ("web", OURS, "gamma")],
)
def test_a_second_one_of_a_name_or_an_id_waits_for_the_end_of_the_first(
    desk: Desk, name: str, identifier: str, source: str
) -> None:
    desk.reserve(offer("one"))
    with pytest.raises(PrerequisiteError, match="web of alpha is on its way to beta") as refused:
        desk.reserve(offer("two", name, identifier, source))
    assert (refused.value.code, refused.value.temporary) == ("target-name-taken", True)
    assert "lifeboat recover one" in refused.value.hint
    desk.reserve(offer("three", "other", "d" * 64))
    first = desk.reception("one", "alpha")
    assert first.record.decision is None, "nothing is done to it"
    first.abort("the source withdrew")
    assert desk.reserve(offer("two", name, identifier, source)).migration == "two"


def test_nobody_offers_under_the_name_of_a_migration_that_is_another_s(desk: Desk, tmp_path: Path) -> None:
    """Whoever takes what leaves here knows its migration, whose rows and directory it would share."""
    Journal(tmp_path / "journal.db").begin("away", Side.SOURCE, "web", "{}")
    desk.reserve(offer("one"))
    for migration in ("away", "one"):
        with pytest.raises(PrerequisiteError, match=f"{migration} is no migration of gamma") as refused:
            desk.reserve(offer(migration, "other", "d" * 64, "gamma"))
        assert refused.value.code == "not-yours"


def test_a_source_that_begins_anew_has_given_up_what_it_began(desk: Desk) -> None:
    desk.reserve(offer("one"))
    first = desk.reception("one", "alpha")
    desk.reserve(offer("one"))
    assert not first.ended, "it is only asked again"
    desk.reserve(offer("two"))
    assert (first.standing, first.ended) == (Standing.ABORTED, True)
    assert not desk.reception("two", "alpha").ended


def test_an_offer_that_comes_late_drops_nothing(desk: Desk) -> None:
    desk.reserve(offer("one"))
    desk.reserve(offer("two"))
    with pytest.raises(PrerequisiteError) as refused:
        desk.reserve(offer("one"))
    assert refused.value.code == "old-epoch"
    assert not desk.reception("two", "alpha").ended


def test_what_is_committed_is_not_dropped_for_a_new_offer(desk: Desk) -> None:
    desk.reserve(offer("one"))
    first = desk.reception("one", "alpha")
    first.record.commit()
    with pytest.raises(PrerequisiteError) as refused:
        desk.reserve(offer("two"))
    assert (refused.value.code, first.ended) == ("target-busy", False)


def test_what_is_restored_waits_for_its_source_s_word_whatever_that_offers(desk: Desk) -> None:
    desk.reserve(offer("one"))
    first = desk.reception("one", "alpha")
    first._standing = Standing.RESTORED
    with pytest.raises(PrerequisiteError) as refused:
        desk.reserve(offer("two"))
    assert (refused.value.code, refused.value.temporary) == ("target-busy", True)
    assert (first.standing, first.ended, first.record.decision) == (Standing.RESTORED, False, None)


def parked(
    place: Path, monkeypatch: pytest.MonkeyPatch, known: dict[str, tuple[str, str]], method: Method
) -> Reception:
    """Return a reception on a host whose podman knows these, with its ban."""
    asked = Podman(place, known)
    for module in (podman, created):
        monkeypatch.setattr(module, "run", asked.run)
    monkeypatch.setattr(arrival, "end_scope", lambda _: None)
    reception = Reception(hall_in(place, MigratorSettings()), offer("one", method=method))
    reception._reserved = True
    tombstone.ban(place, reception.proposal.container)
    return reception


@pytest.mark.parametrize(
    ("method", "known", "left"),
    [
        (Method.FULL, {THEIRS: ("web", "")}, {THEIRS}),
        (Method.FULL, {OURS: ("renamed", ""), THEIRS: ("web", "")}, {THEIRS}),
        (Method.COLD, {THEIRS: ("web", "")}, {THEIRS}),
        (Method.COLD, {THEIRS: ("web", "d" * 64)}, {THEIRS}),
        (Method.COLD, {MADE: ("web", OURS)}, set()),
    ],
)
def test_only_what_came_by_a_migration_is_removed_with_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: Method,
    known: dict[str, tuple[str, str]],
    left: set[str],
) -> None:
    reception = parked(tmp_path, monkeypatch, known, method)
    assert reception.given_up == (set(known) == left) or method is Method.FULL
    if method is Method.COLD:
        assert reception._arrival.lives == (set(known) != left)
    reception.abort("the source withdrew")
    assert set(known) == left
    assert not tombstone.is_banned(tmp_path, reception.proposal.container)


def test_who_finds_the_name_taken_fails_and_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {THEIRS: ("web", "")}
    reception = parked(tmp_path, monkeypatch, known, Method.COLD)
    layer = reception.tree_path("layer")
    assert layer.is_relative_to(tmp_path / "staging"), "not into the layer of another one"
    with pytest.raises(CommandError, match="already in use"):
        reception.park(REQUEST)
    assert reception.standing is Standing.RESERVED
    reception.abort("it cannot be parked")
    assert known == {THEIRS: ("web", "")}


def test_what_is_created_is_known_by_where_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, tuple[str, str]] = {}
    reception = parked(tmp_path, monkeypatch, known, Method.COLD)
    monkeypatch.setattr(reception.delivery, "write_ahead", lambda: None)
    reception.park(REQUEST)
    assert (reception.standing, known) == (Standing.PARKED, {MADE: ("web", OURS)})
    assert reception.tree_path("layer") == tmp_path / "upper"


@pytest.mark.parametrize("method", [Method.FULL, Method.COLD])
def test_a_refused_offer_can_do_nothing_to_what_has_its_id_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:
    """A member of the cluster may know the id of any container, and offer one of that id."""
    known = {OURS: ("mine", "")}
    monkeypatch.setattr(podman, "run", Podman(tmp_path, known).run)
    monkeypatch.setattr(created, "run", Podman(tmp_path, known).run)
    monkeypatch.setattr(arrival, "end_scope", lambda _: None)
    monkeypatch.setattr(tombstone, "ALLOWED", tmp_path / "allowed")
    desk = Desk(hall_in(tmp_path, MigratorSettings(accept_privileged=True)), lambda: "", lambda: 1 << 40)
    proposal = offer("one", method=method)
    with pytest.raises(PrerequisiteError) as refused:
        desk.reserve(proposal)
    assert refused.value.code == "target-name-taken"
    reception = desk.reception("one", "alpha")
    for ask in (lambda: reception.park(REQUEST), lambda: reception.tree_path("layer")):
        with pytest.raises(ExecutionError) as not_reserved:
            ask()
        assert not_reserved.value.code == "not-reserved"
    assert not tombstone.is_banned(tmp_path, proposal.container)
    tombstone.ban(tmp_path, proposal.container)  # it is just leaving this host
    with tombstone.allowed(OURS):
        reception.abort("the source withdrew")
        assert (tmp_path / "allowed" / OURS).exists()
    assert reception.ended
    assert known == {OURS: ("mine", "")}
    assert tombstone.is_banned(tmp_path, proposal.container)


def test_a_refused_member_makes_no_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podman, "run", Podman(tmp_path, {OURS: ("mine", "")}).run)
    member = offer("one").model_copy(
        update={"company": ("one",), "container": container("web", id=OURS, pod=pod())}
    )
    desk = Desk(hall_in(tmp_path, MigratorSettings()), lambda: "", lambda: 1 << 40)
    with pytest.raises(PrerequisiteError):
        desk.reserve(member)
    with pytest.raises(ExecutionError) as not_reserved:
        desk.reception("one", "alpha").joined()
    assert not_reserved.value.code == "not-reserved"


def test_nothing_is_parked_or_written_before_it_is_known_how_it_stands(tmp_path: Path) -> None:
    """A daemon was started again, and podman does not answer: the container may run here."""
    reception = Reception(hall_in(tmp_path, MigratorSettings()), offer("one"), adopted=False)
    for ask in (lambda: reception.park(REQUEST), lambda: reception.tree_path("layer")):
        with pytest.raises(ExecutionError) as unknown:
            ask()
        assert unknown.value.code == "not-taken-up"
    assert not tombstone.is_banned(tmp_path, reception.proposal.container)
