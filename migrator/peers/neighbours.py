"""What the other hosts of the cluster say: their facts for a plan, their health for the storm guard.

All are asked at once, so that one that is gone costs no more than its own time-out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from migrator.errors import LifeboatError, PeerError
from migrator.health import Verdict
from migrator.model import ContainerFacts, HostFacts, Rejection, Value
from migrator.peers.client import PeerClient
from migrator.peers.membership import PeerDirectory
from migrator.protocol.messages import FitAnswer, FitQuestion
from migrator.target.reservations import Held, Hold
from migrator.words import printable

ASKED_AT_ONCE = 32
HEALTH_LIMIT_S = 5.0
FIT_LIMIT_S = 15.0

Answer = TypeVar("Answer")


class HealthTold(Value):
    """How a host is, in a few bytes: the answer to GET /v1/health."""

    host: str
    verdict: Verdict
    since_s: float  # for how long it has had this verdict
    evacuating: bool = False


@dataclass(frozen=True)
class Survey:
    """How the cluster is; `silent` are hosts that did not answer, and why."""

    healths: tuple[HealthTold, ...]
    silent: tuple[Rejection, ...]


class Neighbours:
    """The other hosts, as this host asks them."""

    def __init__(self, peers: PeerDirectory, lost_for_s: Callable[[str], float | None] = lambda _: None) -> None:
        """`lost_for_s` returns for how long a registry has known that a host is gone."""
        self._peers = peers
        self._lost_for_s = lost_for_s
        self._round_trips: dict[str, float] = {}
        self._lock = threading.Lock()

    def client(self, name: str) -> PeerClient:
        """Return how a host is called."""
        return PeerClient(self._peers.peer(name), self._peers.pki)

    def facts(self) -> tuple[tuple[HostFacts, ...], tuple[Rejection, ...]]:
        """Ask all hosts for their facts; return those of the ones that answered, and why the others did not."""

        def ask(client: PeerClient) -> HostFacts:
            self._measure(client)
            return client.facts()

        return self._ask_all(ask)

    def survey(self) -> Survey:
        """Ask all hosts how they are."""
        return Survey(*self._ask_all(_ask_health))

    def round_trip_ms(self, host: str) -> float:
        """Return the round trip to a host as last measured, 0 when it never was."""
        with self._lock:
            return self._round_trips.get(host, 0.0)

    def fit_of(self, host: str, container: ContainerFacts) -> FitAnswer:
        """Ask one host whether a container fits."""
        question = FitQuestion(containers=(container,))
        return self.client(host).call("POST", "/v1/fit", question, FitAnswer, timeout_s=FIT_LIMIT_S)

    def fit(self, containers: Sequence[ContainerFacts]) -> tuple[FitAnswer, ...]:
        """Ask all hosts whether containers fit; one that is silent is asked again before a move."""
        question = FitQuestion(containers=tuple(containers))
        answers, _ = self._ask_all(
            lambda client: client.call("POST", "/v1/fit", question, FitAnswer, timeout_s=FIT_LIMIT_S)
        )
        return answers

    def hold(self, host: str, wish: Hold) -> Held:
        """Ask a host to hold memory."""
        return self.client(host).call("POST", "/v1/reservations", wish, Held, timeout_s=HEALTH_LIMIT_S)

    def _measure(self, client: PeerClient) -> None:
        """Time a second question on the same connection: one round trip and little more."""
        _ask_health(client)
        began_at = time.monotonic()
        _ask_health(client)
        with self._lock:
            self._round_trips[client.name] = (time.monotonic() - began_at) * 1000

    def _ask_all(self, ask: Callable[[PeerClient], Answer]) -> tuple[tuple[Answer, ...], tuple[Rejection, ...]]:
        names = [peer.name for peer in self._peers.peers()]
        if not names:
            return (), ()
        with ThreadPoolExecutor(min(len(names), ASKED_AT_ONCE)) as workers:
            answers: Sequence[Answer | LifeboatError] = list(
                workers.map(lambda name: _try(lambda: ask(self.client(name))), names)
            )
        found, silent = [], []
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, LifeboatError):
                since_s, reason = self._lost_for_s(name), answer.message
                also = "" if since_s is None else f"; the registry has not heard it for {since_s:.0f} s"
                silent.append(Rejection(host=name, code=answer.code, reason=reason + also))
            else:
                found.append(answer)
        return tuple(found), tuple(silent)


def _ask_health(client: PeerClient) -> HealthTold:
    told = client.call("GET", "/v1/health", None, HealthTold, timeout_s=HEALTH_LIMIT_S)
    if told.host != client.name:
        raise PeerError(f"{client.name} tells the health of {printable(told.host)}", code="peer-facts")
    return told


def _try(ask: Callable[[], Answer]) -> Answer | LifeboatError:
    try:
        return ask()
    except PeerError as error:
        return error
    except LifeboatError as error:
        return error
