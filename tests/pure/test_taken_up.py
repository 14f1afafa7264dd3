"""Incoming migrations that nobody can judge for a moment: what is not known is not told, nor a loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from migrator.container import settle
from migrator.control import Message
from migrator.errors import CommandError, ExecutionError
from migrator.model import Fallback, Method, MigrationOutcome, Phase, PodFacts
from migrator.pager.sink import SinkState
from migrator.peers.membership import PeerDirectory
from migrator.protocol.journal import Side
from migrator.protocol.messages import DecisionTold, Proposal, Report, Standing
from migrator.recovery import incoming
from migrator.recovery.incoming import FALLBACK_LABEL, Caretaker, adopted
from migrator.recovery.revival import Revival
from migrator.runtime import podman
from migrator.settings import MigratorSettings
from migrator.shim.order import HANDED_OVER
from migrator.target import drain
from migrator.target.checkpoints import Checkpoints
from migrator.target.drain import Drain
from migrator.target.hall import Hall
from migrator.target.reception import Reception
from tests.pure.halls import hall_in
from tests.pure.values import container

BUSY = CommandError("podman is busy", code="command-timeout", temporary=True)


def offer(method: Method = Method.FULL) -> Proposal:
    """Return what alpha offers; when its memory is lost it starts anew."""
    facts = container("web", id="a" * 64, labels={FALLBACK_LABEL: "cold"})
    return Proposal(
        migration="0a0a", source="alpha", container=facts, method=method, copy_image=False, epoch=1
    )  # fmt: skip  # two lines of facts


def committed(hall: Hall) -> Reception:
    """Return a reception that the journal knows, committed, its files written."""
    reception = Reception(hall, offer())
    hall.journal.begin("0a0a", Side.TARGET, "web", reception.proposal.model_dump_json())
    reception.record.commit()
    reception.record.written()
    return reception


def lose(reception: Reception) -> None:
    """Let a reception that was opened stand without its memory, its source quiet."""
    reception._standing, reception._reason, reception._opened_at = Standing.LOST, "the page sink is gone", 1.0
    reception.may_have_spoken, reception._heard_at = True, float("-inf")


def offer_two() -> list[Proposal]:
    """Return the two members of a pod."""
    shared = PodFacts(
        id="e" * 64, infra="f" * 64, name="shop", members=("a" * 64, "b" * 64), hostname="shop", shares=("net",)
    )
    return [
        offer().model_copy(
            update={
                "migration": migration,
                "company": ("0a0a", "0b0b"),
                "container": container(name, id=letter * 64, pod=shared, labels={FALLBACK_LABEL: "cold"}),
            }
        )
        for migration, name, letter in (("0a0a", "web", "a"), ("0b0b", "talker", "b"))
    ]


def caretaker(hall: Hall, receptions: list[Reception], told: list[MigrationOutcome]) -> Caretaker:
    """Return who looks after receptions."""
    return Caretaker(
        hall,
        cast(PeerDirectory, None),
        lambda: receptions,
        forget=lambda _: None,
        tell=told.append,
        revival=cast(Revival, None),
    )


@pytest.mark.parametrize(
    ("opened_at", "standing"), [(None, Standing.LOST), (1.0, Standing.RESTORED)], ids=["shut", "open"]
)
def test_a_shim_that_is_gone_is_a_loss_only_before_the_gate_is_open(
    tmp_path: Path, opened_at: float | None, standing: Standing
) -> None:
    """Behind that it has ended well, and the commit that was cut short may be said again."""
    reception = Reception(hall_in(tmp_path, MigratorSettings()), offer())
    reception._standing, reception._opened_at = Standing.RESTORED, opened_at
    assert reception.report().standing is standing


class Sink:
    """The control socket of a page sink."""

    def __init__(self, answers: list[Message | ExecutionError]) -> None:
        self.answers = answers

    def ask(self, _: Message, *, timeout_s: float) -> Message:
        """As `ControlClient.ask`."""
        assert timeout_s > 0
        answer = self.answers.pop(0)
        if isinstance(answer, ExecutionError):
            raise answer
        return answer

    def close(self) -> None:
        """Hang up."""


def test_a_sink_that_is_late_has_lost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late, gone = (ExecutionError("no answer", code=code) for code in ("control-timeout", "control-lost"))
    far: Message = {"event": "draining", "drained_bytes": 7, "drain_s": 1, "reason": "", "port": 1, "details": None}
    sink = Sink([late, far, late, late, gone, far])
    monkeypatch.setattr(drain, "ControlClient", lambda *_, **__: sink)
    looking = Drain(hall_in(tmp_path, MigratorSettings()), offer(Method.LAZY), tmp_path)
    seen = [looking.look() for _ in range(6)]
    assert [item.state for item in seen] == [
        SinkState.WAITING, *[SinkState.DRAINING] * 3, SinkState.LOST, SinkState.DRAINING
    ]  # fmt: skip  # one line a sequence
    assert [item.drained_bytes for item in seen] == [0, 7, 7, 7, 0, 7]
    assert seen[4].reason == drain.GONE


def test_a_sink_that_never_answers_again_has_lost_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = ExecutionError("no answer", code="control-timeout")
    monkeypatch.setattr(drain, "ControlClient", lambda *_, **__: Sink([late, late]))
    monkeypatch.setattr(drain, "SILENT_LIMIT_S", 0.0)
    looking = Drain(hall_in(tmp_path, MigratorSettings()), offer(Method.LAZY), tmp_path)
    assert [looking.look().state for _ in range(2)] == [SinkState.LOST] * 2


def test_what_was_lost_meanwhile_is_known_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hall = hall_in(tmp_path, MigratorSettings())
    reception = Reception(hall, offer(Method.LAZY))
    hall.journal.begin("0a0a", Side.TARGET, "web", reception.proposal.model_dump_json())
    reception.record.commit()
    monkeypatch.setattr(incoming, "_shim", lambda _: None)
    monkeypatch.setattr(podman, "is_running", lambda _: True)
    monkeypatch.setattr(podman, "first_pid", lambda _: 0)
    monkeypatch.setattr(Drain, "present", True)  # what it left; nobody answers there
    (found,) = adopted(hall, hall.journal)
    assert found.report().standing is Standing.LOST


def test_all_of_a_pod_is_killed_before_any_of_it_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = hall_in(tmp_path, MigratorSettings())
    pair = [Reception(hall, member) for member in offer_two()]
    deeds: list[str] = []
    monkeypatch.setattr(podman, "kill_and_wait", lambda name: deeds.append(f"kill {name[0]}"))
    monkeypatch.setattr(podman, "has_container", lambda _: True)
    monkeypatch.setattr(podman, "is_running", lambda _: True)
    monkeypatch.setattr(podman, "start", lambda name: deeds.append(f"start {name[0]}"))
    monkeypatch.setattr(settle, "tell_neighbours", lambda _: None)
    monkeypatch.setattr(incoming, "ask_source", lambda *_: None)
    for item in pair:
        hall.journal.begin(item.proposal.migration, Side.TARGET, "web", item.proposal.model_dump_json())
        item.record.commit()
        item.record.written()
        lose(item)
    caretaker(hall, pair, []).look()
    assert deeds == ["kill b", "kill a", "start a", "start b"]


def test_what_cannot_be_taken_up_at_the_start_is_taken_up_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = hall_in(tmp_path, MigratorSettings())
    directory = committed(hall).directory
    directory.mkdir(parents=True)
    (directory / HANDED_OVER).touch()
    failing = iter([BUSY, BUSY])

    def is_running(_: str) -> bool:
        for error in failing:
            raise error
        return True

    monkeypatch.setattr(podman, "is_running", is_running)
    monkeypatch.setattr(incoming, "ask_source", lambda *_: DecisionTold(migration="0a0a", decision="commit"))
    (reception,) = adopted(hall, hall.journal)
    told: list[MigrationOutcome] = []
    looking = caretaker(hall, [reception], told)
    for _ in range(2):
        with pytest.raises(ExecutionError) as unknown:
            reception.report()
        assert (unknown.value.code, unknown.value.temporary) == ("not-taken-up", True)
        looking.look()
    assert reception.report().standing is Standing.DRAINED
    assert (told, reception.ended) == ([], False)


def test_what_can_be_taken_up_at_the_start_tells_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hall = hall_in(tmp_path, MigratorSettings())
    committed(hall)
    monkeypatch.setattr(incoming, "_shim", lambda _: None)
    monkeypatch.setattr(podman, "is_running", lambda _: True)
    (reception,) = adopted(hall, hall.journal)
    assert reception.report().standing is Standing.DRAINED


def test_who_cannot_start_anew_calls_a_human_once_and_goes_on_trying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hall = hall_in(tmp_path, MigratorSettings())
    reception = committed(hall)
    lose(reception)
    started: list[str] = []

    def start(name: str) -> None:
        started.append(name)
        if len(started) < 3:
            raise CommandError("no space left on device", code="command-failed")

    for word in ("is_running", "has_container"):
        monkeypatch.setattr(podman, word, lambda _: True)
    monkeypatch.setattr(podman, "kill_and_wait", lambda _: None)
    monkeypatch.setattr(podman, "start", start)
    monkeypatch.setattr(settle, "tell_neighbours", lambda _: None)
    monkeypatch.setattr(incoming, "ask_source", lambda *_: None)
    told: list[MigrationOutcome] = []
    looking = caretaker(hall, [reception], told)
    for _ in range(2):
        looking.look()
        (call,) = told
        assert (call.phase, reception.standing) == (Phase.LOST, Standing.FALLING_BACK)
        assert "the page sink is gone; it cannot be started anew: no space left on device" in call.error
    assert not reception.ended
    looking.look()
    assert (started, reception.ended) == (["a" * 64] * 3, True)
    assert "started anew from its files" in told[1].error


def test_who_has_begun_to_go_back_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The container of before is gone by then, which is no sign that somebody has removed it."""
    hall = hall_in(tmp_path, MigratorSettings())
    reception = committed(hall)
    wanted = {"labels": {FALLBACK_LABEL: Fallback.CHECKPOINT.value}}
    facts = reception.proposal.container.model_copy(update=wanted)
    reception.proposal = reception.proposal.model_copy(update={"container": facts})
    lose(reception)
    reception._standing = Standing.FALLING_BACK
    kept, gone = SimpleNamespace(at=0.0), list[object]()
    monkeypatch.setattr(Checkpoints, "of", lambda *_: kept)
    for word in ("is_running", "has_container"):
        monkeypatch.setattr(podman, word, lambda _: False)
    monkeypatch.setattr(incoming, "ask_source", lambda *_: None)
    told: list[MigrationOutcome] = []
    looking = caretaker(hall, [reception], told)
    looking._revival = cast(Revival, SimpleNamespace(go_back=lambda _, checkpoint: gone.append(checkpoint)))
    looking.look()
    assert gone == [kept]
    assert "it went back to a checkpoint" in told[0].error


