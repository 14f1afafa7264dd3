"""The registry: the same tests with the hosts alone and with a real etcd; then etcd killed, cut off, lied to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from fastapi import APIRouter

from migrator.errors import LifeboatError
from migrator.health import Verdict
from migrator.model import ContainerFacts, Method
from migrator.peers.client import PeerClient
from migrator.peers.membership import remove
from migrator.peers.neighbours import Neighbours
from migrator.peers.server import Member
from migrator.protocol.journal import Decision, Journal, Side
from migrator.protocol.messages import DecisionTold
from migrator.registry.etcd import EtcdRegistry
from migrator.registry.gateway import Gateway
from migrator.registry.records import Commit, NoRecords, Presence, Registry
from migrator.registry.settings import Kind, RegistrySettings
from migrator.registry.signed import Seal
from migrator.settings import MigratorSettings
from migrator.source.migration import Journey
from migrator.target.checkpoints import Checkpoints
from migrator.target.desk import Desk
from migrator.target.hall import Hall
from migrator.target.reservations import Held, Hold
from migrator.target.staging import Stagings
from tests.lab.etcd import Etcd
from tests.pure.cluster import free_port, make_cluster, serving

pytestmark = pytest.mark.real

GIB = 1 << 30
LEASE_S = 5
SPARE_BYTES = 10 * GIB
CONTAINER = ContainerFacts(
    id="a" * 64, name="web", image="nginx", image_id="b" * 64, runtime="runc", running=True, memory_bytes=GIB
)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """Three members."""
    found = Etcd(tmp_path_factory.mktemp("etcd"), [(free_port(), free_port()) for _ in range(3)])
    found.start()
    yield found
    found.close()


@pytest.fixture(params=list(Kind))
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each registry in turn."""
    return Kind(request.param)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three hosts, of which beta can take containers."""
    with ExitStack() as stack:
        yield Cluster(tmp_path, stack)


class Cluster:
    """alpha, beta and gamma; the registry of each when it has one."""

    def __init__(self, place: Path, stack: ExitStack) -> None:
        self.hosts = {members.host: members for members in make_cluster(place / "etc", "alpha", "beta", "gamma")}
        self.stack = stack
        self.place = place
        self.registries: dict[str, Registry] = {}
        self.desk = Desk(self.hall("beta"), lambda: "", lambda: SPARE_BYTES)

    def hall(self, name: str) -> Hall:
        """Return what a desk needs to know of its host."""
        state = self.place / name
        pki, journal = self.hosts[name].pki, Journal(state / "journal.db")
        run = self.place / "run" / name
        return Hall(name, MigratorSettings(), state, run, pki, journal, Stagings(state), Checkpoints(state))

    def serve(self, name: str, *routers: APIRouter) -> None:
        """Let a host answer its peers."""
        self.stack.enter_context(serving(self.hosts[name], *routers))

    def open(self, kind: Kind, etcd: Etcd, *names: str, **changes: object) -> None:
        """Give hosts their registry, and wait until all know of all."""
        for name in names:
            if kind is Kind.EMBEDDED:
                self.registries[name] = NoRecords()
                continue
            prefix = f"/test/{self.place.name}"
            told = {"kind": kind, "endpoints": etcd.endpoints, "prefix": prefix, "lease_s": LEASE_S, "timeout_s": 1}
            settings = RegistrySettings.model_validate({**told, **changes})
            spare = SPARE_BYTES if name == "beta" else 0
            presence = Presence(host=name, verdict=Verdict.HEALTHY, spare_bytes=spare)
            registry = EtcdRegistry(settings, name, self.hosts[name].pki, partial(_self, presence))
            self.registries[name] = registry
            registry.start()
            self.stack.callback(registry.stop)
        if kind is Kind.ETCD:
            for name in names:
                wait(f"{name} to see all", partial(self.sees, name, set(names)))

    def sees(self, name: str, names: set[str]) -> bool:
        """Say whether these hosts are there for one."""
        return self.seen_by(name) == names

    def seen_by(self, name: str) -> set[str]:
        """Return the hosts that are there for one."""
        return {presence.host for presence in self.registries[name].standing().hosts}

    def hold(self, source: str, gib: int) -> bool:
        """Ask beta to hold memory, as an evacuating host does (see `Engine.hold`)."""
        wish = Hold(source=source, memory_bytes=gib * GIB, seconds=60)
        if self.registries[source].promise("beta", wish).memory_bytes < wish.memory_bytes:
            return False
        held = Neighbours(self.hosts[source]).hold("beta", wish)
        return held.memory_bytes == wish.memory_bytes

    def commit(self, migration: str) -> None:
        """Let alpha commit a migration to beta."""
        registry = self.registries["alpha"]
        registry.record(Commit(migration=migration, source="alpha", target="beta", at=time.time()))

    def lose(self, name: str) -> None:
        """Let a host fall silent."""
        registry = self.registries[name]
        if isinstance(registry, EtcdRegistry):
            registry.stop()


def _self(presence: Presence) -> Presence:
    return presence


def wait(what: str, happened: Callable[[], bool], timeout_s: float = 30) -> None:
    """Wait until something happened."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.05)


