"""What a suspect host copies ahead: when, where to, who may have it, and that nothing of it stays."""

from __future__ import annotations

import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from migrator.container.here import remains
from migrator.errors import PrerequisiteError
from migrator.model import ContainerFacts, Method, VolumeMount
from migrator.peers.client import PeerClient
from migrator.planning.plan import Assumptions, plan_evacuation
from migrator.protocol.journal import Journal
from migrator.protocol.messages import Stage, Staged
from migrator.settings import MigratorSettings
from migrator.source import staging as source_staging
from migrator.source.departure import Departure
from migrator.source.staging import Stager
from migrator.storage.sync import LAYER, Tree
from migrator.storage.tree import Snapshot
from migrator.target import staging
from migrator.target.staging import Stagings, Taken
from tests.pure.test_daemon import RULE, FakeEngine, House
from tests.pure.values import container, host
from watchdog.daemon.warm_up import Step, next_step
from watchdog.state import HostState

PODMAN = '''\
#!{python}
"""Knows volumes by their directories; one that holds a file `used` is used by a container."""
import json, os, shutil, sys
from pathlib import Path

words = sys.argv[1:]
path = Path(os.environ["PODMAN_PLACE"], words[-1])
mounted = Path(os.environ["PODMAN_PLACE"]).parent / "mounted"  # the file that says what a container has mounted
if words[0] == "ps":
    print(json.dumps([{{"Id": "b" * 64}}] if mounted.exists() else []))
elif words[:2] == ["container", "inspect"] and words[2:] == ["b" * 64]:
    print(json.dumps([{{"Mounts": [{{"Source": mounted.read_text()}}]}}]))
elif words[0] != "volume":
    sys.exit("Error: no such container" if words[1] == "inspect" else 1)
elif words[1] == "exists":
    sys.exit(not path.exists())
elif words[1] == "create":
    path.mkdir()
elif words[1] == "inspect" and not path.exists():
    print("[]")
    sys.exit(f"Error: no such volume {{path.name}}")
elif words[1] == "inspect":
    print(json.dumps([{{"Name": path.name, "Mountpoint": str(path)}}]))
elif words[1] == "rm":
    if (path / "used").exists():
        sys.exit("Error: volume is being used")
    shutil.rmtree(path)
'''


def mount(name: str, **changes: object) -> VolumeMount:
    """Return a mount of a volume."""
    values = {"kind": "volume", "name": name, "source": f"/v/{name}", "destination": "/d", "writable": True}
    return VolumeMount.model_validate({**values, **changes})


BOUND = mount("", kind="bind", source="/srv/x")
WEB = container("web", 0.1, volumes=(mount("data"), mount("left", treatment="leave"), BOUND))


def wish(source: str = "alpha", facts: ContainerFacts = WEB, seconds: float = 60) -> Stage:
    """Return what a suspect host asks."""
    return Stage(staging=f"s{source}", source=source, container=facts, copy_image=True, seconds=seconds)


class Answering:
    """Stands for a target that takes what it is told to."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.answer = Staged()

    def check_listed(self) -> None:
        """It is listed."""

    def call(self, verb: str, path: str, *_: object, **__: object) -> Staged:
        """Remember the request."""
        self.told.append((verb, path))
        return self.answer


def stager(place: Path, answering: Answering) -> Stager:
    """Return what a source's daemon has that was just started."""
    shared = Departure("alpha", MigratorSettings(), place, place, place, Journal(place / "journal.db"))
    return Stager(shared, lambda _: cast(PeerClient, answering))


def test_a_restarted_source_knows_what_waits_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_staging, "waiting_trees", lambda _: [])
    answering = Answering()
    started = partial(stager, tmp_path, answering)
    first = started()
    first.stage(WEB, "beta", 60, lambda: None)
    again = started()
    assert again.waiting == first.waiting
    assert again.targets == {WEB.id: "beta"}
    again.withdraw(WEB.id)
    assert answering.told[-1][0] == "DELETE"
    assert started().targets == {}
    again.stage(WEB, "beta", 60, lambda: again.withdraw(WEB.id))
    assert again.targets == {}, "what was withdrawn while it was copied does not come back"
    (tmp_path / source_staging.PLACES).write_text("{")
    assert started().targets == {}, "what cannot be read is forgotten"


