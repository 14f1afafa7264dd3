"""The moves of an evacuation: at once, in order, to the next best, cancelled; with an engine that moves nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from itertools import pairwise
from typing import Any, cast

import pytest

from migrator.engine import Engine
from migrator.errors import PrerequisiteError
from migrator.health import Verdict
from migrator.model import ContainerFacts, EvacuationPlan, Method, MigrationEvent, MigrationOutcome, Phase
from migrator.peers.neighbours import HealthTold
from migrator.planning.plan import plan_evacuation
from migrator.planning.progress import remaining_s
from migrator.source.departure import Place
from tests.pure.values import container, host, pod
from watchdog.daemon.jobs import Job
from watchdog.daemon.queue import MoveQueue, Moves
from watchdog.storm import StormLimits, storm


class StageEngine:
    """Plans as the real one does; `act` says how a migration ends."""

    def __init__(self, containers: list[ContainerFacts], hosts: Collection[str] = ("b", "c")) -> None:
        self.all = containers
        self.hosts = hosts
        self.act: Callable[[str, str, Place], Phase | Exception] = lambda *_: Phase.DONE
        self.pods: dict[str, tuple[str, ...]] = {}  # which others go with one
        self.began: list[tuple[str, str]] = []
        self.ended: list[str] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()

    def plan(
        self,
        containers: tuple[ContainerFacts, ...] | None = None,
        method: Method | None = None,
        *,
        avoid: Collection[str] = (),
        **_: object,
    ) -> EvacuationPlan:
        targets = [host(name) for name in self.hosts if name not in avoid]
        return plan_evacuation(host("a"), containers or self.all, targets, method or Method.LAZY)

    def hold(self, _: dict[str, int]) -> tuple[()]:
        return ()

    def migrate(
        self,
        name: str,
        target: str,
        method: Method | None,
        observe: Callable[[MigrationEvent], None],
        *,
        place: Place,
        planned: bool,
        beside: Callable[[MigrationOutcome], None],
    ) -> MigrationOutcome:
        for fellow in self.pods.get(name, ()):
            beside(self._ended(fellow, target, self.act(fellow, target, place)))
        with self._lock:
            self.began.append((name, target))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        phase = self.act(name, target, place)
        with self._lock:
            self._at_once -= 1
            self.ended.append(name)
        if isinstance(phase, Exception):
            raise phase
        return self._ended(name, target, phase)

    @staticmethod
    def _ended(name: str, target: str, phase: Phase | Exception) -> MigrationOutcome:
        assert isinstance(phase, Phase)
        return MigrationOutcome(
            migration="m",
            container=name,
            source="a",
            target=target,
            method=Method.LAZY,
            phase=phase,
            error="" if phase is Phase.DONE else f"{target} could not",
        )


def run(engine: StageEngine, job: Job | None = None, at_once: int = 2) -> Moves:
    """Run the plan of everything to its end."""
    told: list[MigrationOutcome] = []
    queue = MoveQueue(cast(Engine, engine), None, engine.all, told.append, at_once=at_once, retry_s=0.001)
    return queue.run(engine.plan(), job or Job("evacuation"))


def containers(*names: str, **labels: str) -> list[ContainerFacts]:
    """Return small containers."""
    return [container(name, 0.1, labels=labels) for name in names]


def test_no_more_at_once_than_allowed_and_all_of_them_used() -> None:
    engine = StageEngine(containers(*"123456"))
    meeting = threading.Barrier(2)

    def meet(*_: object) -> Phase:
        meeting.wait(10)  # breaks, unless two are under way at once
        return Phase.DONE

    engine.act = meet
    moves = run(engine)
    assert len(moves.done) == 6
    assert engine.most_at_once == 2
    assert [name for name, _ in engine.began] == sorted(name for name, _ in engine.began)


def test_one_that_waits_for_another_is_begun_after_its_end() -> None:
    engine = StageEngine([*containers("db"), *containers("web", **{"lifeboat.after": "db"})])
    seen: list[list[str]] = []

    def look(*_: object) -> Phase:
        seen.append(list(engine.ended))
        return Phase.DONE

    engine.act = look
    run(engine)
    assert seen == [[], ["db"]]


def pod_of_two() -> StageEngine:
    """Return a stage with a pod of two and a container beside it."""
    together = pod()
    members = [container(name, 0.1, id=together.members[place], pod=together) for place, name in enumerate("ab")]
    engine = StageEngine([*members, *containers("z")], hosts=("b", "c"))
    engine.pods = {"a": ("b",)}
    return engine


def test_a_pod_is_begun_once_and_every_member_is_told_of() -> None:
    engine = pod_of_two()
    told: list[MigrationOutcome] = []
    queue = MoveQueue(cast(Engine, engine), None, engine.all, told.append, at_once=2, retry_s=0.001)
    moves = queue.run(engine.plan(), Job("evacuation"))
    assert sorted(name for name, _ in engine.began) == ["a", "z"]
    assert {item.container for item in told} == {item.container for item in moves.done} == {"a", "b", "z"}
    assert moves.left == {}


def test_a_pod_that_stays_leaves_all_its_members_and_is_tried_elsewhere_as_a_whole() -> None:
    engine = pod_of_two()
    engine.act = lambda name, *_: Phase.DONE if name == "z" else Phase.ABORTED
    moves = run(engine)
    assert {target for name, target in engine.began[:3] if name == "a"} == {"b", "c"}
    assert not any(name == "b" for name, _ in engine.began)
    assert sorted(moves.left) == ["a", "b"]
    assert [item.container for item in moves.done] == ["z"]


def test_a_pod_that_goes_elsewhere_at_last_leaves_nobody_behind() -> None:
    engine = pod_of_two()
    engine.act = lambda name, target, _: Phase.DONE if name == "z" or target == "b" else Phase.ABORTED
    moves = run(engine)
    assert [target for name, target in engine.began if name == "a"] == ["c", "b"]
    assert sorted(item.container for item in moves.done) == ["a", "b", "z"]
    assert moves.left == {}


def test_the_next_best_target_is_asked_when_one_fails() -> None:
    engine = StageEngine(containers("web"), hosts=("b", "c", "d"))
    engine.act = lambda _, target, __: Phase.DONE if target == "d" else Phase.ABORTED
    moves = run(engine)
    assert engine.began == [("web", "b"), ("web", "c"), ("web", "d")]
    assert [item.target for item in moves.done] == ["d"]
    assert moves.left == {}


def test_a_refusal_is_a_failure_like_others_and_the_rest_goes_on() -> None:
    engine = StageEngine(containers("bad", "good"), hosts=("b",))
    refusal = PrerequisiteError("b takes no container", code="target-refuses")
    engine.act = lambda name, *_: refusal if name == "bad" else Phase.DONE
    moves = run(engine)
    assert [item.container for item in moves.done] == ["good"]
    assert moves.left == {"bad": "b takes no container"}
    assert len(engine.began) == 1 + 3


def test_a_busy_target_is_waited_for() -> None:
    engine = StageEngine(containers("web"), hosts=("b",))
    answers: list[Phase | Exception] = [PrerequisiteError("busy", code="target-busy") for _ in range(5)]
    answers.append(Phase.DONE)
    engine.act = lambda *_: answers.pop(0)
    assert len(run(engine).done) == 1


def test_a_container_whose_memory_was_lost_is_not_tried_again() -> None:
    engine = StageEngine(containers("web"))
    engine.act = lambda *_: Phase.LOST
    moves = run(engine)
    assert len(engine.began) == 1
    assert "web" in moves.left


def test_stopped_it_begins_nothing_more_and_cancelled_it_gives_up_what_runs() -> None:
    engine, job = StageEngine(containers("one", "two", "three")), Job("evacuation")

    def cancel(_: str, __: str, place: Place) -> Phase:
        job.stopping = True
        job.cancelled.set()
        return Phase.ABORTED if place.stopped.wait(5) else Phase.DONE

    engine.act = cancel
    moves = run(engine, job, at_once=1)
    assert len(engine.began) == 1
    assert set(moves.left) == {"one", "two", "three"}


def test_progress_tells_how_long_it_will_take() -> None:
    engine, job = StageEngine(containers("one", "two")), Job("evacuation")
    run(engine, job, at_once=1)
    told = [line["progress"] for line in job.lines if "progress" in line]
    assert [(item["moved"], item["of"], item["failed"]) for item in told] == [(1, 2, 0), (2, 2, 0)]
    assert told[-1]["eta_s"] == 0.0


def test_the_rest_is_stretched_by_what_was_seen() -> None:
    plan = StageEngine(containers("one", "two")).plan()
    first, second = (item.ends_s for item in plan.migrations)
    assert remaining_s(plan, (), 0.0) == pytest.approx(second)
    assert remaining_s(plan, {"one"}, first) == pytest.approx(second - first)
    assert remaining_s(plan, {"one"}, first * 3) == pytest.approx((second - first) * 3)
    assert remaining_s(plan, {"one", "two"}, 99.0) == 0.0
    assert all(before.ends_s <= after.ends_s for before, after in pairwise(plan.migrations))


def told(*verdicts: Verdict, since_s: float = 10.0) -> tuple[HealthTold, ...]:
    """Return what other hosts say."""
    return tuple(HealthTold(host=str(n), verdict=verdict, since_s=since_s) for n, verdict in enumerate(verdicts))


FINE, BAD, WARM = Verdict.HEALTHY, Verdict.FAILING, Verdict.SUSPECT


@pytest.mark.parametrize(
    ("others", "known", "changes", "trips"),
    [
        (told(FINE, FINE), 3, {}, False),
        (told(BAD, FINE, FINE, FINE), 5, {}, False),  # two hosts may well die in one week
        (told(BAD, WARM, FINE, FINE), 5, {}, True),
        (told(BAD, WARM, *[FINE] * 17), 20, {}, False),  # 15 % of a large cluster
        (told(BAD, BAD, since_s=3600), 5, {}, False),  # not at once
        (told(BAD, BAD), 5, {"calm_s": 5.0}, False),  # before the reset
        (told(BAD, BAD), 30, {}, False),  # silent hosts count as known
        (told(BAD), 2, {"hosts": 2}, True),
    ],
)
def test_what_a_storm_is(
    others: tuple[HealthTold, ...],
    known: int,
    changes: dict[str, Any],
    trips: bool,
) -> None:
    limits = StormLimits(hosts=changes.get("hosts", 3))
    reason = storm(1.0, others, known, limits, calm_s=changes.get("calm_s", 1e9))
    assert bool(reason) is trips


def test_what_an_earlier_migration_or_somebody_took_away_is_not_left_behind() -> None:
    engine = StageEngine(containers("moving", "stays"))
    answers = iter(("already-moving", "already-moving", "no-such-container"))

    def act(name: str, *_: object) -> Phase | Exception:
        return PrerequisiteError(f"{name} is gone", code=next(answers)) if name == "moving" else Phase.DONE

    engine.act = act
    moves = run(engine)
    assert [item.container for item in moves.done] == ["stays"]
    assert moves.left == {}
