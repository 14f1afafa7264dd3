"""What the command says, and with which exit status, where a wrong or a silent answer would cost a container."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from migrator.model import MigrationOutcome, Phase
from migrator.protocol.journal import Side
from migrator.protocol.steps import Place
from migrator.recovery.by_hand import Situation
from tests.pure.test_daemon import FakeEngine, House, command, served
from tests.pure.test_lost import ended
from watchdog.cli.main import EPILOG, main
from watchdog.daemon.order import Cause, Order

__all__ = ["served"]

SITUATION = Situation(
    migration="m1",
    container="web",
    side=Side.SOURCE,
    peer="beta",
    peer_says="",
    place=Place.NOWHERE,
    here="frozen",
    resume_loses="nothing",
    forget_loses="all",
    resume_refused="",
)


def engine_of(house: House) -> FakeEngine:
    """Return a house's engine."""
    assert house.engine is not None
    return house.engine


def test_a_plan_in_which_something_has_no_target_is_no_success(
    served: House, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = engine_of(served)
    for verb in (["plan"], ["evacuate", "--dry-run"]):
        assert main(verb) == 3
        assert "NO TARGET: pinned" in capsys.readouterr().out
    engine.kept.add("pinned")
    for verb in (["plan"], ["evacuate", "--dry-run"]):
        assert command(capsys, *verb)[0] == 0


def test_a_rehearsal_is_about_what_a_migration_would_do(served: House, capsys: pytest.CaptureFixture[str]) -> None:
    engine = engine_of(served)
    assert main(["migrate", "my/pod", "--to", "beta", "--method", "cold", "--dry-run"]) == 0
    assert engine.rehearsed == ("my/pod", "beta", "cold")
    assert "my/pod could go to beta" in capsys.readouterr().out
    engine.fails.add("web")
    status, found = command(capsys, "migrate", "web", "--to", "beta", "--dry-run")
    assert (status, found["rejections"][0]["code"]) == (3, "target-lacks-memory")
    assert engine.moved == []


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["check", "--to", "beta"], "bad-arguments", "lifeboat check --deep --to beta"),
        (["check", "web", "--deep"], "bad-arguments", "lifeboat check web"),
        (["recover", "m2"], "no-such-migration", "lifeboat recover lists them"),
        (["recover", "m1", "--target-is-dead"], "no-wish", "--resume-here or --forget"),
        (["recover", "--resume-here"], "no-migration", "lifeboat recover lists them"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    served: House, capsys: pytest.CaptureFixture[str], argv: list[str], code: str, words: str
) -> None:
    engine_of(served).situations.append(SITUATION)
    assert main(argv) == 2
    told = capsys.readouterr()
    assert (told.out, words in told.err) == ("", True)
    assert main([*argv, "--json"]) == 2
    told = capsys.readouterr()
    error = json.loads(told.out)
    assert (error["code"], error["status"], words in told.err) == (code, 2, True)
    assert error["error"] in told.err


def test_what_waits_for_a_human_is_told(served: House, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recover"]) == 0
    assert "every migration has ended" in capsys.readouterr().out
    engine_of(served).situations.append(SITUATION)
    assert command(capsys, "recover", "m1")[1][0]["migration"] == "m1"


def test_what_the_daemon_refuses_is_json_too(served: House, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = command(capsys, "show", "nosuch")
    assert (status, found["status"], found["code"], found["hint"]) == (
        3,
        3,
        "no-such-migration",
        "lifeboat history",
    )
    engine_of(served).fails.add("web")
    status, found = command(capsys, "migrate", "web", "--to", "beta")
    assert (status, found["status"], found["error"], found["hint"]) == (4, 4, "beta is full", "")


class Held(FakeEngine):
    """An engine whose migrations go on until they are cancelled."""

    def __init__(self, **targets: str | None) -> None:
        super().__init__(**targets)
        self.begun = threading.Event()

    def migrate(self, container: str, *words: Any, place: Any = None, **also: Any) -> MigrationOutcome:
        self.begun.set()
        if place is not None and place.stopped.wait(10):
            return ended(container, Phase.ABORTED, "it was cancelled")
        return super().migrate(container, *words, **also)


@pytest.mark.parametrize("failing", [False, True])
def test_a_cancelled_evacuation_says_how_the_host_is_left(
    served: House, capsys: pytest.CaptureFixture[str], *, failing: bool
) -> None:
    engine = Held(web="beta")
    served.daemon.engine = engine  # type: ignore[assignment]
    if failing:
        served.read(1.0)
        served.daemon.judgement.assess()
    served.daemon.evacuate(Order(cause=Cause.ADMIN))
    assert engine.begun.wait(10)
    assert main(["cancel"]) == 4
    said = capsys.readouterr().out
    assert "stays cordoned (lifeboat uncordon)" in said
    assert ("evacuates nothing by itself (lifeboat resume)" in said) is failing
    served.daemon.evacuate(Order(cause=Cause.ADMIN))
    status, found = command(capsys, "cancel")
    assert (status, found["cordoned"], found["paused"]) == (4, True, failing)


class Endless(FakeEngine):
    """An engine that is at work until it is let go."""

    def __init__(self, **targets: str | None) -> None:
        super().__init__(**targets)
        self.begun, self.go = threading.Event(), threading.Event()

    def migrate(self, container: str, *words: Any, **also: Any) -> MigrationOutcome:
        self.begun.set()
        self.go.wait(30)
        return super().migrate(container, *words, **also)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_whoever_follows_a_job_hears_that_the_daemon_stops(
    served: House, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    engine = Endless(web="beta")
    served.daemon.engine = engine  # type: ignore[assignment]
    statuses: list[int] = []
    follower = threading.Thread(
        target=lambda: statuses.append(main(["migrate", "web", "--to", "beta", *options])), daemon=True
    )
    follower.start()
    try:
        assert engine.begun.wait(10)
        assert served.server is not None
        served.server.stop()
        follower.join(10)
        assert statuses == [1]
        said = capsys.readouterr()
        assert "lifeboatd stopped before this was done" in said.out + said.err
    finally:
        engine.go.set()


def test_every_exit_status_is_told() -> None:
    assert "130  interrupted" in EPILOG
