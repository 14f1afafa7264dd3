"""The daemon's tick, its admin API over a real socket, and what the command makes of the answers."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from migrator.container.verdicts import ContainerVerdict
from migrator.engine import Engine
from migrator.errors import LifeboatError, PrerequisiteError
from migrator.health import Verdict
from migrator.model import (
    EvacuationPlan,
    Method,
    MigrationEvent,
    MigrationOutcome,
    Phase,
    PlannedMigration,
    Rejection,
)
from migrator.peers.neighbours import HealthTold, Survey
from migrator.recovery.by_hand import Situation
from migrator.registry.records import Standing as RegistryStanding
from migrator.settings import MigratorSettings
from migrator.source.staging import Waiting
from watchdog.admin import AdminServer
from watchdog.alerts.model import AlertSettings, Event, Kind, Severity, Webhook
from watchdog.cli import client
from watchdog.cli.main import main
from watchdog.daemon.daemon import Daemon
from watchdog.daemon.losses import Losses
from watchdog.daemon.order import Cause, Order, OrderFile
from watchdog.daemon.places import Places
from watchdog.settings import EvacuationSettings, Settings
from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.places import StorageFacts
from watchdog.state import HostState

ROOT = Path(__file__).parents[2]
DISK = Device(DeviceKind.DISK, "disk:1", "/dev/sda", {"type": "hdd"})
RULE = """
[[rule]]
id = "disk-health-failed"
signal = "smart.health_failed"
is_set = true
verdict = "failing"
why = "the drive itself says that it is failing"
"""


class FakeEngine:
    """An engine that moves nothing: `targets` says where each container would go."""

    def __init__(self, **targets: str | None) -> None:
        self.targets = dict(targets)
        self.moved: list[str] = []
        self.fails: set[str] = set()
        self.kept: set[str] = set()
        self.canaries: set[str] = set()
        self.keepers: set[str] = set()
        self.healths: tuple[HealthTold, ...] = ()
        self.volumes: dict[str, str] = {}
        self.staged: dict[str, str] = {}
        self.situations: list[Situation] = []
        self.rehearsed: tuple[str, str, Method | None] | None = None

    @property
    def settlement(self) -> Any:
        return SimpleNamespace(situations=lambda: tuple(self.situations))

    @property
    def waiting(self) -> tuple[Waiting, ...]:
        return tuple(Waiting(container=name, target=host, fresh_at=0.0) for name, host in self.staged.items())

    def stage(self, container: Any, target: str, seconds: float, go_on: Any) -> None:
        go_on()
        if container.name in self.fails:
            raise LifeboatError("no room", code="x")
        self.staged[container.id] = target

    def withdraw(self, container: str) -> None:
        del self.staged[container]

    def containers(self) -> tuple[Any, ...]:
        marked = {"lifeboat.canary": "yes"}
        return tuple(
            SimpleNamespace(
                pod=None,
                id=name,
                name=name,
                labels=marked if name in self.canaries else {},
                volumes=[SimpleNamespace(source=path, path=path) for path in (self.volumes.get(name),) if path],
                devices=(),
                memory_bytes=1 << 20,
            )
            for name in self.targets
        )

    def ask_back(self, migration: str, target: str) -> float:
        if target in self.keepers:
            raise LifeboatError(f"{target} does not give it back", code="x")
        self.targets[self.moved[-1]] = target
        return 250.0

    def survey(self) -> Survey:
        return Survey(self.healths, ())

    def hold(self, memory_bytes: dict[str, int]) -> tuple[Any, ...]:
        return ()

    def registry(self) -> RegistryStanding:
        return RegistryStanding(kind="etcd", answers=False, lost_s={"gamma": 12.0})

    def plan(
        self, containers: tuple[Any, ...] | None = None, method: Method | None = None, **_: object
    ) -> EvacuationPlan:
        return EvacuationPlan(
            source="alpha",
            migrations=tuple(
                PlannedMigration(
                    container=name,
                    target=target,
                    method=method or Method.LAZY,
                    memory_bytes=1 << 20,
                    expected_freeze_ms=300,
                    expected_duration_s=1.0,
                    reason="" if target else "nobody has room",
                    kept=name in self.kept,
                )
                for name, target in self.targets.items()
                if containers is None or any(item.name == name for item in containers)
            ),
        )

    def rehearse(self, container: str, target: str, method: Method | None) -> tuple[Rejection, ...]:
        self.rehearsed = (container, target, method)
        full = Rejection(host=target, code="target-lacks-memory", reason=f"{target} is full")
        return (full,) if container in self.fails else ()

    def examine(self, containers: tuple[Any, ...] | None = None) -> tuple[ContainerVerdict, ...]:
        return tuple(
            ContainerVerdict(
                container=item.container,
                movable=item.target is not None,
                kept=item.kept,
                method=item.method,
                target=item.target,
                reason=item.reason,
                obstacles=(),
                targets=(),
                notes=(),
            )
            for item in self.plan(containers).migrations
        )

    def migrate(
        self,
        container: str,
        target: str,
        method: Method | None,
        observe: Callable[[MigrationEvent], None],
        **_: object,
    ) -> MigrationOutcome:
        observe(MigrationEvent(migration="m1", container=container, at=1.0, phase=Phase.PREPARE, message="go"))
        phase = Phase.ABORTED if container in self.fails else Phase.DONE
        if phase is Phase.DONE:
            self.moved.append(container)
            del self.targets[container]
        return MigrationOutcome(
            migration="m1",
            container=container,
            source="alpha",
            target=target,
            method=method or Method.LAZY,
            phase=phase,
            freeze_ms=300.0,
            error="" if phase is Phase.DONE else "beta is full",
        )

    def probe(self, target: str) -> MigrationOutcome:
        if target in self.fails:
            raise PrerequisiteError("it is full", code="target-lacks-disk")
        self.targets["probe"] = target
        return self.migrate("probe", target, None, lambda _: None)

    def history(self, _: int) -> tuple[MigrationOutcome, ...]:
        return ()

    def events(self, _: str) -> tuple[MigrationEvent, ...]:
        return ()


class House:
    """A daemon in a directory of its own, with a fake engine and a list of its alerts."""

    def __init__(self, directory: Path, engine: FakeEngine | None, **evacuation: Any) -> None:
        self.directory = directory
        (directory / "local").mkdir(exist_ok=True)
        (directory / "local/rules.toml").write_text(RULE)
        self.settings = Settings(
            evacuation=EvacuationSettings(**{"retry_s": 0.001, **evacuation}),
            migrator=MigratorSettings(at_once=1, away_at_once=1),
            alerts=AlertSettings(webhook=(Webhook(url="http://127.0.0.1:9/"),)),
        )
        self.engine = engine
        self.storage = StorageFacts({}, frozenset(), {})
        self.layers = "/"
        self.server: AdminServer | None = None
        self.daemon = self.start()

    def start(self) -> Daemon:
        """Return a daemon as a start of the service would make it, without its threads."""
        places = Places(
            directory=self.directory / "etc",
            state=self.directory / "state",
            runtime=self.directory / "run",
            shipped=self.directory / "shipped",
            local=self.directory / "local",
        )
        self.daemon = Daemon(self.settings, places, Losses(lambda: self.storage, lambda: self.layers))
        self.daemon.engine = cast("Engine | None", self.engine)
        return self.daemon

    def read(self, value: float | None, reason: str = "") -> None:
        """Let a disk say something."""
        self.daemon.readings.take([Reading("smart.health_failed", DISK, time.time(), value, reason)])

    def tick(self, times: int = 1) -> HostState:
        """Tick, let jobs end, and return the host's state."""
        for _ in range(times):
            self.daemon.tick()
            deadline = time.monotonic() + 5
            while self._at_work() and time.monotonic() < deadline:
                time.sleep(0.001)
        return self.daemon.flags.flags.state

    def _at_work(self) -> bool:
        return bool(self.daemon.jobs.running()) or self.daemon.storm_watch.asking or self.daemon.warm_up.running

    def alerts(self) -> list[Event]:
        """Return all alerts that wait for their receiver."""
        return [parcel.event for parcel in self.daemon.deliverer._outbox.due(time.time() + 1)]

    def kinds(self) -> list[Kind]:
        """Return the kinds of the alerts."""
        return [event.kind for event in self.alerts()]