def reservations(cluster: Cluster) -> APIRouter:
    """Return beta's route for reservations, over the real desk."""
    router = APIRouter()

    @router.post("/v1/reservations")
    def hold(wish: Hold, member: Member) -> Held:
        assert wish.source == member
        return cluster.desk.hold(wish)

    return router


def test_two_evacuations_do_not_overbook_a_third_host(cluster: Cluster, etcd: Etcd, kind: Kind) -> None:
    cluster.serve("beta", reservations(cluster))
    cluster.open(kind, etcd, "alpha", "beta", "gamma")
    assert cluster.hold("alpha", 6)
    assert not cluster.hold("gamma", 6)
    assert cluster.hold("gamma", 4)
    assert cluster.hold("alpha", 6), "a promise is renewed, not added"
    assert cluster.hold("alpha", 0)
    assert cluster.hold("gamma", 9)


def test_a_decision_is_known_from_its_source_while_that_is_there(cluster: Cluster, etcd: Etcd, kind: Kind) -> None:
    """And from nowhere else: whatever the registry holds, a source that lives is asked itself."""
    hall = cluster.hall("alpha")
    desk = Desk(hall, lambda: "", lambda: 0)
    cluster.serve("alpha", desk.routes())
    cluster.open(kind, etcd, "alpha", "beta")
    journey = Journey(container=CONTAINER, target="beta", method=Method.LAZY, epoch=1)
    hall.journal.begin("a1", Side.SOURCE, "web", journey.model_dump_json())
    hall.journal.decide("a1", Decision.COMMIT)
    cluster.commit("a1")
    client = PeerClient(cluster.hosts["beta"].peer("alpha"), cluster.hosts["beta"].pki)
    told = client.call("GET", "/v1/migrations/a1/decision", None, DecisionTold, timeout_s=10)
    assert told.decision == "commit"
    assert cluster.registries["beta"].decision("a1", "alpha", "beta") is None


def test_a_dead_source_s_commit(cluster: Cluster, etcd: Etcd, kind: Kind) -> None:
    """With etcd it is known, to its target only; with the hosts alone it waits for the source, however long."""
    cluster.open(kind, etcd, "alpha", "beta", "gamma")
    beta = cluster.registries["beta"]
    cluster.commit("b1")
    if kind is Kind.EMBEDDED:
        assert beta.decision("b1", "alpha", "beta") is None
        assert beta.lost_for_s("alpha") is None
        return
    wait("the record", lambda: cluster.registries["alpha"].standing().answers and recorded(cluster, etcd, "b1"))
    cluster.lose("alpha")
    wait("the end of alpha's lease", lambda: beta.lost_for_s("alpha") is not None)
    assert beta.lost_for_s("gamma") is None
    assert beta.decision("b1", "alpha", "beta") is Decision.COMMIT
    assert beta.decision("b1", "alpha", "gamma") is None
    assert beta.decision("b1", "gamma", "beta") is None
    assert beta.decision("b2", "alpha", "beta") is None
    assert set(beta.standing().lost_s) == {"alpha"}


def gateway(cluster: Cluster, etcd: Etcd) -> Gateway:
    """Return a way into etcd beside the registry."""
    settings = RegistrySettings(kind=Kind.ETCD, endpoints=etcd.endpoints)
    pki = cluster.hosts["gamma"].pki
    return Gateway(settings, str(pki / "host.pem"), str(pki / "ca.crt"))


def recorded(cluster: Cluster, etcd: Etcd, migration: str) -> bool:
    """Say whether a commit is in etcd."""
    return gateway(cluster, etcd).get(f"/test/{cluster.place.name}/commits/{migration}") is not None


def test_one_of_three_members_is_killed(cluster: Cluster, etcd: Etcd) -> None:
    cluster.serve("beta", reservations(cluster))
    cluster.open(Kind.ETCD, etcd, "alpha", "beta", "gamma")
    etcd.kill(0)
    try:
        assert cluster.hold("alpha", 6)
        assert not cluster.hold("gamma", 6)
        cluster.commit("c1")
        wait("the record", lambda: recorded(cluster, etcd, "c1"))
        seen = time.monotonic()
        while time.monotonic() < seen + 2 * LEASE_S:  # for two leases nobody is thought to be gone
            assert cluster.seen_by("beta") == {"alpha", "beta", "gamma"}
            time.sleep(0.2)
        assert cluster.registries["alpha"].standing().answers
    finally:
        etcd.start(0)


