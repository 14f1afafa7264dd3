"""The pod that members come into: made here before the first of them, gone with the last when none stays.

Its infra container has an id of its own here, and so a ban of its own: from before it is started, behind the shut
gate, until the commit. Which pod it is lies on disk, for podman would wait for a parked member if it were asked.
"""

from __future__ import annotations

import logging
import shutil
import threading
from contextlib import suppress
from pathlib import Path

from migrator.admission.rules import Joined
from migrator.errors import ExecutionError, LifeboatError, PrerequisiteError
from migrator.files import write_whole
from migrator.model import PodFacts, Value
from migrator.network import gate
from migrator.protocol.messages import Proposal
from migrator.runtime import podman, tombstone
from migrator.runtime.pods import COMPANY, create_pod, has_pod, infra_of, inspect_pod, remove_pod
from migrator.runtime.scope import Scope
from migrator.shim import order as shim_order

_log = logging.getLogger(__name__)

DIRECTORY = "pods"  # below the state directory, and below the runtime directory
START_LIMIT_S = 60.0


class _Made(Value):
    """What is known of a pod that was made here."""

    pod: str
    infra: str


class IncomingPod:
    """One pod on its way in, as the receptions of its members share it."""

    def __init__(self, state: Path, runtime: Path, proposal: Proposal, pod: PodFacts) -> None:
        self._state = state
        self._company = proposal.together[0]
        self._record = state / DIRECTORY / f"{self._company}.json"
        self._directory = runtime / DIRECTORY / self._company
        self._networks = proposal.container.networks
        self._pod = pod
        self._lock = threading.RLock()
        self._coming: set[str] = set()
        self.lost = ""  # the first member whose memory did not come, in words

    def join(self, migration: str) -> None:
        """A member comes."""
        with self._lock:
            self._coming.add(migration)

    @property
    def expected(self) -> bool:
        """Say whether members are still on their way."""
        return bool(self._coming)

    def make(self) -> Joined:
        """Make it and start its infra container, silent; idempotent, until the commit."""
        with self._lock:
            made = self._made()
            if made is None or not has_pod(made.pod):
                made = self._create()
            tombstone.ban_infra(self._state, made.infra)
            if not podman.is_running(made.infra):
                self._start(made.infra)
            return Joined(made.pod, made.infra)

    @property
    def shared_memory(self) -> Path | None:
        """Return its /dev/shm; None while it is not made, or where its members share none."""
        made = self._made()
        if made is None or "ipc" not in self._pod.shares:
            return None
        return podman.places().user_data(made.infra)[0] / "shm"

    @property
    def joined(self) -> Joined | None:
        """Return what was made; None before and when it is over."""
        made = self._made()
        return Joined(made.pod, made.infra) if made is not None else None

    def allow(self) -> None:
        """It is committed: whoever asks may start it from now on; on disk when this returns."""
        made = self._made()
        if made is not None and (self._state / tombstone.BANS / made.infra).exists():
            tombstone.lift_infra(self._state, made.infra)

    def leave(self, migration: str) -> None:
        """A member's migration is over, however it ended; the last one takes along what nobody stays in."""
        with self._lock:
            self._coming.discard(migration)
            if self._coming:
                return
            try:
                self._remove_empty()
            except LifeboatError as error:  # it stays as it is, banned unless it was committed
                _log.error("whether anybody stays in the pod %s is not known: %s", self._pod.name, error)
            self._record.unlink(missing_ok=True)
            shutil.rmtree(self._directory, ignore_errors=True)

    def _remove_empty(self) -> None:
        made = self._made()
        if made is None or any(podman.has_container(member) for member in self._pod.members):
            return
        remove_pod(made.pod)
        if has_pod(made.pod):
            _log.error("podman does not remove the pod %s; it stays banned from starting", self._pod.name)
        else:
            tombstone.lift_infra(self._state, made.infra)

    def _made(self) -> _Made | None:
        with suppress(OSError, ValueError):
            return _Made.model_validate_json(self._record.read_bytes())
        return self._found()

    def _found(self) -> _Made | None:
        """Return a pod that an earlier daemon made, and died before it wrote that down; nothing is parked then."""
        if not has_pod(self._pod.name):
            return None
        described = inspect_pod(self._pod.name)
        if (described.get("Labels") or {}).get(COMPANY) != self._company:
            return None
        return self._write(described["Id"], described["InfraContainerID"])

    def _create(self) -> _Made:
        if has_pod(self._pod.name):
            raise PrerequisiteError(
                f"there is a pod named {self._pod.name}",
                code="target-name-taken",
                hint=f"remove it there: podman pod rm {self._pod.name}",
            )
        pod = create_pod(self._pod, self._networks, self._company)
        return self._write(pod, infra_of(pod))

    def _write(self, pod: str, infra: str) -> _Made:
        made = _Made(pod=pod, infra=infra)
        self._record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(self._record, made.model_dump_json().encode(), 0o600)
        return made

    def _start(self, infra: str) -> None:
        """Start the infra container as a parked restore is: podman's network helper shuts the gate first."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        configuration = shim_order.write_silence(self._directory, loopback=False)
        with tombstone.allowed(infra):
            started = Scope.start(
                f"lifeboat-target-{self._company}-pod",
                ["podman", "start", infra],
                log=self._directory / "podman.log",
                env={"CONTAINERS_CONF_OVERRIDE": str(configuration)},
            )
            if started.wait(START_LIMIT_S) != 0:
                started.kill()
                raise ExecutionError(
                    f"the pod {self._pod.name} does not start: {started.last_words()}", code="pod-not-started"
                )
        if not self._networks:  # then podman calls no helper
            gate.shut(Path(f"/proc/{podman.first_pid(infra)}/ns/net"), loopback=False)


class IncomingPods:
    """The pods that come to this host, by the migration of the first member."""

    def __init__(self) -> None:
        self._pods: dict[str, IncomingPod] = {}
        self._lock = threading.Lock()

    def of(self, state: Path, runtime: Path, proposal: Proposal) -> IncomingPod | None:
        """Return the pod of an incoming member, None for a container that belongs to none."""
        pod = proposal.container.pod
        if pod is None:
            return None
        with self._lock:
            self._pods = {company: known for company, known in self._pods.items() if known.expected}
            found = self._pods.setdefault(proposal.together[0], IncomingPod(state, runtime, proposal, pod))
            found.join(proposal.migration)
        return found