def test_a_failing_disk_empties_the_host_and_every_step_is_told(tmp_path: Path) -> None:
    house = House(tmp_path, FakeEngine(web="beta", db="beta"))
    house.read(0.0)
    assert house.tick() is HostState.HEALTHY
    assert house.alerts() == []
    house.read(1.0)
    assert house.tick(3) is HostState.EVACUATED
    assert house.engine is not None
    assert house.engine.moved == ["web", "db"]
    assert house.kinds() == [
        Kind.VERDICT,
        Kind.VERDICT,
        Kind.EVACUATION_STARTED,
        Kind.MIGRATION_ENDED,
        Kind.MIGRATION_ENDED,
        Kind.EVACUATION_ENDED,
        Kind.VERDICT,
    ]
    first = house.alerts()[0]
    assert first.severity is Severity.CRITICAL
    assert [value.device for value in first.signals] == ["/dev/sda"]
    assert "the drive itself says" in first.text


def test_what_nobody_could_take_is_tried_again(tmp_path: Path) -> None:
    house = House(tmp_path, FakeEngine(web=None), again_s=1e-6)
    house.read(1.0)
    assert house.tick(4) is HostState.EVACUATED
    before = len(house.alerts())
    house.tick(3)
    assert len(house.alerts()) == before  # nothing new to say
    assert house.engine is not None
    house.engine.targets["web"] = "gamma"
    house.tick(2)
    assert house.engine.moved == ["web"]


