"""A podman that fails says nothing: what it cannot tell is not taken for "there is none"."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from migrator.container import settle
from migrator.errors import CommandError, ExecutionError, LifeboatError
from migrator.model import Method, MigrationOutcome
from migrator.peers.client import PeerClient
from migrator.protocol.journal import Decision, Journal, Side
from migrator.protocol.messages import Report, Standing
from migrator.protocol.timeline import Timeline
from migrator.recovery import incoming
from migrator.recovery.incoming import adopted
from migrator.runtime import podman, pods, tombstone
from migrator.settings import MigratorSettings
from migrator.source.company import Company, remove_empty
from migrator.source.departure import Departure
from migrator.source.handover import Handover
from migrator.source.holding import Holding, holding
from migrator.target.pods import IncomingPod
from migrator.target.reception import Reception
from tests.pure.halls import hall_in
from tests.pure.test_taken_up import caretaker, committed, lose, offer_two
from tests.pure.values import container, pod

PODMAN = """\
#!/bin/sh
# Answers what it is told to; knows of a container that runs.
echo "$*" >> "$PODMAN_PLACE/asked"
status=$(cat "$PODMAN_PLACE/status")
case "$*" in
*exists*) ;;
*inspect*--format*Running*) [ "$status" -eq 0 ] && echo "${RUNS:-true}" ;;
*) exit 0 ;;
esac
[ "$status" -ne 0 ] && cat "$PODMAN_PLACE/words" >&2
exit "$status"
"""
READ_ONLY = "Error: beginning transaction: attempt to write a readonly database"


class Podman:
    """The script, and what it was asked."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.answer(0)

    def answer(self, status: int, words: str = "") -> None:
        """Let it end with this status from now on."""
        (self.place / "status").write_text(str(status))
        (self.place / "words").write_text(words)

    @property
    def asked(self) -> list[str]:
        """Return its command lines."""
        return (self.place / "asked").read_text().splitlines()


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Podman:
    """Return the podman of this host."""
    place = tmp_path / "podman"
    place.mkdir()
    (place / "podman").write_text(PODMAN)
    (place / "podman").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")
    monkeypatch.setenv("PODMAN_PLACE", str(place))
    return Podman(place)


@pytest.mark.parametrize("ask", [podman.has_container, podman.has_volume, podman.has_image, pods.has_pod])
def test_there_is_none_only_when_podman_says_so(script: Podman, ask: Callable[[str], bool]) -> None:
    assert ask("web") is True
    script.answer(1)
    assert ask("web") is False
    for status in (2, 125, 137):
        script.answer(status, READ_ONLY)
        with pytest.raises(CommandError, match="readonly database"):
            ask("web")


def test_it_stands_still_only_when_podman_says_so(script: Podman, monkeypatch: pytest.MonkeyPatch) -> None:
    assert podman.is_running("web") is True
    script.answer(125, 'Error: no such container "web"')
    assert podman.is_running("web") is False
    script.answer(125, READ_ONLY)
    with pytest.raises(CommandError, match="readonly database"):
        podman.is_running("web")
    with pytest.raises(CommandError, match="readonly database"):
        podman.kill_and_wait("web")  # or it would be taken for dead
    script.answer(0)
    monkeypatch.setenv("RUNS", "false")
    assert podman.is_running("web") is False


def leaving(place: Path) -> Departure:
    """Return what migrations away from this host share."""
    return Departure("alpha", MigratorSettings(), place, place, place, Journal(place / "journal.db"))


class Released:
    """What was let go at the source."""

    def release(self) -> None:
        """See `Holding`."""


class Beta:
    """A target that has all it needs."""

    name = "beta"

    def call(self, verb: str, path: str, *_: object, **__: object) -> Report:
        """As `PeerClient.call`."""
        assert (verb, path) in (("GET", "/v1/migrations/0a0a"), ("POST", "/v1/migrations/0a0a/complete"))
        return Report(migration="0a0a", standing=Standing.DRAINED)


@pytest.mark.parametrize(("status", "code"), [(0, "remains"), (125, "command-failed"), (1, "")])
def test_what_may_still_be_at_its_source_stays_banned(
    script: Podman, tmp_path: Path, status: int, code: str
) -> None:
    facts = container("web", id="a" * 64)
    shared = leaving(tmp_path)
    tombstone.ban(tmp_path, facts)
    script.answer(status, READ_ONLY)
    releasing = Handover(
        shared,
        migration="0a0a",
        container=facts,
        target=cast(PeerClient, Beta()),
        holding=cast(Holding, Released()),
        timeline=Timeline(shared.journal, "0a0a", "web", lambda _: None),
        company=Company(shared.journal, ("0a0a",)),
        epoch=2,
    )
    if code:
        with pytest.raises(ExecutionError) as kept:
            releasing.follow(lambda: True)
        assert kept.value.code == code
        assert tombstone.is_banned(tmp_path, facts)
        script.answer(1)
    releasing.follow(lambda: True)  # again, as who looks after it does
    assert not tombstone.is_banned(tmp_path, facts)


def test_a_pod_of_which_somebody_may_be_left_is_not_removed_at_its_source(script: Podman, tmp_path: Path) -> None:
    company = Company(Journal(tmp_path / "journal.db"), ("0a0a", "0b0b"))
    script.answer(125, READ_ONLY)
    with pytest.raises(CommandError):
        remove_empty(tmp_path, pod(), company)
    assert not [line for line in script.asked if line.startswith("pod rm")]
    script.answer(1)
    remove_empty(tmp_path, pod(), company)
    assert len([line for line in script.asked if line.startswith("pod rm")]) == 1


