"""`lifeboat check`: whether every container could go to every other host now. Values in, values out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from migrator.choice.filters import reject
from migrator.model import (
    ContainerFacts,
    EvacuationPlan,
    HostFacts,
    Method,
    Obstacle,
    PlannedMigration,
    Rejection,
    Treatment,
    Value,
)
from migrator.network.sever import COMMON_DRIVERS
from migrator.planning.plan import ladder


class TargetVerdict(Value):
    """Whether one container could go to one host, by which rung, and what would change for its users."""

    host: str
    fits: bool
    method: Method | None = None
    rejections: tuple[Rejection, ...] = ()


class ContainerVerdict(Value):
    """What an evacuation would do with one container now, and what every other host says of it."""

    container: str
    movable: bool
    kept: bool  # its label says that it stays
    method: Method | None
    target: str | None  # as planned together with the others
    reason: str
    obstacles: tuple[Obstacle, ...]  # wherever it were to go
    targets: tuple[TargetVerdict, ...]
    notes: tuple[str, ...]  # what is not as before when it has moved

    @property
    def causes(self) -> tuple[str, ...]:
        """Return the codes of what keeps it here, the same as long as nothing changes."""
        if self.movable or self.kept:
            return ()
        found = {item.code for item in self.obstacles}
        found |= {rejection.code for target in self.targets for rejection in target.rejections}
        return tuple(sorted(found)) or ("no-target",)


@dataclass(frozen=True)
class Asked:
    """What all hosts told; `silent` are those that did not answer."""

    source: HostFacts
    targets: Sequence[HostFacts]
    silent: Sequence[Rejection]
    headroom_percent: float


def judge(containers: Sequence[ContainerFacts], asked: Asked, plan: EvacuationPlan) -> tuple[ContainerVerdict, ...]:
    """Return the verdicts in the order of the plan."""
    known = {container.name: container for container in containers}
    return tuple(_container(planned, known[planned.container], asked) for planned in plan.migrations)


def _container(planned: PlannedMigration, container: ContainerFacts, asked: Asked) -> ContainerVerdict:
    verdicts = [_target(container, asked, target) for target in asked.targets]
    verdicts += [TargetVerdict(host=item.host, fits=False, rejections=(item,)) for item in asked.silent]
    return ContainerVerdict(
        container=planned.container,
        movable=planned.target is not None,
        kept=planned.kept,
        method=planned.method if planned.target else None,
        target=planned.target,
        reason=planned.reason,
        obstacles=container.obstacles,
        targets=tuple(sorted(verdicts, key=lambda verdict: verdict.host)),
        notes=tuple(notes(container)),
    )


def _target(container: ContainerFacts, asked: Asked, target: HostFacts) -> TargetVerdict:
    """Try the rungs that a plan would try, best first; when none will do, the reasons are those of the last one."""
    own = tuple(item for item in container.unfit if item.host == target.host)
    judged = container.model_copy(update={"unfit": ()})
    why = "; ".join(sorted(set(container.unsupported.values())))
    rejections: tuple[Rejection, ...] = (Rejection(host=target.host, code="container-unsupported", reason=why),)
    for method in ladder(container, Method.LAZY):
        found = reject(judged, asked.source, target, method, headroom_percent=asked.headroom_percent)
        if not (rejections := (*found, *(item for item in own if item.code not in {one.code for one in found}))):
            return TargetVerdict(host=target.host, fits=True, method=method)
    return TargetVerdict(host=target.host, fits=False, rejections=rejections)


def notes(container: ContainerFacts) -> Iterator[str]:
    """Say what is not as before when a container has moved."""
    away = sorted({item.network for item in container.networks if item.driver not in COMMON_DRIVERS})
    if away:
        yield (
            f"connections through {', '.join(away)} end: the address is of this host's own bridge "
            f"and means another place on the target"
        )
    if container.published_ports:
        ports = ", ".join(str(port) for port in sorted(container.published_ports))
        yield f"published ports ({ports}) answer at the target's address, no longer at this host's"
    if container.log_driver not in ("none", "passthrough", ""):
        yield f"what podman logs shows so far stays on this host ({container.log_driver})"
    if container.quadlet and container.quadlet.left_behind:
        files = ", ".join(container.quadlet.left_behind)
        yield f"{container.quadlet.unit} moves along, but not {files}, which it needs when it starts next"
    compared = [mount.path for mount in container.volumes if mount.treatment is Treatment.COMPARE]
    if compared:
        yield f"{', '.join(compared)} is taken from the target, where it must be the same"