def test_a_container_that_shall_stay_is_no_failure(tmp_path: Path) -> None:
    engine = FakeEngine(web="beta", pinned=None)
    engine.kept.add("pinned")
    house = House(tmp_path, engine)
    house.read(1.0)
    house.tick(3)
    ended = next(event for event in house.alerts() if event.kind is Kind.EVACUATION_ENDED)
    assert ended.severity is Severity.INFO
    assert ended.outcome is not None
    assert ended.outcome["left"] == {}


def test_one_containers_failure_does_not_stop_the_others(tmp_path: Path) -> None:
    engine = FakeEngine(bad="beta", good="beta")
    engine.fails.add("bad")
    house = House(tmp_path, engine)
    house.read(1.0)
    house.tick(3)
    assert engine.moved == ["good"]
    ended = next(event for event in house.alerts() if event.kind is Kind.EVACUATION_ENDED)
    assert ended.severity is Severity.CRITICAL
    assert "bad: beta is full" in ended.text


@pytest.mark.parametrize(
    ("evacuation", "flags", "clustered", "words"),
    [
        ({"automatic": False}, {}, True, "evacuation.automatic is off"),
        ({}, {"paused": True}, True, "paused by an admin"),
        ({}, {}, False, "belongs to no cluster"),
    ],
)
def test_a_host_that_may_not_empty_itself_says_why(
    tmp_path: Path, evacuation: dict[str, bool], flags: dict[str, bool], *, clustered: bool, words: str
) -> None:
    house = House(tmp_path, FakeEngine(web="beta") if clustered else None, **evacuation)
    house.daemon.flags.change(**flags)
    house.read(1.0)
    assert house.tick(3) is HostState.FAILING
    assert words in house.daemon.sentence
    assert house.kinds() == [Kind.VERDICT]
    if house.engine is not None:
        assert house.engine.moved == []


def test_an_evacuation_cut_short_by_a_restart_goes_on(tmp_path: Path) -> None:
    house = House(tmp_path, FakeEngine(web="beta"))
    house.read(1.0)
    house.daemon.flags.change(state=HostState.EVACUATING)
    house.start()
    assert house.tick(3) is HostState.EVACUATED
    assert house.engine is not None
    assert house.engine.moved == ["web"]


