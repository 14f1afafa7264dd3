"""The plan of an evacuation: every container, where it goes, by which rung, how long that takes.

Estimates are orders of magnitude, from measurements on two cores (docs/decisions/0010): they order and
explain, nothing is decided by them alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from migrator.choice import Choice, choose
from migrator.model import ContainerFacts, EvacuationPlan, HostFacts, Method, PlannedMigration

PRIORITY_LABEL = "lifeboat.priority"  # higher goes first; default 0
METHOD_LABEL = "lifeboat.method"
OPT_OUT_LABEL = "lifeboat.evacuate"  # "no": this container stays

FREEZE_MS, FREEZE_MS_PER_GIB = 350, 60  # lazy: a constant part, and what the kernel needs to list the memory
FULL_BYTES_PER_S = 150 << 20  # write, send, read the complete file
DRAIN_BYTES_PER_S = 100 << 20  # our pager while the container touches pages all the time
PREPARE_S = 3.0


def plan_evacuation(
    source: HostFacts,
    containers: Sequence[ContainerFacts],
    targets: Sequence[HostFacts],
    method: Method,
    *,
    headroom_percent: float = 10.0,
) -> EvacuationPlan:
    """Plan to empty a host; what one migration takes from a target the next one does not find there."""
    remaining = {target.host: target for target in targets}
    planned = []
    for container in sorted(containers, key=_order):
        if container.labels.get(OPT_OUT_LABEL, "").lower() == "no":
            planned.append(_stays(container, f"it carries the label {OPT_OUT_LABEL}=no", kept=True))
            continue
        rung = supported_method(container, method)
        if rung is None:
            planned.append(_stays(container, "; ".join(sorted(set(container.unsupported.values())))))
            continue
        choice = choose(container, source, list(remaining.values()), rung, headroom_percent=headroom_percent)
        planned.append(_planned(container, rung, choice))
        if choice.target is not None:
            remaining[choice.target] = _with_reservation(remaining[choice.target], container)
    return EvacuationPlan(source=source.host, migrations=tuple(planned))


def supported_method(container: ContainerFacts, wanted: Method) -> Method | None:
    """Return the best rung from the wanted one downwards that the container can take, or None."""
    asked = container.labels.get(METHOD_LABEL)
    first = Method(asked) if asked in set(Method) else wanted
    rungs = [Method.LAZY, Method.FULL]
    below = rungs[rungs.index(first) :] if first in rungs else []
    return next((rung for rung in below if rung not in container.unsupported), None)


def expected_freeze_ms(method: Method, memory_bytes: int) -> int:
    """Estimate what a client will see as a stall."""
    if method is Method.LAZY:
        return round(FREEZE_MS + FREEZE_MS_PER_GIB * memory_bytes / (1 << 30))
    return round(FREEZE_MS + 1000 * memory_bytes / FULL_BYTES_PER_S)


def expected_duration_s(method: Method, memory_bytes: int) -> float:
    """Estimate the time until the source is no longer needed."""
    drain_s = memory_bytes / DRAIN_BYTES_PER_S if method is Method.LAZY else 0.0
    return round(PREPARE_S + expected_freeze_ms(method, memory_bytes) / 1000 + drain_s, 1)


def _order(container: ContainerFacts) -> tuple[int, int, str]:
    """Order by priority, then the small ones first: more containers are safe sooner."""
    try:
        priority = int(container.labels.get(PRIORITY_LABEL, "0"))
    except ValueError:
        priority = 0
    return (-priority, container.memory_bytes, container.name)


def _planned(container: ContainerFacts, rung: Method, choice: Choice) -> PlannedMigration:
    return PlannedMigration(
        container=container.name,
        target=choice.target,
        method=rung,
        memory_bytes=container.memory_bytes,
        expected_freeze_ms=expected_freeze_ms(rung, container.memory_bytes),
        expected_duration_s=expected_duration_s(rung, container.memory_bytes),
        rejections=choice.rejections,
        reason=choice.reason,
    )


def _stays(container: ContainerFacts, reason: str, *, kept: bool = False) -> PlannedMigration:
    return PlannedMigration(
        container=container.name,
        target=None,
        method=Method.LAZY,
        memory_bytes=container.memory_bytes,
        expected_freeze_ms=0,
        expected_duration_s=0.0,
        reason=reason,
        kept=kept,
    )


def _with_reservation(target: HostFacts, container: ContainerFacts) -> HostFacts:
    return target.model_copy(
        update={
            "reserved_bytes": target.reserved_bytes + container.memory_bytes,
            "container_names": (*target.container_names, container.name),
        }
    )
