"""Streams and page links under a fuzzer, under callers that dawdle, and under too many of them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migrator.errors import PeerError, PrerequisiteError
from migrator.pager.greeting import BULK, FAULTS, GREETING_BYTES, VERSION
from migrator.peers import membership, server, stream_server
from migrator.peers.client import PeerClient
from migrator.peers.limits import AT_ONCE, Limits, Receive, Scope, Send, Use
from migrator.peers.membership import PeerDirectory
from migrator.peers.roll import Peer
from migrator.peers.stream_server import StreamServer, feed_command
from migrator.peers.streams import HEADER_LIMIT_BYTES, PART, Header, open_stream, send_command_output
from migrator.peers.tls import Door
from tests.pure.cluster import LOOPBACK, connect, free_port, host_facts, listening, make_cluster, serving
from tests.pure.sink_process import SinkProcess

EXAMPLES = int(os.environ.get("LIFEBOAT_FUZZ_EXAMPLES", "25"))


class Streams:
    """Beta's stream port; alpha and gamma may call."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.alpha, self.beta, self.gamma = make_cluster(place / "etc", "alpha", "beta", "gamma")
        self.peer = listening(self.beta, free_port(), free_port())
        self.server = StreamServer(
            {"feed": self.feed, "wait": self.wait}, self.beta.pki, LOOPBACK, self.peer.stream_port
        )
        self.waiting = threading.Event()
        self.server.start()

    def feed(self, header: Header, link: ssl.SSLSocket) -> None:
        """Take a stream into a file."""
        if header["peer"] != "alpha":
            raise PrerequisiteError("not yours", code="unknown-migration")
        feed_command(link, ["tee", str(self.place / "fed")], 10, most_bytes=1 << 20)

    def wait(self, _: Mapping[str, str], link: ssl.SSLSocket) -> None:
        """Hold a stream open."""
        link.sendall(b"{}\n")
        self.waiting.set()
        link.recv(1)

    def link(self, caller: PeerDirectory | None = None) -> ssl.SSLSocket:
        """Call the port."""
        return connect(caller or self.alpha, self.peer, self.peer.stream_port)

    def works(self) -> bool:
        """Say whether a good stream still gets through."""
        send_command_output(self.alpha.directory, "beta", {"kind": "feed"}, ["echo", "hello"], 10)
        return (self.place / "fed").read_text() == "hello\n"


def test_what_goes_to_a_host_that_is_removed_meanwhile_is_cut(tmp_path: Path) -> None:
    began = threading.Event()

    def swallow(_: Mapping[str, str], link: ssl.SSLSocket) -> None:
        link.sendall(b"{}\n")
        began.set()
        while link.recv(1 << 16):
            pass

    alpha, beta = make_cluster(tmp_path, "alpha", "beta")
    peer = listening(beta, free_port(), free_port())
    server = StreamServer({"swallow": swallow}, beta.pki, LOOPBACK, peer.stream_port)
    server.start()
    removing = threading.Thread(target=lambda: began.wait(30) and membership.remove(alpha.directory, "beta"))
    removing.start()
    try:
        client = PeerClient(peer, alpha.pki)
        with pytest.raises(PeerError) as cut:
            send_command_output(
                alpha.directory, "beta", {"kind": "swallow"}, ["yes"], 30, go_on=client.check_listed
            )
    finally:
        removing.join()
        server.stop()
    assert cut.value.code == "no-member"


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Streams]:
    """A stream port."""
    found = Streams(tmp_path_factory.mktemp("streams"))
    yield found
    found.server.stop()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
HEADERS = st.one_of(
    st.binary(max_size=6000),
    JSON.map(lambda value: json.dumps(value).encode() + b"\n"),
    st.dictionaries(st.sampled_from(["kind", "migration", "tree", "command", "peer"]), JSON).map(
        lambda value: json.dumps({"kind": "feed", **value}).encode() + b"\n"
    ),
    st.integers(1, 5000).map(lambda depth: b"[" * depth + b"\n"),
)


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(header=HEADERS, body=st.binary(max_size=200))
def test_any_header_is_answered_or_cut(streams: Streams, header: bytes, body: bytes) -> None:
    """Whatever is said, the caller gets one JSON line or the end, and soon."""
    with streams.link() as link:
        with suppress(OSError):
            link.sendall(header + body)
            socket.socket.shutdown(link, socket.SHUT_WR)
        link.settimeout(20)
        answer = b""
        with suppress(ConnectionError, ssl.SSLError):
            while part := link.recv(4096):
                answer += part
    for line in answer.splitlines():
        assert isinstance(json.loads(line), dict)