@pytest.mark.parametrize(("status", "removed"), [(0, False), (125, False), (1, True)])
def test_a_pod_in_which_somebody_may_be_is_not_removed_at_its_target(
    script: Podman, tmp_path: Path, status: int, *, removed: bool
) -> None:
    """And that nobody knows keeps no migration from its end."""
    member = offer_two()[0]
    assert member.container.pod is not None
    coming = IncomingPod(tmp_path, tmp_path, member, member.container.pod)
    coming._write("e" * 64, "f" * 64)
    tombstone.ban_infra(tmp_path, "f" * 64)
    script.answer(status, READ_ONLY)
    coming.leave(member.migration)
    assert any(line.startswith("pod rm") for line in script.asked) is removed
    assert (tmp_path / tombstone.BANS / ("f" * 64)).exists() is not removed


def test_a_lost_one_of_which_podman_cannot_tell_stays_and_a_human_is_called_once(
    script: Podman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken for removed by somebody, it would lose its writable layer, too."""
    hall = hall_in(tmp_path, MigratorSettings())
    reception = committed(hall)
    lose(reception)
    tombstone.ban(tmp_path, reception.proposal.container)
    monkeypatch.setattr(incoming, "ask_source", lambda *_: None)
    told: list[MigrationOutcome] = []
    looking = caretaker(hall, [reception], told)
    script.answer(125, READ_ONLY)
    for _ in range(2):
        looking.look()
    assert (reception.standing, reception.ended) == (Standing.LOST, False)
    assert tombstone.is_banned(tmp_path, reception.proposal.container)
    assert not [line for line in script.asked if line.startswith("rm ")]
    (call,) = told
    assert "the page sink is gone; whether it is still here is not known" in call.error


def test_what_is_known_later_is_told_too(script: Podman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hall = hall_in(tmp_path, MigratorSettings())
    reception = committed(hall)
    lose(reception)
    monkeypatch.setattr(incoming, "ask_source", lambda *_: None)

    def refuse(_: Reception) -> None:
        raise CommandError("no space left on device", code="command-failed")

    monkeypatch.setattr(Reception, "fall_back", refuse)
    told: list[MigrationOutcome] = []
    looking = caretaker(hall, [reception], told)
    for status in (125, 125, 0, 0):
        script.answer(status, READ_ONLY)
        looking.look()
    assert ["is not known" in outcome.error for outcome in told] == [True, False]
    assert "it cannot be started anew: no space left on device" in told[1].error


def test_what_was_never_committed_calls_nobody(
    script: Podman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = hall_in(tmp_path, MigratorSettings())
    reception = Reception(hall, offer_two()[0].model_copy(update={"company": (), "container": container("web")}))
    hall.journal.begin("0a0a", Side.TARGET, "web", reception.proposal.model_dump_json())
    lose(reception)
    monkeypatch.setattr(incoming, "ask_source", lambda *_: None)
    told: list[MigrationOutcome] = []
    script.answer(125, READ_ONLY)
    caretaker(hall, [reception], told).look()
    assert told == []


def test_a_start_of_the_daemon_takes_nothing_for_lost_of_which_podman_cannot_tell(
    script: Podman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = hall_in(tmp_path, MigratorSettings())
    committed(hall)
    monkeypatch.setattr(incoming, "_shim", lambda _: None)
    script.answer(125, READ_ONLY)
    (reception,) = adopted(hall, hall.journal)
    with pytest.raises(ExecutionError) as unknown:
        reception.report()
    assert unknown.value.code == "not-taken-up"
    script.answer(0)
    incoming.take_up(reception)
    assert reception.report().standing is Standing.DRAINED


@pytest.mark.parametrize("status", [0, 125])
def test_what_may_still_be_at_its_target_stays_banned(script: Podman, tmp_path: Path, status: int) -> None:
    """An aborted one that podman does not remove could start with the next boot."""
    hall = hall_in(tmp_path, MigratorSettings())
    reception = Reception(hall, offer_two()[0].model_copy(update={"company": (), "container": container("web")}))
    hall.journal.begin("0a0a", Side.TARGET, "web", reception.proposal.model_dump_json())
    facts = reception.proposal.container
    reception._reserved = True
    tombstone.ban(tmp_path, facts)
    script.answer(status, READ_ONLY)
    with pytest.raises(LifeboatError):
        reception.abort("the source withdrew")
    assert tombstone.is_banned(tmp_path, facts)
    assert (reception.record.decision, reception.ended) == (Decision.ABORT, False)
    script.answer(1)
    reception.abort("the source withdrew")  # the caretaker does
    assert not tombstone.is_banned(tmp_path, facts)
    assert reception.ended


def test_what_runs_is_started_once_more_rather_than_left(script: Podman, monkeypatch: pytest.MonkeyPatch) -> None:
    missed: list[str] = []
    monkeypatch.setattr(settle, "start_missed", lambda facts: missed.append(facts.name))
    assert list(settle.settle(container("web"))) == []
    script.answer(125, READ_ONLY)
    assert list(settle.settle(container("web"))) == []
    assert missed == ["web"]


def test_a_stopped_one_is_silent_only_when_podman_says_so(script: Podman, tmp_path: Path) -> None:
    """Or a cold migration would commit while its source runs."""
    shared = leaving(tmp_path)
    stopped = holding(shared, "0a0a", container("web"), Method.COLD)
    script.answer(125, READ_ONLY)
    with pytest.raises(CommandError):
        stopped.check_silent()