def test_when_a_copy_began_is_known_for_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees = [Tree(LAYER, tmp_path), Tree("volume:data", tmp_path)]
    asked: list[int | None] = []

    def copy_ahead(tree: Tree, _: object, __: float, since_ns: int | None) -> Snapshot:
        asked.append(since_ns)
        return Snapshot(100 * len(asked), {})

    monkeypatch.setattr(source_staging, "waiting_trees", lambda _: trees)
    monkeypatch.setattr(source_staging, "copy_ahead", copy_ahead)
    answering = Answering()
    answering.answer = Staged(trees=(LAYER, "volume:data"))
    started = partial(stager, tmp_path, answering)
    first = started()
    first.stage(WEB, "beta", 60, lambda: None)
    answering.answer = Staged(trees=(LAYER,))  # it takes the volume no more, for now
    first.stage(WEB, "beta", 60, lambda: None)
    assert started().since_ns(WEB.id, "beta") == {LAYER: 300, "volume:data": 200}
    assert started().since_ns(WEB.id, "gamma") == {}
    started().stage(WEB, "beta", 60, lambda: None)
    assert asked == [None, None, 100, 300]
    began = []
    for number in (1, 2, 3):
        first.kept(WEB, "beta", "0a0a", number)
        began.append(first.kept_since_ns(WEB.id, "beta"))
    assert began == [None, 1, 2], "each is written over the one before the last"


class Target:
    """A target's state directory, and the script for its podman."""

    def __init__(self, place: Path) -> None:
        self.state = place / "state"
        self.volumes = place / "volumes"
        self.stagings = Stagings(self.state)

    def files(self) -> list[str]:
        """Return what is there of stagings."""
        below = self.state / "staged"
        return sorted(path.name for path in [*self.volumes.iterdir(), *(below.iterdir() if below.exists() else ())])