def test_after_all_that_streams_work(streams: Streams) -> None:
    assert streams.works()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (PART.pack(1 << 31) + b"x", "larger than"),
        ((PART.pack(1 << 19) + bytes(1 << 19)) * 3, "larger than"),
        (PART.pack(10) + b"short", "hung up"),
    ],
    ids=["part", "sum", "cut"],
)
def test_a_stream_has_its_limits(streams: Streams, body: bytes, said: str) -> None:
    with streams.link() as link:
        link.sendall(b'{"kind": "feed"}\n')
        assert link.recv(3) == b"{}\n"
        with suppress(OSError):  # it may have been cut before we were done
            link.sendall(body)
        with suppress(OSError):
            socket.socket.shutdown(link, socket.SHUT_WR)
        link.settimeout(20)
        answer = b""
        with suppress(OSError):
            answer = link.recv(4096)
    assert not answer or said in answer.decode()
    assert streams.works()


def test_callers_without_a_word_are_few_and_not_for_long(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-open handshakes from one address take its own places only, and those are free again soon."""
    monkeypatch.setattr("migrator.peers.tls.HANDSHAKE_S", 1.0)
    monkeypatch.setattr(streams.server, "_door", Door(most=8, most_of_one=4))
    with ExitStack() as stack:
        idle = [
            stack.enter_context(socket.create_connection((LOOPBACK, streams.peer.stream_port))) for _ in range(6)
        ]
        idle[-1].settimeout(20)
        assert ended(idle[-1]), "the fifth and sixth are not even heard"
        idle[0].settimeout(20)
        assert ended(idle[0]), "the others are not waited for"
        assert ended(idle[1])  # and by then the first one's place is free
        monkeypatch.setattr("migrator.peers.tls.HANDSHAKE_S", 30.0)  # this one is honest, and the machine busy
        assert streams.works()


def ended(connection: socket.socket) -> bool:
    """Say whether the other side has hung up."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_a_header_that_does_not_come(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is for the whole line: a byte now and then wins nothing."""
    monkeypatch.setattr(stream_server, "HEADER_TIMEOUT_S", 1.0)
    with streams.link() as link:
        link.settimeout(0.2)
        for _ in range(HEADER_LIMIT_BYTES - 2):  # so many of them at the most, then the line is too long anyway
            try:
                link.sendall(b" ")
                assert link.recv(1000), "it is cut, or told why"
            except TimeoutError:
                continue
            except OSError:
                pass
            break
        else:
            pytest.fail("it was never cut")


def test_a_door_counts() -> None:
    door = Door(most=3, most_of_one=2)
    assert [door.enter("a"), door.enter("a"), door.enter("a"), door.enter("b"), door.enter("c")] == [
        True, True, False, True, False,
    ]  # fmt: skip
    door.leave("a")
    assert door.enter("c")


def test_one_host_has_so_many_streams(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_server, "MOST_OF_ONE", 2)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(open_stream(streams.alpha.directory, "beta", {"kind": "wait"}))
        with pytest.raises(PeerError, match="has 2 streams already"):
            open_stream(streams.alpha.directory, "beta", {"kind": "wait"})
        stack.enter_context(open_stream(streams.gamma.directory, "beta", {"kind": "wait"}))


def test_a_removed_host_loses_its_open_streams(tmp_path: Path) -> None:
    streams = Streams(tmp_path)
    try:
        with (
            open_stream(streams.gamma.directory, "beta", {"kind": "wait"}) as theirs,
            open_stream(streams.alpha.directory, "beta", {"kind": "wait"}) as ours,
        ):
            streams.beta.learn(membership.remove(streams.alpha.directory, "gamma"))
            streams.server.look()
            theirs.settimeout(10)
            assert ended(theirs)
            ours.settimeout(0.2)
            with pytest.raises(TimeoutError):
                ours.recv(1)
        with pytest.raises(PeerError, match="does not answer"):
            open_stream(streams.gamma.directory, "beta", {"kind": "wait"})
    finally:
        streams.server.stop()


@pytest.fixture(scope="module")
def sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SinkProcess]:
    """A page sink."""
    found = SinkProcess(tmp_path_factory.mktemp("sink"))
    yield found
    found.close()


