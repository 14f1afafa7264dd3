"""What an evacuation of this host would do now: the other hosts are asked, and nothing is changed anywhere."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from migrator.choice.filters import reject
from migrator.container.known import KnownContainers, Moving
from migrator.container.verdicts import Asked, ContainerVerdict, judge
from migrator.container.welcome import with_answers
from migrator.errors import PeerError, PrerequisiteError
from migrator.model import ContainerFacts, EvacuationPlan, HostFacts, Method, PlannedMigration, Rejection
from migrator.peers.neighbours import Neighbours
from migrator.planning.plan import Assumptions, plan_evacuation, staying, supported_method
from migrator.planning.rates import Past, measured, measured_link
from migrator.protocol.journal import Journal, Side
from migrator.runtime import podman
from migrator.runtime.cgroup import Cgroup
from migrator.settings import MigratorSettings
from migrator.source.migration import Journey
from migrator.storage.size import Sizes

REMEMBERED = 500  # migrations of the past from which rates are measured


class Outlook:
    """Plans, and what hosts say to them."""

    def __init__(
        self,
        settings: MigratorSettings,
        journal: Journal,
        neighbours: Neighbours,
        facts: Callable[[], HostFacts],
        known: KnownContainers,
        *,
        staged: Callable[[], Mapping[str, str]],
    ) -> None:
        """`facts` returns this host's; `staged` container id -> where its files wait already."""
        self._settings = settings
        self._journal = journal
        self._neighbours = neighbours
        self._facts = facts
        self._known = known
        self._staged = staged
        self._sizes = Sizes()

    def plan(
        self,
        containers: tuple[ContainerFacts, ...] | None = None,
        method: Method | None = None,
        *,
        time_left_s: float | None = None,
        avoid: Collection[str] = (),
    ) -> EvacuationPlan:
        """Plan to move the given containers, or all that run here; changes nothing anywhere.

        `time_left_s` is how long this host usually lasts, None when nothing says so; hosts in `avoid` are
        left out.
        """
        told, silent = self._neighbours.facts()
        asked = self._asked(containers)
        return self._plan(asked, told, silent, method, time_left_s=time_left_s, avoid=avoid)

    def examine(self, containers: tuple[ContainerFacts, ...] | None = None) -> tuple[ContainerVerdict, ...]:
        """Say of the given containers, or all, what an evacuation would do with them and what each host says."""
        told, silent = self._neighbours.facts()
        asked = self._asked(containers)
        plan = self._plan(asked, told, silent, None)
        headroom = self._settings.memory_headroom_percent
        return judge(asked, Asked(self._facts(), told, silent, headroom), plan)

    def _asked(self, containers: tuple[ContainerFacts, ...] | None) -> list[ContainerFacts]:
        """Return containers with their size on disk and what the other hosts say against taking them."""
        chosen = self._known.running() if containers is None else containers
        moving = self._known.moving()
        sized = [item if item.id in moving else self.sized(item) for item in chosen]
        return with_answers(sized, self._neighbours.fit(sized) if sized else ())

    def sized(self, container: ContainerFacts) -> ContainerFacts:
        """Return a container with its size on disk."""
        return container.model_copy(update={"disk_bytes": self._sizes.disk_in_use(container)})

    def _plan(
        self,
        containers: Sequence[ContainerFacts],
        told: Sequence[HostFacts],
        silent: Sequence[Rejection],
        method: Method | None,
        *,
        time_left_s: float | None = None,
        avoid: Collection[str] = (),
    ) -> EvacuationPlan:
        """Plan with what the hosts told."""
        targets = [target for target in told if target.host not in avoid]
        names = [target.host for target in targets]
        rates = measured(self._pasts(), names)
        assumptions = Assumptions(
            headroom_percent=self._settings.memory_headroom_percent,
            rates=rates,
            links={host: measured_link(rates.get(host), self._neighbours.round_trip_ms(host)) for host in names},
            domains=self._settings.failure_domains,
            limits=self._settings.limits,
            time_left_s=time_left_s,
            staged=self._staged(),
        )
        wanted = method or self._settings.method
        moving = self._known.moving()
        leaving = {item.id: moving[item.id] for item in containers if item.id in moving and moving[item.id].target}
        waiting = [item for item in containers if item.id not in leaving]
        plan = plan_evacuation(self._facts(), waiting, targets, wanted, assumptions)
        migrations = [
            item.model_copy(update={"rejections": (*item.rejections, *silent)}) for item in plan.migrations
        ]
        on_their_way = [under_way(item) for item in leaving.values()]
        return plan.model_copy(update={"migrations": (*on_their_way, *migrations)})

    def check(self, container: ContainerFacts, target: str, method: Method) -> tuple[Rejection, ...]:
        """Return every reason why a container cannot go to a target by a rung; empty when it can."""
        if reason := container.unsupported.get(method):
            return (Rejection(host=target, code="container-unsupported", reason=reason),)
        facts = self._neighbours.client(target).facts()
        headroom = self._settings.memory_headroom_percent
        found = reject(container, self._facts(), facts, method, headroom_percent=headroom)
        return (*found, *self._neighbours.fit_of(target, container).rejections.get(container.id, ()))

    def together(self, name: str) -> list[ContainerFacts]:
        """Return a container, with its size, and behind it all of its pod; see `KnownContainers.together`."""
        found = [self.sized(item) for item in self._known.together(name)]
        for item in found:
            if not item.running:
                raise PrerequisiteError(f"{item.name} is not running", code="not-running")
        return found

    def rehearse(self, name: str, target: str, method: Method | None) -> tuple[Rejection, ...]:
        """Return all that would keep a container, or any of its pod, from going to a target; empty when it can.

        Raises what `migrate` raises when there is no such container, or no such host.
        """
        together = self.together(name)
        found: list[Rejection] = []
        for facts in together:
            for item in self._refusals(facts, target, method):
                named = len(together) == 1 or item.reason.startswith(f"{facts.name} ")
                reason = item.reason if named else f"{facts.name}: {item.reason}"
                found.append(item.model_copy(update={"reason": reason}))
        return tuple(found)

    def _refusals(self, facts: ContainerFacts, target: str, method: Method | None) -> tuple[Rejection, ...]:
        try:
            return self.check(facts, target, self._own_rung(facts, method))
        except (PrerequisiteError, PeerError) as error:
            return (Rejection(host=target, code=error.code, reason=error.message),)

    def rung(self, facts: ContainerFacts, target: str, method: Method | None, *, planned: bool) -> Method:
        """Return the rung by which a container can go to a target; raises `PrerequisiteError`."""
        rung = self._own_rung(facts, method)
        rejections = () if planned else self.check(facts, target, rung)
        if rejections:
            why_cold = sorted(set(facts.unsupported.values())) if rung is Method.COLD else []
            said = "; ".join([*why_cold, *(item.reason for item in rejections)])
            raise PrerequisiteError(
                f"{target} cannot take {facts.name}: {said}",
                code=rejections[0].code,
            )
        return rung

    def _own_rung(self, facts: ContainerFacts, method: Method | None) -> Method:
        """Return the best rung that a container can take, wherever it goes; raises `PrerequisiteError`."""
        if Cgroup.of_process(podman.first_pid(facts.id)).frozen:
            raise PrerequisiteError(
                f"{facts.name} stands frozen here: its last migration was committed but did not end",
                code="container-frozen",
                hint="remove neither by hand; lifeboat recover says where it runs and what you may do",
            )
        rung = supported_method(facts, method or self._settings.method)
        if rung is None:
            reasons = "; ".join(sorted(set(facts.unsupported.values()))) or "no such rung"
            raise PrerequisiteError(f"{facts.name} cannot be moved: {reasons}", code="container-unsupported")
        return rung

    def _pasts(self) -> list[Past]:
        """Return past migrations away from here, newest first."""
        entries = self._journal.entries(limit=REMEMBERED)
        return [
            Past(Journey.model_validate_json(entry.request).container, entry.outcome)
            for entry in entries
            if entry.side is Side.SOURCE and entry.outcome is not None
        ]


def under_way(moving: Moving) -> PlannedMigration:
    """Return the line of a plan for a container that set out before."""
    reason = "it is on its way there already"
    if moving.lost:
        reason = f"it did not come to an end on its way to {moving.target}; see: lifeboat recover"
    target = None if moving.lost else moving.target
    known = {"target": target, "method": moving.method, "lost": moving.lost}
    return staying(moving.facts, reason).model_copy(update=known)
