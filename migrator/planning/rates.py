"""How long things take: measured in past migrations, to the same host or else to others; if none, the defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import fmean, median

from migrator.choice.score import Link
from migrator.model import ContainerFacts, Method, MigrationOutcome, Phase

SAMPLES = 20  # of the latest migrations to a host; older ones say little of its load of today
ENOUGH_BYTES = 32 << 20  # below this a rate measures the beginning and the end, not the flow
ENOUGH_SAMPLES = 3
MOST_TIMES_TYPICAL = 3.0  # what took longer was an accident, and counts for so much


@dataclass(frozen=True)
class Rates:
    """Seconds and bytes per second of one migration.

    The defaults are those of three migrations at once on two busy cores (docs/bench-evacuate.md): on hosts of their
    own it goes faster than the first plan says, and three migrations later a plan knows better.
    """

    copy_s: float = 4.0  # to look, to agree, and to compare files, images and volumes
    park_s: float = 3.0  # podman on both sides; it creates storage and network on the target
    freeze_s: float = 0.6
    release_s: float = 1.2
    cold_s: float = 5.0  # a stop and a start; how long a program takes for them is its own affair
    copy_bytes_per_s: float = 100e6
    drain_bytes_per_s: float = 130e6
    full_bytes_per_s: float = 150e6  # write, send and read the complete file
    samples: int = 0  # migrations to this very host that they were measured by

    def expected_freeze_s(self, method: Method, memory_bytes: int) -> float:
        """Estimate what a client will see as a stall."""
        if method is Method.COLD:
            return self.cold_s
        return self.freeze_s + (memory_bytes / self.full_bytes_per_s if method is Method.FULL else 0.0)

    def expected_copy_s(self, disk_bytes: int) -> float:
        """Estimate how long files take to be copied ahead."""
        return self.copy_s + disk_bytes / self.copy_bytes_per_s

    def expected_drain_s(self, method: Method, memory_bytes: int) -> float:
        """Estimate how long the memory follows after the commit."""
        return memory_bytes / self.drain_bytes_per_s if method is Method.LAZY else 0.0


DEFAULTS = Rates()


@dataclass(frozen=True)
class Past:
    """A migration of the past, with the container as it was planned."""

    container: ContainerFacts
    outcome: MigrationOutcome


def measured(pasts: Sequence[Past], hosts: Sequence[str]) -> Mapping[str, Rates]:
    """Return the rates to each host; `pasts` come newest first.

    Of a host that has taken few containers those to other hosts tell more than the defaults: half of what takes
    time is this host's own part.
    """
    done = [past for past in pasts if past.outcome.phase is Phase.DONE]
    by_target: dict[str, list[Past]] = {}
    for past in done:
        by_target.setdefault(past.outcome.target, []).append(past)
    found = {}
    for host in hosts:
        own = by_target.get(host, [])[:SAMPLES]
        elsewhere = (past for past in done if past.outcome.target != host)
        others = list(islice(elsewhere, SAMPLES - len(own) if len(own) < ENOUGH_SAMPLES else 0))
        if own or others:
            found[host] = replace(_rates([*own, *others]), samples=len(own))
    return found


def measured_link(rates: Rates | None, round_trip_ms: float) -> Link:
    """Return what choice is told of the way to a host."""
    return Link(
        bytes_per_s=rates.drain_bytes_per_s if rates and rates.samples else 0.0, round_trip_ms=round_trip_ms
    )


def _rates(pasts: Sequence[Past]) -> Rates:
    small = [past for past in pasts if past.container.disk_bytes < ENOUGH_BYTES]
    lazy = [past.outcome for past in pasts if past.outcome.method is Method.LAZY]
    full = [past for past in pasts if past.outcome.method is Method.FULL]
    return Rates(
        copy_s=_lasting([_copied_s(past.outcome) for past in small], DEFAULTS.copy_s),
        park_s=_lasting([past.outcome.parked_s for past in pasts], DEFAULTS.park_s),
        freeze_s=_lasting([item.freeze_ms / 1000 for item in lazy if item.freeze_ms], DEFAULTS.freeze_s),
        release_s=_lasting([_lasted_s(past.outcome, Phase.RELEASE) for past in pasts], DEFAULTS.release_s),
        copy_bytes_per_s=_flow(
            [(past.container.disk_bytes, _copied_s(past.outcome)) for past in pasts], DEFAULTS.copy_bytes_per_s
        ),
        drain_bytes_per_s=_flow(
            [(item.drained_bytes or 0, item.drain_s or 0.0) for item in lazy], DEFAULTS.drain_bytes_per_s
        ),
        full_bytes_per_s=_flow(
            [(past.container.memory_bytes, (past.outcome.freeze_ms or 0.0) / 1000) for past in full],
            DEFAULTS.full_bytes_per_s,
        ),
    )


def _copied_s(outcome: MigrationOutcome) -> float:
    return _lasted_s(outcome, Phase.PREPARE) - outcome.waited_s - outcome.parked_s


def _lasted_s(outcome: MigrationOutcome, phase: Phase) -> float:
    return sum(item.duration_s for item in outcome.phases if item.phase is phase)


def _lasting(values: Sequence[float], default: float) -> float:
    """Return the mean, in which the default counts for as long as there are few values.

    Not the median: what takes long now and then makes an evacuation longer, too.
    """
    found = _padded(values, default)
    most = MOST_TIMES_TYPICAL * median(found)
    return max(0.01, fmean(min(value, most) for value in found))


def _flow(pairs: Sequence[tuple[int, float]], default: float) -> float:
    return median(_padded([size / took for size, took in pairs if size >= ENOUGH_BYTES and took > 0], default))


def _padded(values: Sequence[float], default: float) -> Sequence[float]:
    return [*values, *[default] * max(0, ENOUGH_SAMPLES - len(values))]