def words(*parts: str) -> bytes:
    """Return a greeting."""
    return " ".join(parts).encode().ljust(GREETING_BYTES)


def answer(link: socket.socket) -> bytes:
    """Return all that the sink says to a greeting, empty when it says nothing; OSError is silence as well."""
    said = b""
    with suppress(OSError):
        while len(said) < GREETING_BYTES and (part := link.recv(GREETING_BYTES)):
            said += part
    return said


def taken(link: socket.socket) -> bool:
    """Say whether the sink keeps a link."""
    link.settimeout(5)
    return b"welcome" in answer(link) and quiet(link)


def quiet(link: socket.socket) -> bool:
    """Say whether a link stays open and nothing comes."""
    link.settimeout(0.5)
    try:
        return link.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


def turned_away(link: socket.socket) -> bool:
    """Say whether the sink, having said why or nothing, hangs up."""
    return b"welcome" not in answer(link) and ended(link)


def test_only_the_source_of_this_migration_is_taken(sink: SinkProcess) -> None:
    for caller, greeting in (
        (sink.gamma, words(VERSION, "0a0a", "one", FAULTS)),
        (sink.alpha, words(VERSION, "0b0b", "one", FAULTS)),
        (sink.alpha, words("lifeboat-pager/1", "0a0a", "one", FAULTS)),
        (sink.alpha, words(VERSION, "0a0a", "two", FAULTS)),
        (sink.alpha, words(VERSION, "0a0a")),
        (sink.alpha, b"\xff" * GREETING_BYTES),
    ):
        with sink.greet(caller, greeting) as link:
            assert turned_away(link), greeting
    with sink.greet(sink.alpha, words(VERSION, "0a0a", "one", FAULTS)) as link:
        assert taken(link)


def test_the_source_is_heard_while_strangers_dawdle(sink: SinkProcess) -> None:
    """Handshakes that nobody finishes do not keep the source waiting: its container may stand still meanwhile."""
    with ExitStack() as stack:
        strangers = [stack.enter_context(socket.create_connection((LOOPBACK, sink.port))) for _ in range(8)]
        link = stack.enter_context(sink.greet(sink.alpha, words(VERSION, "0a0a", "one", f"{BULK}0")))
        assert taken(link)
        assert any(quiet(stranger) for stranger in strangers), "it did not wait for all of them, one by one"


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=200))
def test_any_greeting_is_taken_or_cut(sink: SinkProcess, data: bytes) -> None:
    with sink.greet(sink.alpha, data) as link:
        with suppress(OSError):
            socket.socket.shutdown(link, socket.SHUT_WR)
        assert turned_away(link)
    assert sink.process.poll() is None


def test_a_removed_source_loses_its_page_links(tmp_path: Path) -> None:
    sink = SinkProcess(tmp_path)
    try:
        with sink.greet(sink.alpha, words(VERSION, "0a0a", "one", FAULTS)) as link:
            assert taken(link)
            # alpha holds the authority and cannot remove itself, so beta is told of a new one for the name.
            membership.invite(sink.alpha.directory, "alpha", LOOPBACK)
            sink.beta.learn(sink.alpha.roll)
            link.settimeout(15)
            assert ended(link)
    finally:
        sink.close()


