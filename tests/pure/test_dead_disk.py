"""A disk that takes no row, or hangs: before the commit a container runs on here, after it it is handed over."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from migrator.control import ControlServer, Message
from migrator.errors import ExecutionError, JournalBusyError
from migrator.model import Method, MigrationOutcome, Phase
from migrator.peers.client import PeerClient
from migrator.peers.membership import PeerDirectory
from migrator.peers.reach import Reach
from migrator.protocol import journal as journal_module
from migrator.protocol.journal import Decision, Journal, Side
from migrator.protocol.messages import Report, Standing
from migrator.recovery import outgoing
from migrator.recovery.by_hand import Settlement
from migrator.recovery.outgoing import SourceRecovery
from migrator.recovery.revival import Revival
from migrator.runtime import podman, tombstone
from migrator.settings import MigratorSettings
from migrator.shim.order import CONTROL
from migrator.source import company as company_module
from migrator.source import handover, holding
from migrator.source.company import Company, run_together
from migrator.source.departure import Departure
from migrator.source.holding import ParkedCheckpoint, StoppedContainer
from migrator.source.migration import Journey, SourceMigration
from migrator.target.reception import Reception
from tests.pure.cluster import make_cluster
from tests.pure.test_unforeseen import Beta, Failing, begun, made
from tests.pure.values import container

END_S = 5.0  # what takes as long has hung
JOURNAL_FAILS: Message = {"error": "disk I/O error", "code": "journal"}
SILENT: Message = {"event": "silent"}


class Shim:
    """A parked podman that says what the test wants: before it is asked, and as its answers."""

    def __init__(self, directory: Path, before: list[Message], answers: dict[str, list[Message]]) -> None:
        directory.mkdir(parents=True)
        self.heard: list[str] = []
        self._server = ControlServer(directory / CONTROL)
        self._before, self._answers = before, answers
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._over.is_set():
            message = self._server.wait(0.01)
            while self._server.connected and self._before:
                self._server.say(self._before.pop(0))
            if message is not None:
                self.heard.append(str(message["do"]))
                for answer in self._answers[self.heard[-1]]:
                    self._server.say(answer)

    def end(self) -> None:
        """Hang up."""
        self._over.set()
        self._thread.join(END_S)
        self._server.close()


Park = Callable[[list[Message], dict[str, list[Message]]], tuple[ParkedCheckpoint, Shim]]


@pytest.fixture
def park(tmp_path: Path) -> Iterator[Park]:
    """Return what parks a container whose shim says so."""
    shims: list[Shim] = []

    def do(before: list[Message], answers: dict[str, list[Message]]) -> tuple[ParkedCheckpoint, Shim]:
        shared = departure(tmp_path, Journal(tmp_path / "journal.db"))
        parked = ParkedCheckpoint(shared, "0a0a", container("web"), Method.LAZY)
        shims.append(Shim(parked.directory, before, answers))
        parked.adopt()
        return parked, shims[-1]

    yield do
    for shim in shims:
        shim.end()


@pytest.fixture
def let_go(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the scopes whose trees the daemon gives back without their shims; no tree is here after that."""
    scopes: list[str] = []
    monkeypatch.setattr(holding, "let_go", lambda scope, _: scopes.append(scope))
    monkeypatch.setattr(ParkedCheckpoint, "_seek", lambda _: None)
    return scopes


def departure(place: Path, journal: Journal) -> Departure:
    """Return what the migrations of a test share."""
    return Departure("alpha", MigratorSettings(), place, place, place, journal)


@pytest.mark.parametrize(
    ("answer", "by_shim"), [(JOURNAL_FAILS, False), ({"event": "aborted"}, True)], ids=["refused", "done"]
)
def test_what_the_shim_said_before_is_not_its_answer(
    park: Park, let_go: list[str], answer: Message, *, by_shim: bool
) -> None:
    parked, shim = park([SILENT], {"abort": [answer]})
    began_at = time.monotonic()
    parked.give_back()
    assert (shim.heard, let_go) == (["abort"], [] if by_shim else ["lifeboat-source-0a0a"])
    assert time.monotonic() - began_at < END_S


