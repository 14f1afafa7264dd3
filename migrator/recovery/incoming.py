"""Settles what nobody else will: incoming migrations whose source has gone quiet, or whose daemon has died.

A source that is alive brings its migrations to an end. When it is silent, what may be done here follows from
what was journalled: before the restore the container cannot have been committed, so it may be cleared away;
a restored one only waits, however long, for the source's decision, and a human hears of it; a committed one is
ours. A committed one whose memory will not come falls back as its setting or label says. What follows from what is
in migrator.protocol.steps.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from migrator.control import ControlClient
from migrator.errors import LifeboatError, failure
from migrator.model import ContainerFacts, Fallback, Method, MigrationOutcome, Phase
from migrator.peers.client import PeerClient
from migrator.peers.membership import PeerDirectory
from migrator.protocol.journal import Decision, Journal, Side
from migrator.protocol.messages import DecisionTold, Proposal, Standing
from migrator.protocol.steps import Step, next_step
from migrator.recovery.revival import Revival, told_of
from migrator.settings import MigratorSettings
from migrator.shim.order import CONTROL, HANDED_OVER
from migrator.target.arrival import SHIM_AGAIN_S
from migrator.target.checkpoints import Kept
from migrator.target.hall import Hall
from migrator.target.reception import Reception
from migrator.vital import vital_thread

LOOK_S = 3.0
QUIET_S = 10.0  # a source that is at work is heard more often, but for long copies
FORGET_S = 600.0  # an ended migration still answers its source for so long
PEER_WAIT_S = 10.0
FALLBACK_LABEL = "lifeboat.fallback"
LOSS, SILENCE, DOUBT = "loss", "silence", "doubt"  # what a human is told of, once each
NEED_REMAINS = frozenset({Standing.LOST, Standing.FALLING_BACK})

_log = logging.getLogger(__name__)


class Caretaker:
    """Looks after the receptions of a host, in a thread of its own."""

    def __init__(
        self,
        hall: Hall,
        peers: PeerDirectory,
        receptions: Callable[[], Sequence[Reception]],
        forget: Callable[[str], None],
        *,
        tell: Callable[[MigrationOutcome], None],
        revival: Revival,
    ) -> None:
        """`tell` takes a migration whose memory was lost here, for nobody else may be left to say so."""
        self._revival = revival
        self._hall = hall
        self._tell = tell
        self._told: set[tuple[str, str]] = set()  # of which migration, and what
        self._silent_since: dict[str, float] = {}  # restored ones that nobody decides, by time.monotonic()
        self._peers = peers
        self._receptions = receptions
        self._forget = forget

    def start(self) -> None:
        """Begin to look."""
        vital_thread("caretaker", self._run).start()

    def look(self) -> None:
        """Settle what can be settled now; one that fails is looked at again later."""
        for reception in self._receptions():
            try:
                take_up(reception)
                self._settle(reception)
            except Exception as raised:  # noqa: BLE001  one that nobody can settle keeps no other from it
                _log.warning("migration %s: %s", reception.proposal.migration, failure(raised))
        self._hall.stagings.expire(time.time())
        self._hall.checkpoints.expire(time.time())

    def _run(self) -> None:
        while True:
            time.sleep(LOOK_S)
            self.look()

    def _settle(self, reception: Reception) -> None:
        quiet_s, migration = reception.quiet_s, reception.proposal.migration
        reception.record.finish()
        if reception.ended:
            self._silent_since.pop(migration, None)
            if quiet_s > FORGET_S:
                self._forget(migration)
            return
        report = reception.report()
        if quiet_s < QUIET_S and report.standing is not Standing.LOST:
            self._mind_silence(reception, silent=False)
            return
        if report.unwritten:
            self._call(reception, report.unwritten)  # the source would have, if it were heard
        told = ask_source(self._peers, reception.proposal) or self._recorded(reception.proposal)
        patient = quiet_s < self._hall.settings.reconnect_limit_s
        if report.standing is Standing.DRAINED and not all(map(_is_there, self._fellows(reception))):
            patient = True  # or the source's original would be needed for half a pod
        step = next_step(
            report.standing,
            self._hall.journal.decision(migration),
            told,
            patient=patient,
            remains=report.standing not in NEED_REMAINS
            or self._asked(reception, report.reason, lambda: reception.remains),
            opened=reception.may_have_spoken,
            durable=reception.record.was_written,
        )
        if report.standing is Standing.RESTORED and step is Step.WAIT:
            self._mind_silence(reception, silent=told is None)
        self._take(step, reception, report.reason, told)

    def _mind_silence(self, reception: Reception, *, silent: bool) -> None:
        """A restored tree waits for its source, however long; a human hears once of each silence that lasts."""
        proposal, migration = reception.proposal, reception.proposal.migration
        if not silent:
            self._silent_since.pop(migration, None)
            self._told.discard((migration, SILENCE))
            return
        now = time.monotonic()
        silent_s = min(reception.quiet_s, now - self._silent_since.setdefault(migration, now))
        if silent_s < self._hall.settings.reconnect_limit_s:
            return
        why = f"it is restored here, but {proposal.source} does not answer, which alone knows whose it is; it waits"
        recover = f"lifeboat recover {migration} --resume-here --source-is-dead"
        hint = f"when {proposal.source} is dead for sure: {recover}"
        self._call(reception, f"{why} ({hint})", SILENCE)

    def _take(self, step: Step, reception: Reception, reason: str, told: DecisionTold | None) -> None:
        if step is not Step.WAIT:
            _log.info("migration %s: %s", reception.proposal.migration, step)
        if step is Step.COMMIT:
            reception.commit()
        elif step is Step.COMPLETE:
            reception.complete()
        elif step is Step.ABORT and told is None:
            reception.abandon(reason or "its source is gone")
        elif step is Step.ABORT:
            reception.abort(reason or "its source aborted it")
        elif step is Step.YIELD:
            reception.give_way()
        elif step in (Step.FALL_BACK, Step.CALL_A_HUMAN):
            self._lose(reception, reason, step)

    def _lose(self, reception: Reception, reason: str, step: Step) -> None:
        container = reception.proposal.container
        begun = reception.standing is Standing.FALLING_BACK  # perhaps nothing is here any more
        fallback = self._fallback(reception) if begun or step is Step.FALL_BACK else Fallback.STAY
        kept = self._hall.checkpoints.of(container.id) if fallback is Fallback.CHECKPOINT else None
        if begun and kept is None:
            fallback = Fallback.COLD  # as a human wanted, or because there is nothing else to go back to
        goes_back = begun and kept is not None
        if not goes_back and self._asked(reception, reason, lambda: reception.given_up):
            reception.lose()
        elif (fallback is Fallback.COLD or kept is not None) and not reception.delivery.files_are_safe():
            if reception.delivery.trouble:
                self._call(reception, f"{reason}; {reception.delivery.trouble}")
        elif fallback is Fallback.COLD:
            self._start_anew(reception, reason)
        elif kept is not None:
            self._go_back(reception, reason, kept)
        else:
            self._call(reception, reason)

    def _asked(self, reception: Reception, reason: str, question: Callable[[], bool]) -> bool:
        """Ask podman about what was lost here; it stays lost until podman answers, and a human is told so."""
        try:
            return question()
        except LifeboatError as error:
            if reception.record.decision is Decision.COMMIT:
                self._call(reception, f"{reason}; whether it is still here is not known: {error}", DOUBT)
            raise

    def _start_anew(self, reception: Reception, reason: str) -> None:
        try:
            for fellow in self._fellows(reception):
                fellow.fell()
            reception.fall_back()
        except LifeboatError as error:
            self._call(reception, f"{reason}; it cannot be started anew: {error}; see: lifeboat recover")
            raise
        what = f"{reason}; started anew from its files; see: lifeboat show {reception.proposal.migration}"
        self._tell(reception.record.outcome(Phase.LOST, what))

    def _fallback(self, reception: Reception) -> Fallback:
        """Return what is to be done; a pod starts anew as a whole or not at all, and goes back to no checkpoint."""
        own = fallback_of(reception.proposal.container, self._hall.settings)
        if reception.proposal.container.pod is None:
            return own
        fellows = self._fellows(reception)
        wanted = {own, *(fallback_of(item.proposal.container, self._hall.settings) for item in fellows)}
        return Fallback.COLD if wanted == {Fallback.COLD} else Fallback.STAY

    def _fellows(self, reception: Reception) -> list[Reception]:
        """Return the receptions of the other members of its pod."""
        others = set(reception.proposal.together) - {reception.proposal.migration}
        return [item for item in self._receptions() if item.proposal.migration in others]

    def _call(self, reception: Reception, reason: str, about: str = LOSS) -> None:
        """Call a human, once about each."""
        told = (reception.proposal.migration, about)
        if told not in self._told:
            self._told.add(told)
            self._tell(reception.record.outcome(Phase.LOST, reason))

    def _go_back(self, reception: Reception, reason: str, kept: Kept) -> None:
        """Let it go back; a host that refuses it now is asked again at the next look, and tells so once."""
        migration = reception.proposal.migration
        what = f"{reason}; it went back to {told_of(kept)}; see: lifeboat show {migration}"
        try:
            self._revival.go_back(reception, kept)
        except LifeboatError as error:
            if not reception.ended and (migration, LOSS) in self._told:
                return
            self._told.add((migration, LOSS))
            what = f"{reason}; it could not go back to {told_of(kept)}: {error}; see: lifeboat recover {migration}"
        self._tell(reception.record.outcome(Phase.LOST, what))

    def _recorded(self, proposal: Proposal) -> DecisionTold | None:
        """Return what a registry remembers of a source that is gone; None when it remembers nothing."""
        word = self._hall.registry.decision(proposal.migration, proposal.source, self._hall.host)
        return DecisionTold(migration=proposal.migration, decision=word) if word else None


def _is_there(reception: Reception) -> bool:
    """Say whether nothing more is needed of the source for it."""
    standing = reception.standing if reception.ended else reception.report().standing
    return standing in (Standing.DRAINED, Standing.COMPLETE)


def ask_source(peers: PeerDirectory, proposal: Proposal) -> DecisionTold | None:
    """Ask the source of an incoming migration what it decided; None when it does not answer."""
    path = f"/v1/migrations/{proposal.migration}/decision"
    try:
        client = PeerClient(peers.peer(proposal.source), peers.pki)
        return client.call("GET", path, None, DecisionTold, timeout_s=PEER_WAIT_S)
    except LifeboatError:
        return None


def fallback_of(container: ContainerFacts, settings: MigratorSettings) -> Fallback:
    """Return what is to be done when the memory of this container is lost: its label, or else the setting."""
    said = container.labels.get(FALLBACK_LABEL, settings.fallback)
    return Fallback(said) if said in set(Fallback) else settings.fallback


def adopted(hall: Hall, journal: Journal) -> list[Reception]:
    """After a restart: return the incoming migrations that have no end yet, joined to what lived on."""
    found = []
    for entry in journal.entries(unfinished=True):
        if entry.side is not Side.TARGET:
            continue
        reception = Reception(hall, Proposal.model_validate_json(entry.request), adopted=False)
        try:
            take_up(reception)
        except (LifeboatError, OSError) as error:  # the caretaker tries it again
            _log.error("migration %s cannot be taken up yet: %s", entry.migration, error)
        found.append(reception)
    return found


def take_up(reception: Reception) -> None:
    """Join a reception to what lived on of it, unless that is done; until then nobody hears how it stands."""
    if reception.adopted:
        return
    parked = reception.proposal.method is not Method.COLD  # what is created anew has no shim to be waited for
    shim = _shim(reception.directory) if parked else None
    try:
        reception.adopt(shim)
    except BaseException:
        if shim is not None and not reception.adopted:
            shim.close()
        raise


def _shim(directory: Path) -> ControlClient | None:
    if not directory.exists() or (directory / HANDED_OVER).exists():
        return None  # this host was down, or nobody is there any more; each would be waited for
    try:
        return ControlClient(directory / CONTROL, timeout_s=SHIM_AGAIN_S, what="the parked podman")
    except LifeboatError as error:
        if error.code == "control-timeout":  # it is there, and late
            raise
        return None
