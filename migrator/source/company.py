"""Migrations that have one decision: a container's alone, or those of all members of a pod.

Each member is a migration of its own, in a thread of its own. They wait for each other where none may go ahead:
nothing is dumped before all stand still, nothing is committed before all are restored, nothing is released before
the target needs nothing more for any. In the journal a word about one of them is the word about all.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from weakref import WeakValueDictionary

from migrator.errors import ExecutionError, JournalBusyError, LifeboatError
from migrator.model import MigrationOutcome, PodFacts
from migrator.protocol.journal import Decision, Fate, Journal
from migrator.protocol.steps import may_release
from migrator.runtime import podman, tombstone
from migrator.runtime.pods import has_pod, remove_pod

_log = logging.getLogger(__name__)

LOOK_S = 0.1  # how soon one who waits notices that something has died
ABORT_WAIT_S = 0.5
"""How long a container stands frozen for the row `abort`, which does no harm when it comes later.

It has to run 2 s after the failure, and to let go of it may take another second (`migrator.runtime.frozen`).
"""

Look = Callable[[], object]


class Stage(StrEnum):
    """Where all wait for each other."""

    PLACED = "placed"  # reserved and copied ahead, and it is their turn
    PARKED = "parked"
    TURN = "turn"  # to freeze
    STILL = "still"
    COPIED = "copied"
    RESTORED = "restored"


class Company:
    """The migrations of one pod, or the one of a lone container; safe to share between threads."""

    def __init__(self, journal: Journal, migrations: Sequence[str], kept: set[Company] | None = None) -> None:
        """The first of the migrations is the captain's, who does what is done once for all.

        `kept` takes those that know what no journal does, for as long as it does not.
        """
        self._kept = set() if kept is None else kept
        self.migrations = tuple(migrations)
        self.owed: set[str] = set()  # migrations whose containers were parked and are not all they were again
        self.lock = threading.RLock()  # of what only one of them may do at a time
        self._journal = journal
        self._changed = threading.Condition()
        self._come: dict[Stage, set[str]] = {}
        self._failed: LifeboatError | None = None
        self._provided: set[str] = set()
        self._troubled: LifeboatError | None = None
        self._commits = 0  # that were tried: each may be on disk
        self._holds: Decision | None = None  # what is on disk; nothing changes that
        self._given_up = False  # an `abort` that is on no disk

    @property
    def unwritten(self) -> bool:
        """Say whether it was given up, and no journal says so."""
        return self._given_up

    @property
    def alone(self) -> bool:
        """Say whether it is but one."""
        return len(self.migrations) == 1

    def leads(self, migration: str) -> bool:
        """Say whether this is the captain's."""
        return migration == self.migrations[0]

    @contextmanager
    def marching(self, name: str) -> Iterator[None]:
        """Let all know at once when one (its container's name) cannot go on."""
        try:
            yield
        except BaseException as error:
            code = error.code if isinstance(error, LifeboatError) else "pod-member-failed"
            temporary = isinstance(error, LifeboatError) and error.temporary
            with self._changed:
                self._failed = self._failed or ExecutionError(
                    f"{name} of its pod stays: {error}", code=code, temporary=temporary
                )
                self._changed.notify_all()
            raise

    def check(self) -> None:
        """Raise `ExecutionError` when one of them cannot go on."""
        if self._failed is not None and not self.alone:
            raise self._failed

    def meet(self, stage: Stage, migration: str, look: Look) -> float:
        """Wait until all have come to a stage; return for how long, in seconds.

        Raises when one cannot go on, and what `look` raises, which is asked again and again; but not when all have
        come meanwhile: then the others go on already, and may have committed all.
        """
        began_at = time.monotonic()
        with self._changed:
            come = self._come.setdefault(stage, set())
            come.add(migration)
            self._changed.notify_all()
        while not self._complete(come):
            try:
                self.check()
                look()
            except (LifeboatError, OSError):
                if self._withdrawn(come, migration):
                    raise
        return time.monotonic() - began_at

    def _complete(self, come: set[str]) -> bool:
        """Say whether all have come; wait a little for it."""
        with self._changed:
            return self._changed.wait_for(lambda: come >= set(self.migrations), LOOK_S)

    def _withdrawn(self, come: set[str], migration: str) -> bool:
        """Take back that one has come, for it cannot go on; False when all had come before."""
        with self._changed:
            if come >= set(self.migrations):
                return False
            come.discard(migration)
            return True

    def decide(self, word: Decision) -> Decision:
        """Write one decision for all, unless there is one; return what holds, on disk."""
        with self._changed:
            if self._holds is not None:
                return self._holds
            if word is Decision.COMMIT and self._given_up:
                return Decision.ABORT
            self._commits += word is Decision.COMMIT
        try:
            holds = self._journal.decide_all(self.migrations, word)
        except JournalBusyError:  # this one is not on disk
            with self._changed:
                self._commits -= word is Decision.COMMIT
            raise
        with self._changed:
            self._holds = holds
            self._given_up = False  # the journal says it from now on
            self._kept.discard(self)
        return holds

    def give_up(self) -> Decision:
        """As `decide` with `abort`, which holds even where no row can be written: nobody but us writes `commit`.

        Raises `LifeboatError` when that was tried: then it may be on disk, and nobody knows before it can be read.
        """
        try:
            return self._abort_soon()
        except LifeboatError as error:
            with self._changed:
                if self._holds is not None:  # it came at the last moment
                    return self._holds
                if self._commits:
                    raise
                self._given_up = True
                self._kept.add(self)
            _log.error("it is given back without a row in the journal: %s", error)
            return Decision.ABORT

    def _abort_soon(self) -> Decision:
        """As `decide` with `abort`; raises `ExecutionError` when it is not on disk soon. Later it may be."""
        done: Future[Decision] = Future()

        def write() -> None:
            try:
                done.set_result(self.decide(Decision.ABORT))
            except BaseException as error:  # noqa: BLE001  it is raised where it is waited for
                done.set_exception(error)

        threading.Thread(target=write, name="abort", daemon=True).start()
        try:
            return done.result(ABORT_WAIT_S)
        except FutureTimeoutError as error:
            why = f"the journal took no row within {ABORT_WAIT_S:g} s"
            raise ExecutionError(why, code="journal", temporary=True) from error

    def seal(self, fate: Fate) -> Fate:
        """Write one fate for all, unless there is one; return what holds, on disk."""
        return self._journal.seal_all(self.migrations, fate)

    def may_release(self, migration: str) -> bool:
        """Say whether a source may be released whose target needs nothing more of it; see `trouble`."""
        if self.alone:
            return True
        with self.lock:
            self._provided.add(migration)
            allowed = may_release(self._journal.fate(migration), self._provided, self.migrations)
            return allowed and self.seal(Fate.RELEASE) is Fate.RELEASE

    def trouble(self, error: LifeboatError) -> None:
        """One of them waits for a human."""
        self._troubled = error

    def check_trouble(self) -> None:
        """Raise `ExecutionError` when one that all wait for waits for a human."""
        if self._troubled is not None:
            raise ExecutionError(
                f"it runs at its target, but not all of its pod does: {self._troubled.message}",
                code="pod-waits",
                hint=self._troubled.hint,
            )