def test_a_resume_is_no_abort(park: Park, let_go: list[str]) -> None:
    parked, _ = park([SILENT, {"event": "aborted"}], {"resume": [{"event": "resumed"}]})
    parked.resume()
    assert let_go == []


def test_a_shim_is_not_asked_for_what_it_may_not_do(park: Park, let_go: list[str]) -> None:
    parked, shim = park([], {"abort": []})  # its disk hangs
    parked.give_back_unwritten()
    assert (shim.heard, let_go) == ([], ["lifeboat-source-0a0a"])


class Disk:
    """The decisions of a journal, while its disk takes none."""

    def __init__(self, journal: Journal) -> None:
        self.dead = True
        self._decide = journal.decide_all
        setattr(journal, "decide_all", self.decide_all)  # noqa: B010  a method
        self.tried = 0

    def decide_all(self, migrations: tuple[str, ...], word: Decision) -> Decision:
        """See `Journal.decide_all`."""
        self.tried += 1
        if self.dead:
            raise ExecutionError("disk I/O error", code="journal", temporary=True)
        return self._decide(migrations, word)


class InFreeze(Failing):
    """One whose disk dies when it stands still."""

    def _freeze_and_restore(self) -> None:
        self._taking_back.owe()
        self._undo.callback(self._taking_back.attempt)
        raise ExecutionError("disk I/O error", code="journal")


def test_what_was_given_up_without_a_row_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its container is given back as soon as that can be done, though the disk takes no row; once."""
    alpha, _ = make_cluster(tmp_path / "etc", "alpha", "beta")
    journal = Journal(tmp_path / "journal.db")
    migration = begun(InFreeze, tmp_path, journal, "")
    shared, disk, deeds = migration._shared, Disk(journal), list[str]()
    failing = iter([ExecutionError("it stands frozen here", code="still-frozen")])

    def give_back(_: object) -> None:
        for error in failing:
            raise error
        deeds.append("unwritten" if disk.dead else "written")

    monkeypatch.setattr(StoppedContainer, "give_back", give_back)
    assert migration.run().error_code == "not-taken-back"
    del migration
    gc.collect()
    (entry,) = journal.entries(unfinished=True)
    looks = iter([*[True] * 3, False])

    def sleep(_: float) -> None:
        disk.dead = next(looks)

    monkeypatch.setattr(outgoing, "time", SimpleNamespace(sleep=sleep))
    outcomes: list[MigrationOutcome] = []
    recovery = SourceRecovery(shared, entry, alpha)
    recovery.run(outcomes.append, lambda _: None)
    assert deeds == ["unwritten", "written"]
    assert [outcome.phase for outcome in outcomes] == [Phase.ABORTED]
    assert journal.decision("0a0a") is Decision.ABORT
    assert not shared.companies._kept, "nobody has to remember it any more"


def test_what_runs_again_without_a_row_is_not_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its target asks for the row; so somebody has to write it."""
    journal = Journal(tmp_path / "journal.db")
    monkeypatch.setattr(StoppedContainer, "give_back", lambda _: None)
    migration = begun(InFreeze, tmp_path, journal, "")
    Disk(journal)
    assert migration.run().phase is Phase.ABORTED
    assert [entry.migration for entry in journal.entries(unfinished=True)] == ["0a0a"]


