"""Whole checkpoints that wait at a target: two slots, whose they are, and when they go."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from migrator.engine import Engine
from migrator.errors import CallAHumanError, PrerequisiteError
from migrator.model import (
    ContainerFacts,
    EvacuationPlan,
    Method,
    MigrationEvent,
    MigrationOutcome,
    Phase,
    PlannedMigration,
    Rejection,
    VolumeMount,
)
from migrator.protocol.journal import Decision, Fate, Journal, Side
from migrator.protocol.messages import Keep, ParkRequest, Proposal, Standing
from migrator.recovery.revival import Revival
from migrator.runtime import podman
from migrator.settings import MigratorSettings
from migrator.storage.sync import LAYER, SHARED_MEMORY
from migrator.target import checkpoints
from migrator.target.checkpoints import Checkpoints, Kept, Place
from migrator.target.reception import Reception
from tests.pure.halls import hall_in
from tests.pure.values import container
from watchdog.daemon.warm_up import WarmUp
from watchdog.state import HostState

DATA = VolumeMount(kind="volume", name="data", source="/v/data", destination="/d", writable=True)
WEB = container("web", 0.01, volumes=(DATA,))
REQUEST = ParkRequest(configuration="{}", specification="{}", network_status="{}")


def wish(checkpoint: str = "one", source: str = "alpha", facts: ContainerFacts = WEB) -> Keep:
    """Return what a suspect host asks."""
    return Keep(checkpoint=checkpoint, source=source, container=facts, epoch=3)


def come(store: Checkpoints, checkpoint: str = "one", source: str = "alpha") -> Place:
    """Return where a checkpoint is being written."""
    with store.writing({"migration": checkpoint, "peer": source}) as place:
        assert place is not None
        return place


def bring(store: Checkpoints, checkpoint: str, content: str, now: float = 0) -> Kept:
    """Bring a whole checkpoint."""
    store.begin(wish(checkpoint))
    place = come(store, checkpoint)
    (place.tree_path("volume:data") / "rows").write_text(content)
    (place.images / "pages-1.img").write_text(content)
    store.complete(checkpoint, "alpha", REQUEST, now)
    (kept,) = store.kept
    return kept


def contents(store: Checkpoints) -> list[str]:
    """Return what the only complete checkpoint holds."""
    (kept,) = store.kept
    place = store.place(kept)
    return [(place.trees["volume:data"] / "rows").read_text(), (place.images / "pages-1.img").read_text()]


def test_the_last_whole_one_stays_until_the_next_is_whole(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.begin(wish())
    assert store.kept == (), "half of one is none"
    first = bring(store, "one", "first")
    store.begin(wish("two"))
    place = come(store, "two")
    (place.tree_path("volume:data") / "rows").write_text("half")
    assert contents(store) == ["first", "first"]
    assert Checkpoints(tmp_path).kept == (first,), "also after a restart"
    second = bring(store, "three", "second")
    assert contents(store) == ["second", "second"]
    assert {first.slot, second.slot} == {"a", "b"}
    assert store.of(WEB.id) == second


def test_only_trees_of_the_container_come(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.begin(wish())
    place = come(store)
    assert set(place.trees) == {LAYER, SHARED_MEMORY, "volume:data"}
    for tree in ("volume:other", "../../x", "", "images"):
        with pytest.raises(PrerequisiteError, match="no tree"):
            place.tree_path(tree)


def test_nothing_of_another_host_s_is_touched(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    kept = bring(store, "one", "x")
    with pytest.raises(PrerequisiteError) as refused:
        store.begin(wish("two", "gamma"))
    assert refused.value.code == "not-yours"
    store.begin(wish("two"))
    with store.writing({"migration": "two", "peer": "gamma"}) as place:
        assert place is None
    with pytest.raises(PrerequisiteError, match="no checkpoint"):
        store.complete("two", "gamma", REQUEST, 0)
    store.withdraw("one", "gamma")
    assert store.kept == (kept,)


def test_what_is_withdrawn_or_too_old_goes(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    kept = bring(store, "one", "x", now=5)
    store.begin(wish("two"))
    store.withdraw("two", "alpha")
    with pytest.raises(PrerequisiteError, match="no checkpoint"):
        store.complete("two", "alpha", REQUEST, 0)
    assert store.of(WEB.id) == kept, "only what was coming"
    store.expire(now=5 + checkpoints.LASTS_S - 1)
    assert store.of(WEB.id) == kept
    store.expire(now=5 + checkpoints.LASTS_S)
    assert store.of(WEB.id) is None
    bring(store, "three", "x")
    store.withdraw("three", "alpha")
    assert list((tmp_path / checkpoints.DIRECTORY).iterdir()) == []


def test_a_stream_that_still_writes_keeps_others_away(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.begin(wish())
    with store.writing({"migration": "one", "peer": "alpha"}):
        with pytest.raises(PrerequisiteError) as refused:
            store.begin(wish("two"))
        assert (refused.value.code, refused.value.temporary) == ("target-busy", True)
        with pytest.raises(PrerequisiteError, match="still being written"):
            store.complete("one", "alpha", REQUEST, 0)
    store.complete("one", "alpha", REQUEST, 0)


def test_a_host_takes_no_more_than_it_has_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Checkpoints(tmp_path)
    monkeypatch.setattr(checkpoints, "room_bytes", lambda _: WEB.memory_bytes - 1)
    with pytest.raises(PrerequisiteError) as refused:
        store.begin(wish())
    assert refused.value.code == "target-lacks-disk"
    monkeypatch.undo()
    bring(store, "one", "x")
    monkeypatch.setattr(checkpoints, "MOST", 1)
    with pytest.raises(PrerequisiteError) as refused:
        store.begin(wish("two", facts=container("db")))
    assert refused.value.code == "checkpoints-full"


def test_what_cannot_be_read_is_none(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    bring(store, "one", "x")
    (record,) = tmp_path.glob(f"*/*/{checkpoints.RECORD}")
    record.write_text("{")
    assert store.kept == ()
    bring(store, "two", "y")


def test_the_journal_has_only_the_latest_of_a_container(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")

    def ended(migration: str, name: str, phase: Phase) -> None:
        journal.begin(migration, Side.SOURCE, name, "{}")
        journal.write(MigrationEvent(migration=migration, container=name, at=1, phase=phase, message=""))
        journal.decide(migration, Decision.ABORT)
        told = {"migration": migration, "container": name, "source": "a", "target": "b", "method": Method.FULL}
        journal.finish(MigrationOutcome.model_validate({**told, "phase": phase}))

    ended("moved", "web", Phase.DONE)
    ended("other", "db", Phase.KEPT)
    ended("old", "web", Phase.KEPT)
    ended("new", "web", Phase.KEPT)
    journal.forget_kept("web", "new")
    assert {entry.migration for entry in journal.entries()} == {"moved", "other", "new"}
    assert (journal.events("old"), journal.decision("old")) == ((), None)
    assert len(journal.events("new")) == len(journal.events("moved")) == 1


class Suspect:
    """An engine that stages at once, and knows how old checkpoints are."""

    def __init__(self, ages: dict[str, float]) -> None:
        self.ages = ages
        self.staged: dict[str, str] = {}
        self.kept: list[str] = []

    def containers(self) -> tuple[ContainerFacts, ...]:
        """Return one of each kind."""
        cold = container("cold", labels={"lifeboat.method": "cold"})
        return (container("web"), container("db"), cold)

    def stage(self, facts: ContainerFacts, target: str, *_: object) -> None:
        """Stage it."""
        self.staged[facts.id] = target

    def checkpoint_age_s(self, identifier: str) -> float:
        """Return what the test says."""
        return self.ages.get(identifier, float("inf"))

    def checkpoint(self, facts: ContainerFacts, target: str, stopped: threading.Event) -> Any:
        """Remember it."""
        assert (target, stopped.is_set()) == ("beta", False)
        self.kept.append(facts.name)
        return SimpleNamespace(error="")


@pytest.mark.parametrize(("every_s", "kept"), [(0.0, []), (60.0, ["web"]), (10.0, ["db", "web"])])
def test_checkpoints_are_renewed_when_they_are_old(every_s: float, kept: list[str]) -> None:
    engine = Suspect({container("db").id: 30.0})
    migrations = tuple(
        PlannedMigration(
            container=name,
            target="beta",
            method=Method.LAZY,
            memory_bytes=1,
            expected_freeze_ms=1,
            expected_duration_s=1,
        )
        for name in ("db", "web", "cold")
    )
    plan = EvacuationPlan(source="alpha", migrations=migrations)
    warm_up = WarmUp(60, every_s)
    warm_up.tick(cast(Engine, engine), HostState.SUSPECT, lambda: plan, permitted=True)
    while warm_up.running:
        threading.Event().wait(0.01)
    assert engine.kept == kept
    assert len(engine.staged) == 3


class Others:
    """The other hosts: what is there, None for one that is silent."""

    def __init__(self, **names: tuple[str, ...] | None) -> None:
        self._names = names

    def facts(self) -> tuple[tuple[SimpleNamespace, ...], tuple[Rejection, ...]]:
        """Return what those say that answer."""
        told = {host: names for host, names in self._names.items() if names is not None}
        facts = (SimpleNamespace(host=host, container_names=names) for host, names in told.items())
        silent = (host for host in self._names if host not in told)
        return tuple(facts), tuple(Rejection(host=host, code="peer-unreachable", reason="") for host in silent)


@pytest.mark.parametrize(
    ("alpha", "gamma", "epoch", "dead", "refused"),
    [
        ((), (), 3, True, "alpha answers"),
        (None, (), 3, False, "nobody said that it is dead"),
        (None, (), 3, True, ""),
        (None, None, 3, True, ""),
        (None, ("web",), 3, True, "gamma has a container named web"),
        (("web",), ("web",), 4, False, "alpha answers"),  # it went somewhere since, nobody knows how
    ],
)
def test_a_checkpoint_starts_only_where_no_other_copy_can_run(
    tmp_path: Path,
    alpha: tuple[str, ...] | None,
    gamma: tuple[str, ...] | None,
    epoch: int,
    *,
    dead: bool,
    refused: str,
) -> None:
    store, journal = Checkpoints(tmp_path), Journal(tmp_path / "journal.db")
    kept = bring(store, "one", "x")
    journal.learn_epoch(WEB.id, epoch)
    hall = SimpleNamespace(checkpoints=store, journal=journal, host="beta")
    revival = Revival(cast(Any, hall), cast(Any, None), cast(Any, Others(alpha=alpha, gamma=gamma)))
    assert revival.find("web") == revival.find("one") == kept
    said = revival.refusal(kept, declared_dead=dead)
    assert (refused in said) if refused else said == ""
    assert (kept in [item for item, _ in revival.orphans()]) == (alpha is None)
    if refused:
        with pytest.raises(CallAHumanError, match="two copies"):
            revival.start(kept, declared_dead=dead)


def came_and_was_lost(journal: Journal, epoch: int, phase: Phase = Phase.LOST) -> None:
    """Let the journal know a migration of the container to this host that was committed, and how it ended."""
    words = {"migration": "0a0a", "source": "alpha", "container": WEB, "method": Method.LAZY, "copy_image": False}
    offered = Proposal.model_validate({**words, "epoch": epoch})
    journal.begin("0a0a", Side.TARGET, "web", offered.model_dump_json())
    journal.decide("0a0a", Decision.COMMIT)
    journal.learn_epoch(WEB.id, epoch)
    ended = MigrationOutcome(
        migration="0a0a", container="web", source="alpha", target="beta", method=Method.LAZY, phase=phase
    )  # fmt: skip  # two lines of words
    journal.finish(ended)


@pytest.mark.parametrize(
    ("fate", "phase", "latest", "proved"),
    [
        (None, Phase.LOST, 4, True),  # somebody removed what was lost
        (Fate.FALL_BACK, Phase.LOST, 4, True),  # it made way for its checkpoint, and that did not start
        (Fate.YIELD, Phase.LOST, 4, False),  # a human resumed it at its source
        (Fate.FORGET, Phase.LOST, 4, False),
        (None, Phase.DONE, 4, False),  # it ran here, and may have left again
        (None, Phase.LOST, 5, False),  # it was somebody else's since
    ],
)
def test_a_checkpoint_needs_no_proof_only_where_its_container_was_lost_last(
    tmp_path: Path, fate: Fate | None, phase: Phase, latest: int, *, proved: bool
) -> None:
    store, journal = Checkpoints(tmp_path), Journal(tmp_path / "journal.db")
    kept = bring(store, "one", "x")
    came_and_was_lost(journal, 4, phase)
    if fate is not None:
        journal.seal("0a0a", fate)
    journal.learn_epoch(WEB.id, latest)
    hall = SimpleNamespace(checkpoints=store, journal=journal, host="beta")
    revival = Revival(cast(Any, hall), cast(Any, None), cast(Any, Others(alpha=("web",))))
    assert revival.orphans() == (((kept, ""),) if proved else ())
    assert bool(revival.refusal(kept, declared_dead=True)) is not proved


def test_what_starts_from_its_checkpoint_is_not_yielded_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = hall_in(tmp_path, MigratorSettings())
    kept = bring(hall.checkpoints, "one", "x")
    came_and_was_lost(hall.journal, 4)
    revival = Revival(hall, cast(Any, None), cast(Any, Others(alpha=("web",))))
    monkeypatch.setattr(revival, "_wanted", lambda _: None)
    started: list[Kept] = []
    monkeypatch.setattr(revival, "_start", lambda kept, *_: started.append(kept))
    revival.start(kept, declared_dead=False)
    assert started == [kept]
    assert hall.journal.seal("0a0a", Fate.YIELD) is Fate.FALL_BACK

    def yield_first(_: Kept) -> None:
        hall.journal.seal("0b0b", Fate.YIELD)

    lost = Proposal.model_validate_json(hall.journal.entries()[0].request)
    monkeypatch.setattr(revival, "_lost_here", lambda _: lost.model_copy(update={"migration": "0b0b"}))
    monkeypatch.setattr(revival, "_wanted", yield_first)
    with pytest.raises(CallAHumanError, match="yield was decided here"):
        revival.start(kept, declared_dead=False)
    assert started == [kept]


@pytest.mark.parametrize("word", ["stay_away", "fall_back", "forget", "make_way", "abort"])
def test_a_checkpoint_goes_with_what_comes_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    """Out of date, it could start a second copy; but what goes back to it, or never came, still needs it."""
    hall = hall_in(tmp_path, MigratorSettings())
    kept = bring(hall.checkpoints, "one", "x")
    words = {"migration": "0a0a", "source": "alpha", "container": WEB, "method": Method.FULL, "copy_image": False}
    reception = Reception(hall, Proposal.model_validate({**words, "epoch": 4}))
    reception.record.begin()
    if word != "abort":
        reception.record.commit()
    reception._standing, reception._opened_at = Standing.LOST, 1.0
    monkeypatch.setattr(podman, "kill_and_wait", lambda _: None)
    for deed in ("start_anew", "put_aside", "abort"):
        monkeypatch.setattr(reception._arrival, deed, lambda *_: None)
    given = {"abort": ("it stays",), "make_way": (tmp_path,)}
    getattr(reception, word)(*given.get(word, ()))
    assert reception.ended
    assert hall.checkpoints.kept == ((kept,) if word in ("make_way", "abort") else ())