def test_etcd_is_gone_and_comes_back(cluster: Cluster, etcd: Etcd) -> None:
    """Nothing waits for it: promises are the target's, commits are kept until they can be told."""
    cluster.serve("beta", reservations(cluster))
    cluster.open(Kind.ETCD, etcd, "alpha", "beta", "gamma")
    etcd.kill()
    try:
        assert cluster.hold("alpha", 6)
        assert not cluster.hold("gamma", 6), "the target itself still counts"
        began = time.monotonic()
        cluster.commit("d1")
        assert time.monotonic() - began < 1
        wait("alpha to notice", lambda: not cluster.registries["alpha"].standing().answers)
        wait("what was seen to be too old", lambda: not cluster.registries["beta"].standing().lost_s)
        assert cluster.registries["beta"].lost_for_s("alpha") is None, "silence of etcd says nothing about a host"
    finally:
        etcd.start()
    wait("alpha to be heard", lambda: cluster.registries["alpha"].standing().answers)
    wait("the record", lambda: recorded(cluster, etcd, "d1"))
    wait("all to see all", lambda: cluster.seen_by("beta") == {"alpha", "beta", "gamma"})


def test_a_member_that_answers_nothing(cluster: Cluster, etcd: Etcd) -> None:
    """It takes connections and is silent, as behind a cut cable: another is asked."""
    cluster.open(Kind.ETCD, etcd, "alpha", "beta")
    etcd.pause(0)
    try:
        began = time.monotonic()
        assert (
            cluster.registries["alpha"]
            .promise("beta", Hold(source="alpha", memory_bytes=GIB, seconds=5))
            .memory_bytes
        )
        assert time.monotonic() - began < LEASE_S * 3
        wait("a turn", lambda: cluster.registries["alpha"].standing().answers)
    finally:
        etcd.resume(0)
        etcd.wait_healthy()


def test_all_members_answer_nothing(cluster: Cluster, etcd: Etcd) -> None:
    cluster.open(Kind.ETCD, etcd, "alpha", "beta")
    etcd.pause(0, 1, 2)
    try:
        wish = Hold(source="alpha", memory_bytes=99 * GIB, seconds=5)
        assert cluster.registries["alpha"].promise("beta", wish).memory_bytes == wish.memory_bytes
        assert cluster.registries["beta"].decision("e1", "alpha", "beta") is None
    finally:
        etcd.resume(0, 1, 2)
        etcd.wait_healthy()


def test_what_others_write_there_is_not_believed(
    cluster: Cluster, etcd: Etcd, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever can write to etcd can delete, and lie about nothing: not a commit, not health, not a promise."""
    cluster.open(Kind.ETCD, etcd, "alpha", "beta", "gamma")
    prefix = f"/test/{cluster.place.name}"
    key = f"{prefix}/commits/f1"
    lie = Commit(migration="f1", source="alpha", target="beta", at=0)
    (stranger,) = make_cluster(tmp_path / "elsewhere", "alpha")
    elsewhere = Seal(cluster.hosts["alpha"].pki).sign(f"{prefix}/commits/f0", lie)
    cluster.lose("alpha")
    beta = cluster.registries["beta"]
    wait("the end of alpha's lease", lambda: beta.lost_for_s("alpha") is not None)
    into = gateway(cluster, etcd)
    for data in (
        b"",
        b"{}",
        lie.model_dump_json().encode(),
        Seal(cluster.hosts["gamma"].pki).sign(key, lie),
        Seal(stranger.pki).sign(key, lie),
        elsewhere,
    ):
        into.put(key, data)
        assert beta.decision("f1", "alpha", "beta") is None
    caplog.clear()
    into.put(f"{prefix}/hosts/alpha", Seal(cluster.hosts["gamma"].pki).sign(f"{prefix}/hosts/alpha", lie))
    wait("beta to look", lambda: "was not written by alpha" in caplog.text)
    assert "alpha" not in cluster.seen_by("beta")
    into.put(key, Seal(cluster.hosts["alpha"].pki).sign(key, lie))
    assert beta.decision("f1", "alpha", "beta") is Decision.COMMIT, "its own word would have counted"
    cluster.hosts["beta"].learn(remove(cluster.hosts["alpha"].directory, "gamma"))
    wait("gamma's word to count no more", lambda: "gamma" not in cluster.seen_by("beta"))


def test_an_etcd_that_asks_for_certificates(cluster: Cluster, tmp_path: Path) -> None:
    """With certificates of the cluster itself, which is the default; nobody else is served."""
    alpha = cluster.hosts["alpha"]
    secured = Etcd(tmp_path / "tls", [(free_port(), free_port())], pki=alpha.pki)
    secured.start()
    try:
        cluster.open(Kind.ETCD, secured, "alpha", "beta")
        (stranger,) = make_cluster(tmp_path / "elsewhere", "alpha")
        settings = RegistrySettings(kind=Kind.ETCD, endpoints=secured.endpoints)
        foreign = Gateway(settings, str(stranger.pki / "host.pem"), str(alpha.pki / "ca.crt"))
        with pytest.raises(LifeboatError, match="does not answer"):
            foreign.read("/test")
    finally:
        secured.close()
