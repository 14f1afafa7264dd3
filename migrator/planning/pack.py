"""Where containers go: each unit in turn takes the best host that has room, and the room grows less.

Hosts stand in one heap for every kind of need, best first. A host's score only falls as it fills, so a stale
entry promises too much and is corrected when it comes up: no pair of container and host is looked at twice.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from migrator.choice.filters import Reason, claim_reasons, need_reasons
from migrator.choice.need import Claim, Need, Room
from migrator.choice.score import UNKNOWN, Link, fixed_score, room_score, shared_domains
from migrator.model import HostFacts, Rejection


class Spread(IntEnum):
    """How strictly containers of one `lifeboat.apart` are kept apart; the first that finds a host is taken."""

    APART = 0  # no host that has one of them, before or by this plan
    NOT_BROKEN = 1  # those that share the source may share a target; hosts that had one are still left out
    IGNORED = 2  # anywhere, with a warning


@dataclass(frozen=True)
class Placement:
    """Where a unit goes, or why nowhere."""

    target: str | None
    rejections: tuple[Rejection, ...]
    reason: str
    warnings: tuple[str, ...] = ()


@dataclass
class _Queue:
    """All hosts that are what one need asks for, best first, and why the others are not."""

    entries: list[tuple[float, str, int]]  # -score, host, version of its room
    fixed: dict[str, float]
    rejections: tuple[Rejection, ...]


@dataclass
class Packer:
    """Places units one after the other; what one takes the next does not find."""

    source: HostFacts
    rooms: Mapping[str, Room]
    links: Mapping[str, Link] = field(default_factory=dict)
    domains: Sequence[str] = ()
    explain: bool = True  # look at hosts that come after the chosen one, too
    _queues: dict[Need, _Queue] = field(default_factory=dict)

    def place(self, need: Need, claim: Claim, beside: Sequence[str] = ()) -> Placement:
        """Take the best host for a unit; hosts in `beside` come before all others that can take it."""
        queue = self._queue(need)
        full: dict[str, list[Reason]] = {}
        for spread in Spread if claim.apart else (Spread.APART,):
            chosen = self._beside(queue, claim, spread, beside) or self._best(queue, claim, spread, full)
            if chosen is not None:
                return self._chosen(queue, claim, spread, self.rooms[chosen], full)
        rejections = queue.rejections + _told(full)
        why = "; ".join(f"{item.host}: {item.reason}" for item in rejections)
        return Placement(None, rejections, why or "there is no other host in the cluster")

    def _beside(self, queue: _Queue, claim: Claim, spread: Spread, hosts: Sequence[str]) -> str | None:
        for host in hosts:
            room = self.rooms[host]
            if host in queue.fixed and _allowed(claim, room, spread) and not claim_reasons(claim, room):
                return host
        return None

    def _best(self, queue: _Queue, claim: Claim, spread: Spread, full: dict[str, list[Reason]]) -> str | None:
        passed, chosen = [], None
        while queue.entries:
            entry = heapq.heappop(queue.entries)
            _, host, version = entry
            room = self.rooms[host]
            if version != room.version:
                heapq.heappush(queue.entries, self._entry(queue.fixed, room))
                continue
            passed.append(entry)
            if host in full or not _allowed(claim, room, spread):
                continue
            if reasons := claim_reasons(claim, room):
                full[host] = reasons
                continue
            chosen = host
            break
        for entry in passed:
            heapq.heappush(queue.entries, entry)
        return chosen

    def _chosen(
        self, queue: _Queue, claim: Claim, spread: Spread, room: Room, full: dict[str, list[Reason]]
    ) -> Placement:
        if self.explain:
            for host in sorted(queue.fixed):
                if host not in full and (reasons := claim_reasons(claim, self.rooms[host])):
                    full[host] = reasons
        room.take(claim)
        facts = room.facts
        shared = shared_domains(self.source, facts, self.domains)
        reason = f"{max(0, room.memory_bytes) >> 20} MiB stay free there, load {facts.load:.2f}"
        reason += f", the same {' and '.join(shared)} as here" if shared else ""
        warnings: tuple[str, ...] = ()
        if spread is Spread.IGNORED:
            warnings = (f"lifeboat.apart={', '.join(sorted(claim.apart))} cannot be kept: no other host has room",)
        return Placement(facts.host, queue.rejections + _told(full), reason, warnings)

    def _queue(self, need: Need) -> _Queue:
        if (found := self._queues.get(need)) is not None:
            return found
        fixed: dict[str, float] = {}
        rejections = []
        for host, room in self.rooms.items():
            if reasons := need_reasons(need, self.source, room.facts):
                rejections += [Rejection(host=host, code=code, reason=words) for code, words in reasons]
            else:
                link = self.links.get(host, UNKNOWN)
                fixed[host] = fixed_score(need, self.source, room.facts, link, self.domains)
        entries = [self._entry(fixed, self.rooms[host]) for host in fixed]
        heapq.heapify(entries)
        self._queues[need] = _Queue(entries, fixed, tuple(rejections))
        return self._queues[need]

    def _entry(self, fixed: Mapping[str, float], room: Room) -> tuple[float, str, int]:
        return (-fixed[room.facts.host] - room_score(room), room.facts.host, room.version)


def _allowed(claim: Claim, room: Room, spread: Spread) -> bool:
    if spread is Spread.IGNORED or not claim.apart:
        return True
    if claim.apart & room.apart:
        return False
    return spread is Spread.NOT_BROKEN or not claim.apart & room.apart_planned


def _told(full: Mapping[str, list[Reason]]) -> tuple[Rejection, ...]:
    return tuple(
        Rejection(host=host, code=code, reason=words) for host, reasons in full.items() for code, words in reasons
    )