def take(target: Target, facts: ContainerFacts = WEB, source: str = "alpha") -> Taken:
    """Let a migration have what waits."""
    with target.stagings.taking(facts, source) as taken:
        return taken


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    """A target where nothing waits."""
    found = Target(tmp_path)
    script = tmp_path / "bin/podman"
    for directory in (script.parent, found.volumes):
        directory.mkdir()
    script.write_text(PODMAN.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.setenv("PODMAN_PLACE", str(found.volumes))
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    return found


def test_a_volume_and_the_layer_wait_and_a_migration_takes_them_over(target: Target) -> None:
    record = target.stagings.stage(wish(), now=0)
    assert record.trees == (LAYER, "volume:data"), "neither what is left where it is, nor a directory of the host"
    (target.stagings.tree_path(record, "volume:data") / "big").write_text("x")
    (target.stagings.tree_path(record, LAYER) / "etc").mkdir()
    for tree in ("volume:left", "bind:2", "shm", "volume:..", "../x"):
        with pytest.raises(PrerequisiteError, match="no tree"):
            target.stagings.tree_path(record, tree)
    assert remains(target.state, WEB).volumes == {"data"}, "it fits in spite of the volume's files"
    assert remains(target.state, container("other")).volumes == frozenset()
    assert take(target, WEB, "gamma") == Taken(), "another host's container of the same id"
    taken = take(target)
    assert taken.volumes == ("data",)
    assert taken.layer is not None
    assert (taken.layer / "etc").is_dir()
    assert (target.volumes / "data/big").read_text() == "x"
    target.stagings.expire(now=1e12)
    assert (target.volumes / "data/big").exists(), "what was taken never expires"
    assert take(target) == Taken()


def test_what_nobody_renews_goes_and_what_was_there_before_stays(target: Target) -> None:
    (target.volumes / "old").mkdir()
    facts = WEB.model_copy(update={"volumes": (mount("data"), mount("old"))})
    assert target.stagings.stage(wish(facts=facts), now=0).volumes == ("data",)
    target.stagings.expire(now=59)
    assert target.stagings.stage(wish(facts=facts), now=59).volumes == ("data",)
    target.stagings.expire(now=118)
    assert target.files() == ["data", "old", "web.json"]
    Stagings(target.state).expire(now=119)  # also after a restart
    assert target.files() == ["old"]


def test_only_who_staged_may_renew_or_withdraw(target: Target) -> None:
    target.stagings.stage(wish(), now=time.time())
    with pytest.raises(PrerequisiteError) as refused:
        target.stagings.stage(wish("gamma"), now=time.time())
    assert refused.value.code == "not-yours"
    target.stagings.withdraw("salpha", "gamma")
    with target.stagings.writing("salpha", "gamma") as record:
        assert record is None
    assert len(target.stagings.records()) == 1
    target.stagings.withdraw("salpha", "alpha")
    assert target.files() == []


def test_a_volume_that_waits_for_one_container_is_no_other_s_even_while_it_is_empty(target: Target) -> None:
    target.stagings.stage(wish(), now=0)
    other = container("db", volumes=(mount("data"),))
    assert remains(target.state, other).volumes == frozenset()
    for attempt in (
        lambda: target.stagings.stage(wish("gamma", other), now=0),
        lambda: take(target, other, "gamma"),
    ):
        with pytest.raises(PrerequisiteError) as refused:
            attempt()
        assert refused.value.code == "target-volume-taken"


def test_podman_keeps_a_volume_that_is_in_use(target: Target) -> None:
    target.stagings.stage(wish(), now=0)
    (target.volumes / "data/used").touch()
    target.stagings.expire(now=60)
    assert target.files() == ["data"]


def test_one_host_does_not_fill_another_with_records(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "MOST", 1)
    target.stagings.stage(wish(), now=0)
    target.stagings.stage(wish(), now=1)
    with pytest.raises(PrerequisiteError) as refused:
        target.stagings.stage(wish(facts=container("db")), now=1)
    assert refused.value.code == "staging-full"
    target.stagings.stage(wish("gamma", container("db")), now=1)


def test_nobody_takes_or_removes_what_is_being_written(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    target.stagings.stage(wish(), now=0)
    with target.stagings.writing("salpha", "alpha") as record:
        assert record is not None
        target.stagings.expire(now=1e12)
        assert "data" in target.files()
        monkeypatch.setattr(staging, "WRITERS_LIMIT_S", 0.01)
        with pytest.raises(PrerequisiteError) as refused:
            take(target)
        assert (refused.value.code, refused.value.temporary) == ("target-busy", True)
        monkeypatch.setattr(staging, "WRITERS_LIMIT_S", 20.0)
        taken: list[Taken] = []
        taking = threading.Thread(target=lambda: taken.append(take(target)))
        taking.start()
    taking.join()
    assert taken[0].volumes == ("data",)


def test_a_plan_goes_where_the_files_wait_already() -> None:
    hosts = [host("beta"), host("gamma", load=1.0)]
    assumed = Assumptions(staged={"web": "gamma", "db": "away"})
    plan = plan_evacuation(host("alpha"), [container("web"), container("db")], hosts, Method.LAZY, assumed)
    assert {item.container: item.target for item in plan.migrations} == {"web": "gamma", "db": "beta"}
    full = [hosts[0], host("gamma", cordoned=True)]
    plan = plan_evacuation(host("alpha"), [container("web")], full, Method.LAZY, assumed)
    assert plan.migrations[0].target == "beta"


@pytest.mark.parametrize("state", HostState)
@pytest.mark.parametrize("permitted", [True, False])
def test_when_something_is_copied_ahead(state: HostState, *, permitted: bool) -> None:
    stages = permitted and state in (HostState.SUSPECT, HostState.FAILING)

    def step(*, running: bool = False, staged: bool = False, due: bool = True) -> Step:
        return next_step(state, permitted=permitted, running=running, staged=staged, due=due)

    assert step() is (Step.STAGE if stages else Step.NOTHING)
    assert step(due=False) is Step.NOTHING
    assert step(running=True, staged=True) is (Step.NOTHING if stages else Step.STOP)
    assert (step(staged=True) is Step.WITHDRAW) == (state is HostState.HEALTHY)


def test_a_suspect_host_copies_ahead_until_it_is_well_again(tmp_path: Path) -> None:
    engine = FakeEngine(web="beta", db=None, mail="beta")
    engine.fails.add("mail")
    house = House(tmp_path, engine, warm_up_s=3600)
    (tmp_path / "local/rules.toml").write_text(RULE.replace('"failing"', '"suspect"'))
    house.daemon.reload()
    house.read(1.0)
    assert house.tick() is HostState.SUSPECT
    assert engine.staged == {"web": "beta"}, "one that fails stops none of the others"
    engine.targets["cache"] = "beta"
    house.tick(3)
    assert "cache" not in engine.staged, "not before the next round"
    house.read(0.0)
    house.tick(2)
    assert engine.staged == {}