def test_a_storm_moves_nothing_until_an_admin_says_so(tmp_path: Path) -> None:
    engine = FakeEngine(web="beta")
    engine.healths = tuple(
        HealthTold(host=f"h{number}", verdict=verdict, since_s=5)
        for number, verdict in enumerate([Verdict.FAILING, Verdict.SUSPECT, Verdict.HEALTHY, Verdict.HEALTHY])
    )
    house = House(tmp_path, engine, storm_poll_s=0.001)
    house.read(1.0)
    assert house.tick(4) is HostState.FAILING
    assert "not moved on signals alone, as 3 of 5 hosts turned bad" in house.daemon.sentence
    engine.healths = ()
    assert house.start().flags.flags.storm  # neither time nor a restart ends it
    assert house.tick(4) is HostState.FAILING
    assert house.kinds().count(Kind.STORM) == 1
    assert engine.moved == []
    house.daemon.flags.change(storm="", storm_reset_at=time.time())
    assert house.tick(4) is HostState.EVACUATED
    assert engine.moved == ["web"]


def test_a_host_that_was_emptied_takes_nothing_until_an_admin_says_so(tmp_path: Path) -> None:
    house = House(tmp_path, FakeEngine(web="beta"))
    house.read(1.0)
    house.tick(3)
    house.read(0.0)
    assert house.tick(2) is HostState.HEALTHY
    assert house.start().flags.flags.cordoned


def test_an_evacuation_that_an_admin_ordered_is_taken_up_after_a_restart(tmp_path: Path) -> None:
    house = House(tmp_path, FakeEngine(web="beta"))
    orders = OrderFile(tmp_path / "state/evacuation.json")
    orders.write(Order(cause=Cause.ADMIN))
    daemon = house.start()
    daemon.evacuations.take_up("alpha", daemon.moving())
    house.tick()
    assert house.engine is not None
    assert house.engine.moved == ["web"]
    assert orders.read() is None


def drilled(house: House, *, everything: bool = False) -> dict[str, Any]:
    """Drill to the end, with the tick at work, and return the report."""
    job = house.daemon.begin_drill(everything=everything)
    deadline = time.monotonic() + 20
    while not job.ended and time.monotonic() < deadline:
        house.daemon.tick()
        time.sleep(0.005)
    return job.lines[-1]


def drill_house(tmp_path: Path, engine: FakeEngine) -> House:
    """Return a house with the shipped rule for drills."""
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped/drill.toml").write_text((ROOT / "policies/drill.toml").read_text())
    house = House(tmp_path, engine)
    house.read(0.0)
    house.tick()
    return house


def test_a_drill_goes_the_whole_way_and_comes_back(tmp_path: Path) -> None:
    engine = FakeEngine(web="beta", db="beta")
    engine.canaries.add("web")
    house = drill_house(tmp_path, engine)
    report = drilled(house)
    assert (report["failures"], report["status"]) == ([], 0)
    assert [step["step"] for step in report["steps"]] == ["marked", "judged", "evacuating", "moved", "back"]
    assert engine.moved == ["web"]
    assert set(engine.targets) == {"web", "db"}
    assert house.tick(2) is HostState.HEALTHY
    assert not house.daemon.flags.flags.cordoned
    assert any("this is a drill" in event.text for event in house.alerts())
    assert all(event.kind is not Kind.CALL_A_HUMAN for event in house.alerts())


def test_a_drill_that_fails_says_where_and_is_over(tmp_path: Path) -> None:
    engine = FakeEngine(web="beta", db="beta")
    engine.fails.add("db")
    engine.keepers.add("beta")
    house = drill_house(tmp_path, engine)
    report = drilled(house, everything=True)
    assert report["status"] == 4
    assert any("db did not leave" in words for words in report["failures"])
    assert any("web is still on beta" in words for words in report["failures"])
    assert house.tick(2) is HostState.HEALTHY


