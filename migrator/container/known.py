"""The containers of this host, as they are known without waiting for one that moves.

Podman holds the lock of a container while it is parked, frozen or restored, and whoever asks about this one, or
about all, waits. The journal knows what moves, and with which words it set out; so podman is asked about the others
only, and of what moves those words are taken, also after a restart of the daemon.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from migrator.container.describe import Others, describe, named_volumes
from migrator.container.pods import PodHere, with_fellows
from migrator.container.probe import is_probe
from migrator.errors import CommandError, PrerequisiteError
from migrator.model import ContainerFacts, Method, Phase
from migrator.protocol.journal import Decision, Entry, Journal, Side
from migrator.runtime import podman
from migrator.runtime.census import Census, census_of
from migrator.runtime.pods import has_pod, inspect_pod
from migrator.settings import MigratorSettings

ATTEMPTS = 5  # of a question that a container setting out meanwhile makes wait
PATIENCE_S = 3.0  # with the answer after that; most come before the container is parked

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Moving:
    """A container whose migration has no end yet."""

    facts: ContainerFacts  # as they were when it set out
    here: bool  # it is this host's: not released yet, or committed to it
    began_at: float  # Unix seconds
    target: str = ""  # where it goes; empty for one that comes, or of which a checkpoint is made
    method: Method = Method.LAZY
    lost: bool = False  # only a human can settle it


class _SetOut(Exception):
    """A container set out while podman was asked."""


class KnownContainers:
    """What this host knows of its containers."""

    def __init__(self, journal: Journal, settings: MigratorSettings) -> None:
        self._journal = journal
        self._settings = settings

    def moving(self) -> dict[str, Moving]:
        """Return what moves, by the container's id at its source."""
        found: dict[str, Moving] = {}
        for entry in self._journal.entries(unfinished=True):
            moving = _moving(entry)
            found.setdefault(moving.facts.id, moving)
        return found

    def running(self) -> tuple[ContainerFacts, ...]:
        """Return the running containers that are this host's; one that vanishes meanwhile is not among them."""
        return self._ask(self._running)

    def one(self, name: str) -> ContainerFacts:
        """Return one container by its name or id; raises `PrerequisiteError` when there is none, or it moves."""
        return self.together(name)[0]

    def together(self, name: str) -> tuple[ContainerFacts, ...]:
        """Return a container and behind it the others of its pod, which go where it goes; errors as for `one`.

        The name may be the pod's.
        """
        for identifier, moving in self.moving().items():
            pod = moving.facts.pod
            if name in (moving.facts.name, identifier) or (pod is not None and name == pod.name):
                raise PrerequisiteError(
                    f"{name} is being moved already", code="already-moving", hint="lifeboat history", temporary=True
                )
        return self._ask(lambda moving, go_on: self._together(name, moving, go_on))

    def census(self) -> Census:
        """Return what other containers must not collide with."""
        return self._ask(
            lambda moving, go_on: census_of(
                podman.listed(moving, go_on=go_on), [item.facts for item in moving.values()]
            )
        )

    def volume_users(self, volume: str) -> tuple[str, ...]:
        """Return the ids of the running containers here that use a volume."""
        return self._ask(lambda moving, go_on: _users(volume, moving, go_on))

    def _running(self, moving: Mapping[str, Moving], go_on: podman.GoOn) -> tuple[ContainerFacts, ...]:
        listed = podman.listed(moving, go_on=go_on)
        running = [item["Id"] for item in listed if item["State"] == "running"]
        inspected = podman.inspect_all(running, go_on)
        names = {name for item in inspected for name in named_volumes(item)}
        users = {name: _moving_users(name, moving) for name in names}
        for item in inspected:
            for name in named_volumes(item):
                users[name] += (item["Id"],)
        pods = pods_of(inspected, moving, go_on)
        others = Others(podman.network_drivers(), podman.inspect_volumes(names), users, pods)
        described = with_fellows([describe(item, self._settings, others) for item in inspected])
        known = [item.facts for item in moving.values() if item.here]
        taken = {item.name for item in known}  # a container that was created here has another id than at its source
        fresh = [item for item in described if item.running and item.name not in taken]
        return tuple(item for item in [*known, *fresh] if not (item.pod_infra or is_probe(item)))

    def _together(self, name: str, moving: Mapping[str, Moving], go_on: podman.GoOn) -> tuple[ContainerFacts, ...]:
        first = _inspected(name, go_on)
        pods = pods_of([first], moving, go_on)
        inspected = [first]
        for here in pods.values():
            ids = [item["Id"] for item in here.pod.get("Containers") or () if item["Id"] != first["Id"]]
            inspected += [item for item in podman.inspect_all(ids, go_on) if not item.get("IsInfra")]
        volumes = {volume for item in inspected for volume in named_volumes(item)}
        users = {volume: _users(volume, moving, go_on) for volume in volumes}
        others = Others(podman.network_drivers(), podman.inspect_volumes(volumes), users, pods)
        return tuple(with_fellows([describe(item, self._settings, others) for item in inspected]))

    def _ask(self, question: Callable[[Mapping[str, Moving], podman.GoOn], Answer]) -> Answer:
        """Ask podman about what does not move, anew when something sets out meanwhile, for that makes it wait."""
        for _ in range(ATTEMPTS):
            moving = self.moving()

            def go_on(known: Mapping[str, Any] = moving) -> None:
                latest = time.time() - PATIENCE_S
                if any(item.began_at < latest for key, item in self.moving().items() if key not in known):
                    raise _SetOut

            try:
                return question(moving, go_on)
            except _SetOut:
                continue
        raise CommandError(
            "containers set out faster than podman can be asked about the others",
            code="podman-busy",
            temporary=True,
        )