def test_what_runs_since_it_was_given_up_is_not_given_back_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An admin may have stopped or paused it since, and somebody has heard how it ended."""
    alpha, _ = make_cluster(tmp_path / "etc", "alpha", "beta")
    journal, deeds = Journal(tmp_path / "journal.db"), list[str]()
    monkeypatch.setattr(StoppedContainer, "give_back", lambda _: deeds.append("given back"))
    migration = begun(InFreeze, tmp_path, journal, "")
    disk = Disk(journal)
    first = migration.run()
    (entry,) = journal.entries(unfinished=True)
    disk.dead = False
    outcomes: list[MigrationOutcome] = []
    SourceRecovery(migration._shared, entry, alpha).run(outcomes.append, lambda _: None)
    assert (deeds, outcomes) == (["given back"], [])
    settled = journal.entry("0a0a")
    assert settled is not None
    assert settled.settled
    assert settled.outcome is not None
    assert (settled.outcome.phase, settled.outcome.error) == (Phase.ABORTED, first.error)


def test_a_word_that_holds_is_not_asked_of_the_disk_again(tmp_path: Path) -> None:
    """A commit that was tried, and refused for an abort, keeps nobody from giving the container back."""
    journal = Journal(tmp_path / "journal.db")
    company = Company(journal, ("0a0a",))
    journal.decide("0a0a", Decision.ABORT)
    assert company.decide(Decision.COMMIT) is Decision.ABORT
    disk = Disk(journal)
    assert company.give_up() is Decision.ABORT
    assert (disk.tried, company.unwritten) == (0, False)


def refuse(*_: object, **__: object) -> None:
    """Be a disk that takes nothing."""
    raise ExecutionError("disk I/O error", code="journal", temporary=True)


class Committed(Failing):
    """One whose disk takes the commit, and then no row of the kind that the test says; a target hears of it."""

    told = False

    def _tell(self) -> None:
        self.told = True

    def _commit(self) -> None:
        self.handover.tell = self._tell  # type: ignore[method-assign]
        self.handover.run = lambda: None  # type: ignore[method-assign]
        self._undo.pop_all()
        self.company.decide(Decision.COMMIT)
        setattr(self._shared.journal, self.where, refuse)
        if self.where == "decide_all":
            raise OSError("no file descriptor")


@pytest.mark.parametrize("word", ["learn_epoch", "decide_all"])
def test_a_commit_that_is_on_disk_is_told_whatever_the_disk_does_then(tmp_path: Path, word: str) -> None:
    migration = made(Committed, tmp_path, Journal(tmp_path / "journal.db"))
    migration.where = word
    assert migration.run().phase is Phase.DONE
    assert migration.told


def committed(place: Path, monkeypatch: pytest.MonkeyPatch) -> SourceRecovery:
    """Return a migration that an earlier daemon committed, and of which it wrote nothing more."""
    alpha, _ = make_cluster(place / "etc", "alpha", "beta")
    journal = Journal(place / "journal.db")
    journal.learn_epoch("web", 2)
    journey = Journey(container=container("web"), target="beta", method=Method.COLD, epoch=3)
    journal.begin("0a0a", Side.SOURCE, "web", journey.model_dump_json())
    journal.decide("0a0a", Decision.COMMIT)
    (entry,) = journal.entries()
    for word in ("leave", "lift"):
        monkeypatch.setattr(tombstone, word, lambda *_: None)
    monkeypatch.setattr(podman, "remove_container", lambda _: None)
    monkeypatch.setattr(podman, "has_container", lambda _: False)
    monkeypatch.setattr(handover, "POLL_S", 0.01)
    monkeypatch.setattr(outgoing, "AGAIN_S", 0.01)
    return SourceRecovery(departure(place, journal), entry, alpha)


class Drained:
    """A target that needs nothing more."""

    name = "beta"

    def call(self, *_: object, **__: object) -> Report:
        """See `PeerClient.call`."""
        return Report(migration="0a0a", standing=Standing.DRAINED)


def test_a_committed_one_is_followed_while_the_disk_takes_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recovery = committed(tmp_path, monkeypatch)
    followed: list[bool] = []
    journal = recovery._shared.journal
    monkeypatch.setattr(journal, "decide_all", refuse)
    monkeypatch.setattr(recovery.migration.handover, "follow", lambda _: followed.append(True))
    recovery.run(lambda _: None, pytest.fail)
    assert followed == [True]


def test_nothing_is_released_before_its_epoch_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or it was lost for ever, with the migration."""
    recovery = committed(tmp_path, monkeypatch)
    journal, deeds = recovery._shared.journal, list[str]()
    monkeypatch.setattr(recovery.migration.handover, "_target", Drained())
    monkeypatch.setattr(StoppedContainer, "release", lambda _: deeds.append("released"))
    learn, failing = journal.learn_epoch, iter([True])

    def learn_later(name: str, epoch: int) -> None:
        for _ in failing:
            refuse()
        deeds.append("learned")
        learn(name, epoch)

    monkeypatch.setattr(journal, "learn_epoch", learn_later)
    outcomes: list[MigrationOutcome] = []
    recovery.run(outcomes.append, pytest.fail)
    assert (deeds, journal.epoch("web")) == (["learned", "released"], 3)
    assert [(outcome.phase, outcome.error_code) for outcome in outcomes] == [
        (Phase.LOST, "journal"),
        (Phase.DONE, ""),
    ]