def test_a_shim_is_waited_for_by_those_that_have_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would keep the daemon from its start for seconds, and its peers call a human meanwhile."""
    asked: list[Path] = []
    monkeypatch.setattr(incoming, "_shim", asked.append)
    for method in Method:
        hall = hall_in(tmp_path / method, MigratorSettings())
        proposal = offer(method)
        hall.journal.begin(proposal.migration, Side.TARGET, "web", proposal.model_dump_json())
        (reception,) = adopted(hall, hall.journal)
        assert reception.report().standing is Standing.LOST
    assert len(asked) == len(Method) - 1
    assert not any(directory.is_relative_to(tmp_path / Method.COLD) for directory in asked)


def test_a_shim_that_is_late_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken for absent, a restored tree would be thrown away."""

    def refuse(code: str) -> None:
        def call(*_: object, **__: object) -> None:
            raise ExecutionError("no", code=code)

        monkeypatch.setattr(incoming, "ControlClient", call)

    refuse("control-absent")
    assert incoming._shim(tmp_path) is None
    refuse("control-timeout")
    with pytest.raises(ExecutionError):
        incoming._shim(tmp_path)


def test_a_commit_that_is_said_again_is_remembered_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the container could never go back: its source would know a later epoch than this host."""
    hall = hall_in(tmp_path, MigratorSettings())
    reception = Reception(hall, offer())
    hall.journal.begin("0a0a", Side.TARGET, "web", reception.proposal.model_dump_json())
    reception._standing = Standing.RESTORED
    failing = iter([ExecutionError("no answer", code="control-timeout")])

    def begin(_: int) -> None:
        for error in failing:
            raise error

    monkeypatch.setattr(reception._arrival, "open", lambda: 1.0)
    monkeypatch.setattr(reception._arrival, "hear", lambda _: None)
    monkeypatch.setattr(reception.delivery, "begin", begin)
    monkeypatch.setattr(hall.journal, "learn_epoch", fails_once(hall.journal.learn_epoch))
    with pytest.raises(ExecutionError):
        reception.commit()
    assert hall.journal.epoch("a" * 64) == 0, "both went wrong"
    reception.commit()
    assert hall.journal.epoch("a" * 64) == 1


def fails_once(learn: Callable[[str, int], None]) -> Callable[[str, int], None]:
    """Return what fails the first time, and then does it."""
    failing = iter([ExecutionError("disk I/O error", code="journal")])

    def learn_later(container: str, epoch: int) -> None:
        for error in failing:
            raise error
        learn(container, epoch)

    return learn_later


def test_who_waits_for_a_silent_source_tells_so_once_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is restored waits however long; but it runs nowhere, and nobody else may be left to say so."""
    hall = hall_in(tmp_path, MigratorSettings(reconnect_limit_s=60))
    reception = Reception(hall, offer(Method.COLD))
    hall.journal.begin("0a0a", Side.TARGET, "web", reception.proposal.model_dump_json())
    reception._standing, reception._heard_at = Standing.RESTORED, float("-inf")
    monkeypatch.setattr(Reception, "report", lambda _: Report(migration="0a0a", standing=Standing.RESTORED))
    now = [1000.0]
    monkeypatch.setattr(incoming, "time", SimpleNamespace(monotonic=lambda: now[0], time=lambda: now[0]))
    undecided = DecisionTold(migration="0a0a", decision="")
    word: list[DecisionTold | None] = [None]
    monkeypatch.setattr(incoming, "ask_source", lambda *_: word[0])
    told: list[MigrationOutcome] = []
    looking, seen = caretaker(hall, [reception], told), []
    for answer, later_s in [(None, 0), (None, 59), (None, 2), (None, 900), (undecided, 0), (None, 900), (None, 61)]:
        word[0] = answer
        now[0] += later_s
        looking.look()
        seen.append(len(told))
    assert seen == [0, 0, 1, 1, 1, 1, 2]
    assert "alpha does not answer" in told[0].error
    assert told[0].error.endswith("lifeboat recover 0a0a --resume-here --source-is-dead)")
    assert (reception.standing, reception.ended) == (Standing.RESTORED, False)