def _inspected(name: str, go_on: podman.GoOn) -> dict[str, Any]:
    """Return podman's description of a container, or of the first of a pod of this name."""
    try:
        return podman.inspect(name, go_on)
    except CommandError as error:
        if "no such container" not in error.message.lower():
            raise
        if has_pod(name):
            pod = inspect_pod(name, go_on)
            members = [item["Id"] for item in pod["Containers"] if item["Id"] != pod["InfraContainerID"]]
            if members:
                return podman.inspect(min(members), go_on)
        raise PrerequisiteError(
            f"there is no container {name!r} on this host", code="no-such-container", hint="see: podman ps"
        ) from error


def pods_of(
    inspected: Sequence[Mapping[str, Any]], moving: Mapping[str, Moving], go_on: podman.GoOn
) -> dict[str, PodHere]:
    """Return the pods of containers by their ids, but for those of which a member moves: podman would wait."""
    away = {member for item in moving.values() if item.facts.pod for member in item.facts.pod.members}
    members = [item for item in inspected if item.get("Pod") and not item.get("IsInfra")]
    busy = {item["Pod"] for item in members if item["Id"] in away}
    return {pod: _pod(pod, go_on) for pod in sorted({item["Pod"] for item in members} - busy)}


def _pod(pod: str, go_on: podman.GoOn) -> PodHere:
    described = inspect_pod(pod, go_on)
    if not described.get("InfraContainerID"):
        return PodHere(described, {})
    infra = podman.inspect(described["InfraContainerID"], go_on)
    specification: dict[str, Any] = {}
    with suppress(OSError, ValueError):  # it does not run
        specification = json.loads(Path(infra["OCIConfigPath"]).read_text())
    return PodHere(described, infra, tuple((specification.get("linux") or {}).get("sysctl") or ()))


def _moving(entry: Entry) -> Moving:
    request = json.loads(entry.request)
    return Moving(
        facts=ContainerFacts.model_validate(request["container"]),
        here=entry.side is Side.SOURCE or entry.decision is Decision.COMMIT,
        began_at=entry.began_at,
        target=request["target"] if entry.side is Side.SOURCE and request.get("leaves", True) else "",
        method=Method(request["method"]),
        lost=entry.outcome is not None and entry.outcome.phase is Phase.LOST,
    )


def _users(volume: str, moving: Mapping[str, Moving], go_on: podman.GoOn) -> tuple[str, ...]:
    listed = podman.listed(moving, volume=volume, go_on=go_on)
    running = tuple(str(item["Id"]) for item in listed if item["State"] == "running")
    return _moving_users(volume, moving) + running


def _moving_users(volume: str, moving: Mapping[str, Moving]) -> tuple[str, ...]:
    return tuple(
        identifier
        for identifier, item in moving.items()
        if any(mount.kind == "volume" and mount.name == volume for mount in item.facts.volumes)
    )