def test_what_a_human_throws_away_leaves_its_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recovery = committed(tmp_path, monkeypatch)
    shared = recovery._shared
    settlement = Settlement(
        shared, cast(PeerDirectory, None), cast(Callable[[str], Reception], None), cast(Revival, None)
    )
    settlement._throw_away(recovery)
    assert shared.journal.epoch("web") == 3


@contextmanager
def hanging(journal: Journal) -> Iterator[None]:
    """Let a thread have the journal, as one does whose disk hangs."""
    had, over = threading.Event(), threading.Event()

    def hang() -> None:
        with journal._lock:
            had.set()
            over.wait(4 * END_S)

    thread = threading.Thread(target=hang, daemon=True)
    thread.start()
    had.wait(END_S)
    try:
        yield
    finally:
        over.set()
        thread.join(END_S)


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """Begin a piece of work."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


class Restoring:
    """A target that restores at once."""

    name = "beta"

    def call(self, *_: object, **__: object) -> Report:
        """See `PeerClient.call`."""
        return Report(migration="0a0a", standing=Standing.RESTORED)


class Reached(nullcontext[None]):
    """It can be reached."""

    def check(self) -> None:
        """See `Reach`."""


class Hangs(Failing):
    """One whose disk hangs from the freeze on, or from the commit on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reach = cast(Reach, Reached())
        self._target = cast(PeerClient, Restoring())
        self.disk = ExitStack()

    def _hang(self) -> None:
        self.disk.enter_context(hanging(self._shared.journal))

    def _prepare(self) -> None:
        self._taking_back.owe()
        self._undo.callback(self._taking_back.attempt)

    def _freeze(self) -> tuple[ThreadPoolExecutor, list[Future[bool]]]:
        if self.where == "freeze":
            self._hang()
        return ThreadPoolExecutor(2), []

    def _freeze_and_restore(self) -> None:
        SourceMigration._freeze_and_restore(self)

    def _commit(self) -> None:
        self._hang()
        SourceMigration._commit(self)


@pytest.mark.parametrize("where", ["freeze", "commit"])
def test_a_disk_that_hangs_before_the_commit_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    back = threading.Event()
    monkeypatch.setattr(StoppedContainer, "check_silent", lambda _: None)
    monkeypatch.setattr(StoppedContainer, "give_back", lambda _: back.set())
    monkeypatch.setattr(journal_module, "LOCK_WAIT_S", 0.5)
    monkeypatch.setattr(journal_module, "DECISION_WAIT_S", 0.5)
    migration = made(Hangs, tmp_path, Journal(tmp_path / "journal.db"))
    migration.where = where
    outcomes: list[MigrationOutcome] = []
    with migration.disk:
        thread = in_thread(lambda: outcomes.append(migration.run()))
        assert back.wait(END_S), "it stands frozen for a disk"
        thread.join(END_S)
    assert [outcome.phase for outcome in outcomes] == [Phase.ABORTED]
    assert migration.company.decide(Decision.COMMIT) is Decision.ABORT


