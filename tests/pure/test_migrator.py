"""The parts of the migrator that need no root: journal, choice, plan, peers, pager, frames."""

from __future__ import annotations

import json
import multiprocessing
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from migrator.control import ControlClient, ControlServer
from migrator.errors import PeerError, PrerequisiteError, UsageError
from migrator.model import HostFacts
from migrator.network.announce import announcements
from migrator.pager.pending import Pending
from migrator.peers import membership
from migrator.peers.client import PeerClient
from migrator.peers.relay import LinkLostError, PlainEndedError, Relay
from migrator.peers.roll import Peer
from migrator.peers.server import PeerServer, build_app
from migrator.peers.stream_server import StreamServer, feed_command
from migrator.peers.streams import send_command_output
from migrator.peers.tls import client_context, server_context
from migrator.protocol.journal import Decision, Journal, Side
from migrator.runtime.criu_log import first_error
from migrator.storage.overlay import find
from migrator.storage.tree import SAFE_AGE_NS, Difference, Snapshot, compare
from tests.pure.values import host


def decide_often(path: Path, word: Decision, results: list[str]) -> None:
    """Decide a hundred migrations."""
    journal = Journal(path)
    results += [journal.decide(str(number), word) for number in range(100)]


def test_the_first_decision_wins_between_processes(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    Journal(path)
    with multiprocessing.get_context("spawn").Manager() as manager:
        lists = {word: manager.list() for word in Decision}
        context = multiprocessing.get_context("spawn")
        processes = [context.Process(target=decide_often, args=(path, word, lists[word])) for word in Decision]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
        assert list(lists[Decision.COMMIT]) == list(lists[Decision.ABORT])
        assert len(lists[Decision.COMMIT]) == 100


def test_the_journal_remembers_what_is_unfinished(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.begin("a", Side.SOURCE, "web", "{}")
    journal.begin("a", Side.SOURCE, "other", "{}")
    again = Journal(tmp_path / "journal.db")
    assert [(entry.migration, entry.container, entry.decision) for entry in again.entries(unfinished=True)] == [
        ("a", "web", None)
    ]
    assert again.decide("a", Decision.COMMIT) is Decision.COMMIT
    assert journal.decide("a", Decision.ABORT) is Decision.COMMIT


def test_a_control_socket_tells_that_the_other_end_has_died_without_reading(tmp_path: Path) -> None:
    server = ControlServer(tmp_path / "control.sock")
    client = ControlClient(tmp_path / "control.sock", timeout_s=5, what="the shim")
    assert server.wait(0.1) is None
    assert not client.gone
    server.say({"event": "ready"})
    server.close()
    assert client.gone
    assert client.listen(timeout_s=1) == {"event": "ready"}
    client.close()
    assert client.gone


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def cluster(tmp_path: Path) -> tuple[Path, Path]:
    """Two hosts of one cluster: their settings directories."""
    alpha, beta = tmp_path / "alpha", tmp_path / "beta"
    membership.init(alpha, "alpha", "127.0.0.1")
    membership.join(beta, membership.invite(alpha, "beta", "127.0.0.1"))
    return alpha, beta


@pytest.fixture
def server(cluster: tuple[Path, Path]) -> Iterator[Peer]:
    """Beta's peer API on loopback."""
    port = free_port()

    def facts() -> HostFacts:
        return host("beta")

    found = PeerServer(build_app(facts), cluster[1] / "pki", "127.0.0.1", port)
    found.start()
    yield Peer(name="beta", address="127.0.0.1", port=port)
    found.stop()


def test_peers_know_each_other(cluster: tuple[Path, Path]) -> None:
    alpha, beta = (membership.PeerDirectory(path) for path in cluster)
    assert [peer.name for peer in alpha.peers()] == ["beta"]
    assert [peer.name for peer in beta.peers()] == ["alpha"]
    assert oct((cluster[1] / "pki/host.pem").stat().st_mode & 0o777) == "0o600"
    with pytest.raises(UsageError, match="is no host of this cluster"):
        alpha.peer("gamma")
    with pytest.raises(PrerequisiteError, match="already"):
        membership.init(cluster[0], "alpha", "127.0.0.1")
    with pytest.raises(PrerequisiteError, match="authority's key is not on this host"):
        membership.invite(cluster[1], "gamma", "127.0.0.1")


def test_a_peer_answers_a_peer(cluster: tuple[Path, Path], server: Peer) -> None:
    assert PeerClient(server, cluster[0] / "pki").facts().host == "beta"


def test_nobody_else_is_heard(cluster: tuple[Path, Path], server: Peer, tmp_path: Path) -> None:
    url = f"https://127.0.0.1:{server.port}/v1/facts"
    with pytest.raises(requests.RequestException):
        requests.get(url, verify=str(cluster[0] / "pki/ca.crt"), timeout=5)
    membership.init(tmp_path / "stranger", "alpha", "127.0.0.1")
    (tmp_path / "stranger/peers.json").unlink()  # so that it calls whom it likes
    with pytest.raises(PeerError, match="cannot be reached"):
        PeerClient(server, tmp_path / "stranger/pki").facts()
    membership.invite(cluster[0], "gamma", "127.0.0.1")
    impostor = Peer(name="gamma", address=server.address, port=server.port)
    with pytest.raises(PeerError, match="cannot be reached"):
        PeerClient(impostor, cluster[0] / "pki").facts()


def test_a_stream_carries_a_program_s_output(cluster: tuple[Path, Path], tmp_path: Path) -> None:
    target, port = tmp_path / "copy", free_port()
    server = StreamServer(
        {"file": lambda _header, link: feed_command(link, ["tee", str(target)], 30)},
        cluster[1] / "pki",
        "127.0.0.1",
        port,
    )
    server.start()
    roll = json.loads((cluster[0] / "peers.json").read_text())
    for peer in roll["roll"]["peers"]:
        peer["stream_port"] = port
    (cluster[0] / "peers.json").write_text(json.dumps(roll))
    source = tmp_path / "file"
    source.write_bytes(bytes(range(256)) * 40_000)
    send_command_output(cluster[0], "beta", {"kind": "file"}, ["cat", str(source)], 30)
    assert target.read_bytes() == source.read_bytes()
    with pytest.raises(PeerError, match="no such stream"):
        send_command_output(cluster[0], "beta", {"kind": "other"}, ["true"], 30)
    server.stop()


def test_a_relay_carries_both_ways_and_says_who_ended(cluster: tuple[Path, Path]) -> None:
    left, right = socket.socketpair()
    ours, program = socket.socketpair()
    accepted: list[ssl.SSLSocket] = []

    def accept() -> None:
        accepted.append(server_context(cluster[1] / "pki").wrap_socket(right, server_side=True))

    thread = threading.Thread(target=accept)
    thread.start()
    link = client_context(cluster[0] / "pki").wrap_socket(left, server_hostname="beta")
    thread.join()
    ended: list[Exception] = []

    def carry() -> None:
        try:
            Relay(accepted[0], ours).run()
        except (LinkLostError, PlainEndedError) as error:
            ended.append(error)

    relay = threading.Thread(target=carry)
    relay.start()
    payload = b"x" * 3_000_000
    sender = threading.Thread(target=link.sendall, args=(payload,))
    sender.start()
    got = b""
    while len(got) < len(payload):
        got += program.recv(1 << 20)
    sender.join()
    program.sendall(b"answer")
    assert got == payload
    assert link.recv(100) == b"answer"
    program.close()
    relay.join(10)
    assert isinstance(ended[0], PlainEndedError)
    for end in (link, accepted[0], ours):
        end.close()


def test_pending_pages_follow_what_the_process_does() -> None:
    pending = Pending.of([(0, 100), (200, 300)])
    pending.drop(10, 20)
    pending.move(200, 1000, 50)
    assert [(r.start, r.end, r.origin) for r in pending.find(0, 2000)] == [
        (0, 10, 0),
        (20, 100, 20),
        (250, 300, 250),
        (1000, 1050, 200),
    ]
    assert pending.bytes == 190
    following = pending.next(290, 5)
    assert following is not None
    assert (following.start, following.end, following.origin) == (290, 295, 290)
    around = pending.next(5000, 1 << 20)
    assert around is not None
    assert around.start == 0
    child = pending.copy()
    pending.drop(0, 5000)
    assert pending.empty
    assert child.bytes == 190


def test_announcements_are_well_formed() -> None:
    frames = announcements("eth0", "02:00:00:00:00:01", ("10.0.0.5/24", "fd00::5/64"))
    assert [len(frame.frame) for frame in frames] == [42, 42, 86]
    advertisement = frames[2].frame
    body = advertisement[54:]
    pseudo = advertisement[22:54] + len(body).to_bytes(4, "big") + b"\0\0\0\x3a"
    words = pseudo + body
    total = sum(int.from_bytes(words[i : i + 2], "big") for i in range(0, len(words), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


def test_what_changed_since_a_copy() -> None:
    now = 10 * SAFE_AGE_NS
    regular = stat.S_IFREG | 0o644
    old, new = (1, 5, regular, 0, 0), (1, 5, regular, 0, now)
    before = Snapshot(now, {"a": old})
    assert not compare(before, Snapshot(now, {"a": old})).changed
    assert compare(before, Snapshot(now, {"a": new})) == Difference(changed=True, doubtful=("a",))
    assert compare(before, Snapshot(now, {})) == Difference(changed=True, doubtful=())
    recent = (1, 5, regular, now, now)
    assert compare(Snapshot(now, {"a": recent}), Snapshot(now, {"a": recent})).doubtful == ("a",)
    pipe = (1, 0, stat.S_IFIFO | 0o644, now, now)
    assert compare(before, Snapshot(now, {"a": old, "b": pipe})) == Difference(changed=True, doubtful=())


def test_an_overlay_is_found_in_mountinfo() -> None:
    text = (
        "36 35 0:32 / /other rw - overlay overlay rw,lowerdir=/l,upperdir=/wrong,workdir=/w\n"
        "37 35 0:33 / /a\\040b rw,relatime shared:1 - overlay overlay rw,lowerdir=/l,upperdir=/up,workdir=/w\n"
    )
    mount = find(Path("/a b"), text)
    assert mount.upper == Path("/up")
    assert mount.options == "rw,relatime,lowerdir=/l,upperdir=/up,workdir=/w"


def test_crius_first_error_is_the_cause(tmp_path: Path) -> None:
    log = tmp_path / "dump.log"
    log.write_text(
        "(00.000001) Version\n(00.001) Error (criu/tun.c:85): tun: no\n"
        "(00.002)     12: Error (criu/files.c:1): Can't dump file\n(00.003) Error (criu/x.c:2): echo\n"
    )
    assert first_error(log) == "Can't dump file (criu/files.c:1)"
    log.write_text('{"level":"error","msg":"container exists"}\n')
    assert first_error(log) == "container exists"
    assert first_error(tmp_path / "none") == ""