def test_a_drill_needs_a_canary_and_a_host_that_could_act(tmp_path: Path) -> None:
    house = drill_house(tmp_path, FakeEngine(web="beta"))
    with pytest.raises(LifeboatError, match="no running container carries the label"):
        house.daemon.begin_drill(everything=False)
    house.daemon.flags.change(paused=True)
    with pytest.raises(LifeboatError, match="paused by an admin"):
        house.daemon.begin_drill(everything=True)
    house.read(1.0)
    house.daemon.tick()
    with pytest.raises(LifeboatError, match="failing as it is"):
        house.daemon.begin_drill(everything=True)


def test_a_mark_that_a_dead_daemon_left_moves_nothing(tmp_path: Path) -> None:
    engine = FakeEngine(web="beta")
    house = drill_house(tmp_path, engine)
    house.daemon.drill._mark(1.0)
    house.start()
    assert house.tick(4) is HostState.HEALTHY
    house.daemon.drill._mark(1.0)  # and were it set without a drill, it would name no container
    house.tick(4)
    assert engine.moved == []


def test_blindness_is_told_once_also_over_restarts(tmp_path: Path) -> None:
    house = House(tmp_path, FakeEngine())
    house.read(0.0)
    house.tick()
    house.read(None, "no answer within 45 s")
    house.tick(3)
    assert house.kinds() == [Kind.BLIND]
    assert "/dev/sda: smart.health_failed: no answer within 45 s" in house.alerts()[0].text
    house.start()
    house.tick(2)
    assert house.kinds() == [Kind.BLIND]
    house.read(0.0)
    house.tick()
    house.read(None, "gone again")
    house.tick()
    assert house.kinds() == [Kind.BLIND, Kind.BLIND]


def test_what_would_be_left_behind_is_told_once_also_over_restarts(tmp_path: Path) -> None:
    engine = FakeEngine(web="beta", pinned=None)
    house = House(tmp_path, engine, check_s=1e-6)
    look(house)
    assert house.kinds() == [Kind.READINESS]
    assert house.alerts()[0].severity is Severity.WARNING
    assert "would leave behind pinned: nobody has room" in house.alerts()[0].text
    house.start()
    look(house)
    assert house.kinds() == [Kind.READINESS]
    engine.targets["pinned"] = "gamma"
    look(house)
    assert house.kinds() == [Kind.READINESS, Kind.READINESS]
    assert house.alerts()[1].severity is Severity.INFO


def look(house: House) -> None:
    """Tick until the daemon has looked once more."""
    before = house.daemon.readiness.looked_at
    deadline = time.monotonic() + 5
    while house.daemon.readiness.looked_at == before and time.monotonic() < deadline:
        house.tick()