def test_half_a_request_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_WAIT_S", 1.0)
    monkeypatch.setattr(server, "HANDSHAKE_S", 1.0)
    alpha, beta = make_cluster(tmp_path, "alpha", "beta")
    with serving(beta) as peer, ExitStack() as stack:
        silent = stack.enter_context(connect(alpha, peer))
        half = stack.enter_context(connect(alpha, peer, greeting=[b"GET /v1/facts HTTP/1.1\r\nHost: b\r\n"]))
        kept = stack.enter_context(connect(alpha, peer))
        plain = stack.enter_context(socket.create_connection((LOOPBACK, peer.port)))
        kept.sendall(b"GET /v1/facts HTTP/1.1\r\nHost: beta\r\n\r\n")
        assert b"200 OK" in kept.recv(4096)
        for link in (silent, half, plain):
            link.settimeout(10)
            assert ended(link)
        kept.sendall(b"GET /v1/facts HTTP/1.1\r\nHost: beta\r\n\r\n")
        kept.settimeout(10)
        answer = kept.recv(65536)
        while b"200 OK" not in answer:
            answer += kept.recv(65536)


def test_bodies_have_an_end(tmp_path: Path) -> None:
    alpha, beta = make_cluster(tmp_path, "alpha", "beta")
    with serving(beta) as peer:
        post = b"POST /v1/peers HTTP/1.1\r\nHost: b\r\n"
        with connect(alpha, peer, greeting=[post + b"Content-Length: 99999999999\r\n\r\n"]) as link:
            link.settimeout(20)
            assert link.recv(4096).split(b" ")[1] == b"413"
        with connect(alpha, peer, greeting=[post + b"Transfer-Encoding: chunked\r\n\r\n"]) as link:
            link.settimeout(20)
            chunks = (b"100000\r\n" + bytes(1 << 20) + b"\r\n") * 10
            sender = threading.Thread(target=send_quietly, args=(link, chunks))
            sender.start()
            # FastAPI makes a 400 of whatever happens while it reads a body. Whoever hangs up on a sender may lose
            # its own answer, for what was not read resets the connection (RFC 9112, 9.6).
            with suppress(ConnectionError, ssl.SSLError):
                answer = link.recv(4096)
                assert not answer or answer.split(b" ")[1] in (b"413", b"400")
            sender.join(20)
            assert not sender.is_alive()


def send_quietly(link: ssl.SSLSocket, body: bytes) -> None:
    """Send until it is cut."""
    with suppress(OSError):
        link.sendall(body)


@pytest.mark.parametrize(("body_time_s", "status"), [(0.2, 408)])
def test_a_body_that_does_not_come(body_time_s: float, status: int) -> None:
    said: list[int] = []

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()

    async def never() -> dict[str, object]:
        await asyncio.sleep(30)
        return {}

    async def send(message: Mapping[str, object]) -> None:
        if "status" in message:
            said.append(int(str(message["status"])))

    scope = {"type": "http", "path": "/v1/x", "headers": []}
    asyncio.run(Limits(app, body_time_s=body_time_s)(scope, never, send))
    assert said == [status]


def test_requests_at_once_and_a_second() -> None:
    use = Use(left=2.0, seen_at=0.0)
    assert [use.take(0.0), use.take(0.0), use.take(0.0)] == [True, True, False]
    assert use.take(0.02), "they come back with time"
    assert AT_ONCE < 40, "one caller must not have all of the server's threads"


def test_the_facts_of_a_host_are_its_own(tmp_path: Path) -> None:
    """A host that tells another one's facts would be chosen, or not chosen, in its place."""
    alpha, beta = make_cluster(tmp_path, "alpha", "beta")
    app = server.build_app(lambda: host_facts("gamma"))
    with serving(beta, app=app) as peer, pytest.raises(PeerError, match="tells facts of gamma"):
        PeerClient(peer, alpha.pki).facts()


def test_an_answer_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migrator.peers.client.ANSWER_LIMIT_BYTES", 1000)
    alpha, beta = make_cluster(tmp_path, "alpha", "beta")
    facts = host_facts("beta").model_copy(update={"image_ids": tuple("x" * 64 for _ in range(5000))})
    app = server.build_app(lambda: facts)
    with serving(beta, app=app) as peer, pytest.raises(PeerError, match="does not come to an end"):
        PeerClient(Peer(name="beta", address=LOOPBACK, port=peer.port), alpha.pki).facts()