def test_a_journal_that_is_not_had_in_time_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "LOCK_WAIT_S", 0.05)
    journal = Journal(tmp_path / "journal.db")
    with hanging(journal), pytest.raises(JournalBusyError) as busy:
        journal.learn_epoch("web", 7)
    assert (busy.value.code, busy.value.temporary, journal.epoch("web")) == ("journal", True, 0)
    journal.learn_epoch("web", 7)
    assert journal.epoch("web") == 7


def impatient(place: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Journal, Company]:
    """Return a journal that is not waited for, and two members that write to it."""
    monkeypatch.setattr(journal_module, "DECISION_WAIT_S", 0.05)
    monkeypatch.setattr(company_module, "ABORT_WAIT_S", 0.1)
    journal = Journal(place / "journal.db")
    return journal, Company(journal, ("one", "two"))


def test_a_commit_that_a_disk_has_begun_to_write_is_never_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of a pod waits for the disk that hangs, another one for the journal: nobody gives anything back."""
    _, company = impatient(tmp_path, monkeypatch)
    begun_to, over = threading.Event(), threading.Event()
    first_word = journal_module._word

    def word(*args: Any) -> str:
        begun_to.set()
        over.wait(END_S)
        return first_word(*args)

    monkeypatch.setattr(journal_module, "_word", word)
    thread = in_thread(lambda: company.decide(Decision.COMMIT))
    assert begun_to.wait(END_S)
    with pytest.raises(JournalBusyError):
        company.decide(Decision.COMMIT)
    with pytest.raises(ExecutionError):
        company.give_up()
    assert not company.unwritten
    over.set()
    thread.join(END_S)
    assert company.give_up() is Decision.COMMIT


def test_who_could_not_give_up_for_another_one_s_commit_is_taken_back_when_that_was_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, company = impatient(tmp_path, monkeypatch)
    company._commits = 1  # the other one's, that waits for the journal
    with hanging(journal):
        with pytest.raises(ExecutionError):
            company.give_up()
        company._commits = 0
        assert company.give_up() is Decision.ABORT
    assert company.unwritten


class Member(SourceMigration):
    """A member of a pod that is ready for its place."""

    def _prepare(self) -> None:
        self._wait_for_place()


def test_a_member_that_is_not_even_begun_lets_no_other_wait(tmp_path: Path) -> None:
    """The others would hold their claims, and a place in line, for ever."""
    journal = Journal(tmp_path / "journal.db")
    shared, begin = departure(tmp_path, journal), journal.begin
    together = {"0a0a": "web", "0b0b": "talker"}

    def begin_one(migration: str, *words: Any) -> None:
        if migration == "0b0b":
            refuse()
        begin(migration, *words)

    setattr(journal, "begin", begin_one)  # noqa: B010  a method
    members = [
        Member(
            shared,
            migration=migration,
            container=container(name),
            target=cast(PeerClient, Beta()),
            method=Method.COLD,
            observe=lambda _: None,
            company=tuple(together),
        )
        for migration, name in together.items()
    ]
    for member in members:  # what else it asks while it waits
        member._go_on = member.company.check  # type: ignore[method-assign]
    outcomes: list[MigrationOutcome] = []
    thread = in_thread(lambda: outcomes.extend(run_together([member.run for member in members])))
    thread.join(END_S)
    assert not thread.is_alive()
    assert [(outcome.phase, outcome.error_code) for outcome in outcomes] == [(Phase.ABORTED, "journal")] * 2
    assert "talker of its pod stays" in outcomes[0].error