def test_a_bad_policy_changes_nothing_and_is_told(tmp_path: Path) -> None:
    house = House(tmp_path, FakeEngine())
    (tmp_path / "local/rules.toml").write_text(RULE.replace("smart.health_failed", "smart.helth_failed"))
    house.daemon.reload()
    assert [rule.id for rule in house.daemon.policy.rules] == ["disk-health-failed"]
    (event,) = house.alerts()
    assert event.kind is Kind.POLICY_REJECTED
    assert "did you mean 'smart.health_failed'" in event.text
    (tmp_path / "local/rules.toml").write_text("")
    house.daemon.reload()
    assert house.daemon.policy.rules == ()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A house whose admin API listens, and `lifeboat` asks it."""
    house = House(tmp_path, FakeEngine(web="beta", pinned=None))
    path = tmp_path / "admin.sock"
    house.server = server = AdminServer(house.daemon, path)
    server.start()
    real_ask, real_follow = client.ask, client.follow
    for module in ("watchdog.cli.watch", "watchdog.cli.act", "watchdog.cli.policy"):
        monkeypatch.setattr(f"{module}.ask", lambda *words: real_ask(*words, socket_path=path))
    for module in ("watchdog.cli.watch", "watchdog.cli.act"):
        monkeypatch.setattr(f"{module}.follow", lambda *words: real_follow(*words, socket_path=path))
    yield house
    server.stop()


def command(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, Any]:
    """Run `lifeboat ... --json`; return its exit status and answer."""
    status = main([*argv, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_only_root_can_open_the_socket(served: House) -> None:
    assert stat.S_IMODE((served.directory / "admin.sock").stat().st_mode) == 0o600


def test_the_command_looks(served: House, capsys: pytest.CaptureFixture[str]) -> None:
    served.read(None, "no answer")
    served.tick()
    status, found = command(capsys, "status")
    assert (status, found["verdict"], found["state"]) == (0, "healthy", "healthy")
    assert found["blind"] == ["/dev/sda: smart.health_failed: no answer"]
    status, found = command(capsys, "signals")
    assert (found[0]["signal"], found[0]["value"], found[0]["reason"]) == ("smart.health_failed", None, "no answer")
    status, found = command(capsys, "policy", "explain")
    assert (found[0]["rule"], found[0]["fired"], found[0]["limit"]) == ("disk-health-failed", False, 1)
    status, found = command(capsys, "plan")
    assert [item["target"] for item in found["migrations"]] == ["beta", None]
    assert status == 3  # `pinned` has no target
    for verb in (["status"], ["signals"], ["signals", "--catalog"], ["policy", "explain"], ["history"]):
        assert main(verb) == 0
        assert capsys.readouterr().out
    main(["status"])
    assert "etcd is silent; migrations go on without it; not heard of: gamma for 12 s" in capsys.readouterr().out


def test_the_command_checks(served: House, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = command(capsys, "check")
    assert status == 3
    assert {row["container"]: row["movable"] for row in found} == {"web": True, "pinned": False}
    assert main(["check"]) == 3
    assert "nobody has room" in capsys.readouterr().out
    assert served.engine is not None
    served.engine.fails.add("gamma")
    assert main(["check", "--deep", "--to", "beta"]) == 0
    assert "beta" in capsys.readouterr().out
    status, found = command(capsys, "check", "--deep", "--to", "gamma")
    assert (status, found[0]["moved"], found[0]["code"]) == (3, False, "target-lacks-disk")


def test_the_command_acts_and_tells_the_progress(served: House, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "web", "--to", "beta"]) == 0
    assert "web runs on beta; frozen for 300 ms" in capsys.readouterr().out
    assert served.engine is not None
    assert served.engine.moved == ["web"]
    status, found = command(capsys, "evacuate")
    assert status == 4  # `pinned` has no target
    assert found["left"] == {"pinned": "nobody has room"}
    assert command(capsys, "evacuate", "--dry-run")[0] == 3
    assert main(["cancel"]) == 3
    assert "no evacuation is under way" in capsys.readouterr().err
    assert command(capsys, "storm", "reset")[1]["storm"] == ""


def test_flags_stay_over_a_restart(served: House, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(capsys, "cordon") == (0, served.daemon.flags.flags.model_dump(mode="json"))
    command(capsys, "pause")
    again = served.start()
    assert (again.flags.flags.cordoned, again.flags.flags.paused) == (True, True)


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["show", "nosuch"], 3, "there is no migration 'nosuch'"),
        (["policy", "check", "/is/not/there.toml"], 2, "there is no such file"),
    ],
)
def test_errors_are_one_clear_sentence(
    served: House, capsys: pytest.CaptureFixture[str], argv: list[str], status: int, words: str
) -> None:
    assert served.daemon
    assert main(argv) == status
    assert words in capsys.readouterr().err


def test_without_a_daemon_the_command_says_so(tmp_path: Path) -> None:
    with pytest.raises(LifeboatError, match="lifeboatd is not running") as caught:
        client.ask("GET", "/v1/status", socket_path=tmp_path / "none.sock")
    assert caught.value.exit_status == 3


def test_metrics(served: House) -> None:
    served.read(1.0)
    served.tick()
    connection = client._Connection(served.directory / "admin.sock", 5)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    assert 'lifeboat_signal{device="disk:1",signal="smart.health_failed"} 1.0' in text
    assert "lifeboat_verdict 2.0" in text