class Companies:
    """The companies of a host, each known as long as somebody works on one of its migrations.

    One that was given up without a row is known until there is one, or this daemon ends.
    """

    def __init__(self) -> None:
        self._kept: set[Company] = set()
        self._known: WeakValueDictionary[tuple[str, ...], Company] = WeakValueDictionary()
        self._lock = threading.Lock()

    def of(self, journal: Journal, migrations: Sequence[str]) -> Company:
        """Return the company of these migrations."""
        with self._lock:
            return self._known.setdefault(tuple(migrations), Company(journal, migrations, self._kept))


def run_together(migrations: Sequence[Callable[[], MigrationOutcome]]) -> list[MigrationOutcome]:
    """Run migrations that have one decision, side by side; return how each ended, in the same order."""
    if len(migrations) == 1:
        return [migrations[0]()]
    with ThreadPoolExecutor(len(migrations), "pod") as workers:
        return list(workers.map(lambda run: run(), migrations))


def remove_empty(state: Path, pod: PodFacts, company: Company) -> None:
    """Remove a pod when the last of its members is gone from here; its infra container was banned until now.

    Podman is asked for each member by its id, for a question about the pod would wait for those still frozen.
    """
    with company.lock:
        if any(podman.has_container(member) for member in pod.members):
            return
        remove_pod(pod.id)
        if has_pod(pod.id):
            raise ExecutionError(
                f"podman does not remove the pod {pod.name}; it stays banned from starting",
                code="remains",
                hint=f"podman pod rm --force {pod.name}",
            )
        tombstone.lift_infra(state, pod.infra)
