"""The daemon as a whole: its parts, its tick."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from migrator.engine import Engine
from migrator.errors import ExecutionError, PrerequisiteError
from migrator.health import Health, Lead, Verdict
from migrator.model import EvacuationPlan, Method, MigrationOutcome
from migrator.peers.membership import PeerDirectory
from migrator.vital import unbroken
from watchdog.alerts.deliver import Deliverer
from watchdog.alerts.enduring import EnduringOutbox
from watchdog.daemon.bell import Bell
from watchdog.daemon.drill import Drill, is_drill
from watchdog.daemon.evacuation import migration_end
from watchdog.daemon.evacuations import Evacuations
from watchdog.daemon.flags import FlagFile
from watchdog.daemon.heartbeat import notify
from watchdog.daemon.jobs import Job, Jobs
from watchdog.daemon.judgement import Judgement, RulePlaces
from watchdog.daemon.ledger import Ledger
from watchdog.daemon.losses import Losses
from watchdog.daemon.order import Cause, Order
from watchdog.daemon.peering import Peering
from watchdog.daemon.places import Places
from watchdog.daemon.probing import probe
from watchdog.daemon.readiness import Readiness
from watchdog.daemon.readings import Readings
from watchdog.daemon.storm_watch import StormWatch
from watchdog.daemon.telling import Telling
from watchdog.daemon.warm_up import WarmUp
from watchdog.policy.evaluate import Assessment
from watchdog.policy.model import Policy
from watchdog.policy.nearness import nearness
from watchdog.settings import Settings, own_name
from watchdog.signals.model import Reading
from watchdog.signals.monitor import SignalMonitor
from watchdog.signals.readers import readers_of_host
from watchdog.state import Action, Circumstances, Decision, HostState, decide
from watchdog.storm import storm

LEAD_S = {Lead.DAYS: 86400.0, Lead.MINUTES: 300.0, Lead.SECONDS: 30.0}
"""How long a host lasts at the least when a rule says days, minutes or seconds: plans must fit in it."""

_log = logging.getLogger("lifeboatd")


@dataclass
class Daemon:
    """Everything that runs; the admin API and the tick both work on it."""

    settings: Settings
    places: Places = field(default_factory=Places)
    losses: Losses = field(default_factory=Losses)

    def __post_init__(self) -> None:
        self.members = PeerDirectory(self.places.directory)
        self.host = self.members.host if self.members.joined else own_name()
        self.flags = FlagFile(self.places.state / "flags.json")
        signals = self.settings.signals
        self.bell = Bell()
        rules = RulePlaces(self.places.shipped, self.places.local)
        self.judgement = Judgement(rules, signals, self.places.state, self.flags)
        self.ledger = Ledger(self.places.state / "ledger.json")
        self.deliverer = Deliverer(EnduringOutbox(self.places.state / "outbox.db"), self.settings.alerts)
        self._alert = unbroken(self.deliverer.send)  # what cannot be told ends no work
        self.telling = Telling(lambda: self.host, self.flags, self._alert)
        self.monitor = SignalMonitor(
            readers_of_host(signals, self.readings.remembered(time.time()), self.places.state), self._take
        )
        self.jobs = Jobs()
        self.readiness = Readiness(self.settings.evacuation.check_s, self.telling.readiness)
        self.engine: Engine | None = None
        self.sentence = "starting"
        self._peering: Peering | None = None
        self._shut = ""  # why there is no engine, though this host belongs to a cluster
        self._unrecovered: Engine | None = None  # to begin what a daemon before has left
        self.evacuations = Evacuations(
            self.jobs,
            self.settings.evacuation,
            self.settings.migrator,
            self.places.state,
            self._alert,
            losses=self.losses,
        )
        self.drill = Drill(lambda: self.readings)
        self.drill.clear()
        self.warm_up = WarmUp(self.settings.evacuation.warm_up_s, self.settings.evacuation.checkpoint_s)
        self.storm_watch = StormWatch(self.settings.evacuation.storm_poll_s)
        self._stop_wanted = self._reload_wanted = False  # set by signal handlers, which may take no lock
        self._done: set[tuple[HostState, Action]] = set()  # of a decision that is not carried out to its end yet

    @property
    def assessment(self) -> Assessment:
        """Return the newest judgement of this host."""
        return self.judgement.assessment

    @property
    def policy(self) -> Policy:
        """Return the rules in force."""
        return self.judgement.policy

    @property
    def readings(self) -> Readings:
        """Return what the hardware told."""
        return self.judgement.readings

    def start(self) -> None:
        """Start all parts and take up what an earlier daemon left; returns when the host is ready."""
        self.deliverer.start()
        self._join_cluster()
        self.monitor.start()

    def run(self) -> None:
        """Tick until told to stop: at new readings, and at least every `tick_s`."""
        while not self._stop_wanted:
            self.bell.wait(self.settings.evacuation.tick_s)
            if self._reload_wanted:
                self._reload_wanted = False
                self.reload()
            try:
                self.tick()
            except Exception:  # noqa: BLE001  the tick: one bad cycle must not end the watch
                _log.exception("the tick failed")
            notify(WATCHDOG="1", STATUS=self.sentence)

    def stop_soon(self) -> None:
        """Let `run` return; may be called by a signal handler."""
        self._stop_wanted = True
        self.bell.ring()

    def reload_soon(self) -> None:
        """Let `run` read the policies anew; may be called by a signal handler."""
        self._reload_wanted = True
        self.bell.ring()

    def stop(self) -> None:
        """Stop; what lives in scopes of its own goes on."""
        self.monitor.stop()
        if self._peering is not None:
            self._peering.stop()
        self.deliverer.stop()
        self.readings.close()

    def tick(self) -> None:
        """Read, evaluate, act, say one sentence."""
        self._join_cluster()
        before = self.flags.flags
        self.judgement.assess()
        circumstances = self._circumstances()
        decision = decide(before.state, self.assessment, circumstances)
        if decision.sentence != self.sentence:
            _log.info("%s", decision.sentence)
        self.sentence = decision.sentence
        self._carry_out(decision)
        told = Action.ALERT in decision.actions
        self.judgement.tell_fired(self.host, self._alert, verdict_told=told)
        self.telling.blindness(self.assessment.blind)
        if self.engine is not None and self.flags.flags.state is HostState.HEALTHY:
            self.readiness.tick(self.engine.examine)
        self._warm_up(circumstances)
        if circumstances.permitted and self.assessment.verdict is Verdict.FAILING and not is_drill(self.assessment):
            self._keep_up()
        self._survey()
        for file in (self.flags.file, self.ledger.file, self.evacuations.order_file.file):
            file.keep_again()

    def _carry_out(self, decision: Decision) -> None:
        """Do what was decided, and only then be in the state that follows; a failure is tried at the next tick."""
        for action in decision.actions:
            if (decision.state, action) not in self._done:
                self._act(action)
                self._done.add((decision.state, action))
        if decision.state is not self.flags.flags.state:
            self.flags.change(state=decision.state)
        self._done.clear()

    def _warm_up(self, circumstances: Circumstances) -> None:
        """Copy ahead; a failing host does so, too, when it may not evacuate itself, and an admin may order it."""
        if self.engine is not None:
            state = self.flags.flags.state
            waits = state is not HostState.FAILING or bool(circumstances.hindrance)
            idle = waits and not (circumstances.paused or self.evacuations.running)
            self.warm_up.tick(self.engine, state, self.plan, permitted=idle)

    def _circumstances(self) -> Circumstances:
        return Circumstances(
            automatic=self.settings.evacuation.automatic,
            paused=self.flags.flags.paused,
            clustered=self.engine is not None,
            shut=self._shut,
            surveyed=self.storm_watch.latest is not None,
            storm=self._storm(),
            evacuation_ended=not self.evacuations.running,
        )

    def _survey(self) -> None:
        """Ask the other hosts how they are, while this one is failing: many at once are a storm."""
        if self.assessment.verdict is not Verdict.FAILING:
            self.storm_watch.forget()
        elif self.engine is not None:
            self.storm_watch.look(self.engine.survey, self.bell.ring)

    def _storm(self) -> str:
        """Return why nothing may be moved on signals alone, empty when nothing speaks against it.

        Once tripped it stays so, over restarts too, until an admin resets it.
        """
        survey, flags = self.storm_watch.latest, self.flags.flags
        if flags.storm or survey is None or self.assessment.verdict is not Verdict.FAILING:
            return flags.storm
        known = 1 + len(survey.healths) + len(survey.silent)
        own_s, calm_s = time.monotonic() - self.judgement.verdict_at, time.time() - flags.storm_reset_at
        reason = storm(own_s, survey.healths, known, self.settings.evacuation.storm_limits, calm_s)
        if reason:
            self.flags.change(storm=reason)
            self.telling.storm(reason)
        return reason

    def _take(self, readings: Sequence[Reading]) -> None:
        """Take new readings from a reader's thread, and have them judged at once."""
        self.readings.take(readings)
        self.bell.ring()

    def evacuate(self, order: Order) -> Job:
        """Begin to empty this host, or return the evacuation under way; it takes no containers from then on."""
        engine = self.moving()
        if order.cause is not Cause.DRILL:
            self.flags.change(cordoned=True)  # until an admin says otherwise
        job = self.evacuations.begin(self.host, engine, order)
        self._say_trouble(job)
        if order.cause is Cause.DRILL:
            self.drill.began(job)
        if order.cause is Cause.VERDICT and not order.again:
            acting = self.assessment.acting
            rules = [state.rule.id for state in acting]
            self.ledger.began(job.id, rules, [state.device.name for state in acting])
        return job

    def cancel(self) -> Job:
        """Stop the evacuation under way; what is not committed goes back.

        A host that is still failing would begin anew, so it is paused until an admin resumes it.
        """
        job = self.evacuations.cancel()
        if self.assessment.verdict is Verdict.FAILING:
            self.flags.change(paused=True)
            self._say_trouble(job)
        return job

    def _say_trouble(self, job: Job) -> None:
        """Tell whoever follows a job what a restart of the daemon may forget of it."""
        for file in (self.flags.file, self.evacuations.order_file.file):
            if file.trouble:
                job.say({"message": f"{file.path.name}: {file.trouble}"})

    def plan(self, method: Method | None = None, *, everything: bool = False) -> EvacuationPlan:
        """Return what this host would do by itself now, or what an order to move everything would do."""
        order = self._order().model_copy(update={"method": method})
        whole = order.model_copy(update={"devices": ()})
        return self.evacuations.plan(self.moving(), whole if everything else order)

    def _order(self) -> Order:
        """Return what the verdict orders: everything, or only what is lost with the devices it rests on."""
        devices = self.assessment.affected
        return Order(cause=Cause.VERDICT, devices=devices, time_left_s=self._time_left_s())

    def _time_left_s(self) -> float | None:
        """Return how long this host usually lasts from now, by what fired; None when nothing did."""
        lead = self.assessment.lead
        if self.assessment.verdict is not Verdict.FAILING or lead is None:
            return None
        return max(0.0, LEAD_S[lead] - (time.monotonic() - self.judgement.verdict_at))

    def _keep_up(self) -> None:
        """When more is failing than the latest evacuation was for, begin another at once; an old one ends early.

        Otherwise look now and then whether somebody can take by now what was left.
        """
        covered = self.evacuations.covers(self.assessment.affected)
        evacuated = self.flags.flags.state is HostState.EVACUATED
        if evacuated and not covered:
            self.evacuate(self._order())
        elif evacuated and self.evacuations.due_again():
            self.evacuate(Order(cause=Cause.VERDICT, devices=self.assessment.affected, again=True))
        elif not covered and self.evacuations.by_signals:
            self.evacuations.stop()

    def begin_drill(self, *, everything: bool) -> Job:
        """Begin a fire drill of the canaries, or of all; raises `PrerequisiteError` with what hinders."""
        engine, hindrance = self.moving(), self._circumstances().hindrance
        names = self.drill.check(engine, self.assessment, everything=everything, hindrance=hindrance)
        return self.jobs.start("drill", lambda job: self.drill.run(job, engine, names, self._verdict))

    def _verdict(self) -> Verdict:
        """Return the verdict of now, and have the tick judge what is new."""
        self.bell.ring()
        return self.assessment.verdict

    def migrate(self, container: str, target: str, method: Method | None) -> Job:
        """Begin to move one container."""
        engine = self.moving()

        def work(job: Job) -> dict[str, object]:
            fellows: list[MigrationOutcome] = []
            outcome = engine.migrate(
                container,
                target,
                method,
                lambda event: job.say(event.model_dump(mode="json", exclude_none=True)),
                beside=fellows.append,
            )
            for ended in (*fellows, outcome):
                self.telling.outcome(ended)
            return migration_end(outcome, fellows)

        return self.jobs.start(f"migration of {container}", work)

    def probe(self, target: str | None) -> Job:
        """Begin to move a throwaway container to one host, or to each of the others."""
        engine = self.moving()
        targets = [target] if target else [peer.name for peer in self.members.peers()]
        return self.jobs.start("probe", lambda job: probe(engine, targets, job))

    def moving(self) -> Engine:
        """Return the engine; raises `PrerequisiteError` while the host belongs to no cluster."""
        if self.engine is None and self._shut:
            raise PrerequisiteError(f"nothing can be moved: {self._shut}", code="journal", temporary=True)
        if self.engine is None:
            hint = "lifeboat cluster init, or lifeboat cluster join FILE"
            what = "this host belongs to no cluster, so nothing can be moved"
            raise PrerequisiteError(what, code="no-cluster", hint=hint)
        return self.engine

    def reload(self) -> str:
        """Read the policies anew; a bad one changes nothing, is told, and the reason is returned."""
        reason = self.judgement.reload()
        if reason:
            self.telling.rejected_policies(reason)
        return reason

    def _act(self, action: Action) -> None:
        if action is Action.ALERT:
            self.telling.verdict(self.assessment, self.sentence)
        elif action is Action.EVACUATE:
            self.evacuate(self.drill.order() if is_drill(self.assessment) else self._order())
        elif self.evacuations.by_signals:
            self.evacuations.stop()

    def _join_cluster(self) -> None:
        """Open the doors to peers as soon as this host belongs to a cluster and its journal can be used."""
        if not self.members.joined or (self.engine is not None and self._unrecovered is None):
            return
        self.host = self.members.host
        try:
            if self.engine is None:
                self._open()
            if self._unrecovered is not None:
                self._unrecovered.recover(self.telling.outcome, self.telling.call_a_human)
                engine, self._unrecovered = self._unrecovered, None
                self.evacuations.take_up(self.host, engine)
        except ExecutionError as error:
            if error.code != "journal":
                raise
            if not self._shut:
                _log.error("nothing can be moved until it can: %s", error)
            self._shut = error.message
            return
        self._shut = ""

    def _open(self) -> None:
        engine = Engine(
            host=self.host,
            settings=self.settings.migrator,
            state=self.places.state,
            runtime=self.places.runtime,
            peers=self.members,
            registry=self.settings.registry,
            health=self.health,
        )
        engine.take_up()
        self._peering = Peering(engine, self.members, self.settings.listen.address)
        self._peering.start()
        self.engine = self._unrecovered = engine

    def health(self) -> Health:
        """Return how this host is, as its peers are told."""
        flags = self.flags.flags
        return Health(
            verdict=self.assessment.verdict,
            since_s=time.monotonic() - self.judgement.verdict_at,
            cordoned=flags.cordoned,
            evacuating=self.evacuations.running,
            nearness=nearness(self.assessment),
        )
