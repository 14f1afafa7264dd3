"""The pager's decisions and formats, without any memory of others."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import threading
from array import array
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from migrator.errors import ExecutionError, NotAllowedError, PeerError
from migrator.pager import native, packing
from migrator.pager.greeting import GREETING_BYTES, VERSION, greet, read_greeting, receive_held, receive_pages
from migrator.pager.links import Link, SocketLink, call_link, welcome_link
from migrator.pager.memory import FrozenMemory, MemoryGoneError
from migrator.pager.packing import ANSWER, BAD, COMPRESSED, MOST_PAGES, PAGE_BYTES, PLAIN, WHOLE, ZERO, Pages
from migrator.pager.pending import Pending, Range
from migrator.pager.rate import Compression, Economy, Throttle
from migrator.pager.space import Space
from migrator.pager.statistics import Rate, Statistics
from migrator.peers import membership

ONE, TWO = b"\1" * PAGE_BYTES, b"\2" * PAGE_BYTES
NOTHING = bytes(PAGE_BYTES)


def packed(*pages: bytes, bad: frozenset[int] = frozenset()) -> tuple[list[int], bytes]:
    """Pack pages; return their kinds and what is left of them."""
    data, kinds = memoryview(bytearray(b"".join(pages))), memoryview(bytearray(2 * len(pages)))
    kept = packing.pack(data, kinds, bad)
    return list(array("H", bytes(kinds))), bytes(data[: kept * PAGE_BYTES])


@pytest.fixture(params=["C", "Python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to do it; the C part has to be there, as `./run` builds it."""
    if request.param == "Python":
        monkeypatch.setattr(native, "_library", None)
        monkeypatch.setattr(native, "BUILT", False)
    else:
        assert native.BUILT
    return str(request.param)


def test_zeros_and_repeated_pages_are_not_sent(way: str) -> None:
    assert packed(ONE, NOTHING, TWO, ONE, NOTHING, TWO) == ([WHOLE, ZERO, WHOLE, 0, ZERO, 2], ONE + TWO)
    assert packed(NOTHING) == ([ZERO], b"")
    almost = bytes(PAGE_BYTES - 1) + b"\1"
    assert packed(almost, NOTHING) == ([WHOLE, ZERO], almost)
    assert packed(ONE, TWO, ONE, bad=frozenset({1})) == ([WHOLE, BAD, 0], ONE)


def test_both_ways_pack_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = random.Random(1)  # noqa: S311
    kinds = [NOTHING, ONE, TWO, *(choose.randbytes(PAGE_BYTES) for _ in range(40))]
    pages = [choose.choice(kinds) for _ in range(MOST_PAGES)]
    by_c = packed(*pages)
    monkeypatch.setattr(native, "_library", None)
    assert packed(*pages) == by_c
    assert unpacked(by_c[0], by_c[1]) == b"".join(pages)


def unpacked(kinds: list[int], data: bytes) -> bytes:
    """Put an answer's pages together again."""
    answer = Pages(len(kinds), memoryview(data), packing.kinds_of(array("H", kinds).tobytes()))
    found = b""
    for piece in answer.pieces(0, len(kinds)):
        assert len(found) == piece.first * PAGE_BYTES
        found += bytes((piece.last - piece.first) * PAGE_BYTES) if piece.data is None else bytes(piece.data)
    return found


def test_pieces_are_runs() -> None:
    data = memoryview(ONE + TWO)
    pages = Pages(6, data, array("H", [WHOLE, WHOLE, ZERO, ZERO, 1, BAD]))
    found = [
        (p.first, p.last, p.bad, None if p.data is None else bytes(p.data[::PAGE_BYTES]))
        for p in pages.pieces(0, 6)
    ]
    assert found == [
        (0, 2, False, b"\1\2"),
        (2, 4, False, None),
        (4, 5, False, b"\2"),
        (5, 6, True, None),
    ]
    assert [(p.first, p.last) for p in pages.pieces(1, 3)] == [(1, 2), (2, 3)]
    assert [(p.first, p.last) for p in Pages(6, data, None).pieces(0, 2)] == [(0, 2)]


@pytest.mark.parametrize("kinds", [[0], [WHOLE, 1], [WHOLE, ZERO, 1], [WHOLE, 0, 1]])
def test_an_answer_that_names_pages_it_has_not_is_refused(kinds: list[int]) -> None:
    with pytest.raises(ExecutionError, match="not there"):
        packing.kinds_of(array("H", kinds).tobytes())


def test_a_compressed_answer_must_hold_what_it_says() -> None:
    compressor = packing.compressor(True)
    into = memoryview(bytearray(2 * PAGE_BYTES))
    packing.decompress(memoryview(compressor.compress(ONE + TWO)), into)
    assert bytes(into) == ONE + TWO
    for wrong in (compressor.compress(ONE), compressor.compress(ONE * 3), b"junk"):
        with pytest.raises(ExecutionError):
            packing.decompress(memoryview(wrong), into)


def test_a_throttle_keeps_its_rate() -> None:
    throttle = Throttle(1000)
    now = 100.0
    for _ in range(100):
        now += throttle.delay_s(now, 100)
    assert now == pytest.approx(110, abs=0.2)
    assert Throttle(0).delay_s(0, 1 << 40) == 0


def test_compression_is_taken_where_it_is_faster() -> None:
    economy = Economy(Compression.AUTO)
    taken = []
    for _ in range(200):
        way = economy.compress()
        taken.append(way)
        economy.learn(way, 1 << 20, 0.002 if way else 0.010)
    assert sum(taken) > 190
    assert not all(taken[-70:]), "the other way is tried again"
    assert Economy(Compression.ON).compress()
    assert not Economy(Compression.OFF).compress()


def test_statistics_tell_rate_eta_and_percentiles() -> None:
    found = Statistics()
    for latency in [0.00004] * 98 + [0.0015, 0.3]:
        found.latencies.note(latency)
    found.tell(0.0, 3000)
    found.received_bytes = 1000
    told = found.tell(1.0, 2000)
    assert (told["bytes_per_s"], told["eta_s"]) == (1000, 2.0)
    assert (told["fault_median_us"], told["fault_p99_us"]) == (50, 2000)
    assert Rate().bytes_per_s == 0


def test_missing_parts_are_asked_for_together_when_only_little_lies_between() -> None:
    k = 1 << 10
    pending = Pending([Range(0, 4 * k, 0), Range(8 * k, 12 * k, 8 * k), Range(200 * k, 204 * k, 200 * k)])
    assert pending.next(0, 1 << 20) == Range(0, 12 * k, 0)
    assert pending.next(0, 10 * k) == Range(0, 10 * k, 0)
    moved = Pending([Range(0, 4 * k, 0), Range(4 * k, 8 * k, 100 * k)])
    assert moved.next(0, 1 << 20) == Range(0, 4 * k, 0)


def test_what_is_missing_is_the_same_page_by_page() -> None:
    choose = random.Random(5)  # noqa: S311
    pending, pages = Pending([Range(0, 400, 0)]), {page: page for page in range(400)}
    for _ in range(2000):
        start, length = choose.randrange(400), choose.randrange(1, 12)
        match choose.randrange(4):
            case 0 | 1:
                pending.drop(start, start + length)
                pages = {here: origin for here, origin in pages.items() if not start <= here < start + length}
            case 2:
                pending.add([Range(start, start + length, start)])
                pages |= {page: page for page in range(start, start + length)}
            case 3:
                held = [(start + 2, start + 5)]
                pending.narrow(start, start + length + 5, held)
                gone = set(range(start, start + length + 5)) - set(range(start + 2, start + 5))
                pages = {here: origin for here, origin in pages.items() if origin not in gone}
        found = [
            (item.start + n, item.origin + n) for item in pending.find(0, 500) for n in range(item.end - item.start)
        ]
        assert found == sorted(pages.items())
        assert pending.bytes == len(pages)


def test_the_bulk_asks_first_what_the_source_holds() -> None:
    mib = 1 << 20
    space = Space.of(1, -1, [(0, mib // 2), (8 * mib, 300 * mib)])
    assert space.next_range(mib) == (Range(0, mib // 2, 0), False)
    assert space.next_range(mib) == (Range(8 * mib, 136 * mib, 8 * mib), True)
    space.narrow(Range(8 * mib, 136 * mib, 8 * mib), [(20 * mib, 21 * mib)])
    assert space.next_range(mib) == (Range(20 * mib, 21 * mib, 20 * mib), False)
    assert space.next_range(mib) == (Range(136 * mib, 264 * mib, 136 * mib), True)
    assert space.next_range(mib) == (Range(264 * mib, 300 * mib, 264 * mib), True)
    space.under_way = 1
    assert space.next_range(mib) is None, "all is asked for"
    space.under_way = 0
    again = space.next_range(mib)
    assert again == (Range(136 * mib, 264 * mib, 136 * mib), True), "what did not come is asked for anew"


@pytest.fixture
def cluster(tmp_path: Path) -> tuple[Path, Path]:
    """The certificates of alpha and beta."""
    alpha, beta = tmp_path / "alpha", tmp_path / "beta"
    membership.init(alpha, "alpha", "127.0.0.1")
    membership.join(beta, membership.invite(alpha, "beta", "127.0.0.1"))
    return alpha / "pki", beta / "pki"


def linked(cluster: tuple[Path, Path], *, pure: bool) -> tuple[Link, Link]:
    """Return both ends of a link from alpha to beta; raises what beta says of alpha, or alpha of beta."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        calling = pool.submit(call_link, "beta", "127.0.0.1", listener.getsockname()[1], cluster[0])
        caller, _ = listener.accept()
        try:
            theirs, who = welcome_link(caller, cluster[1], pure=pure)
        except BaseException:
            caller.close()
            with suppress(PeerError):
                calling.result().close()
            raise
        assert who.name == "alpha"
        ours = calling.result()
    ours.settle()
    theirs.settle()
    return ours, theirs


@pytest.mark.parametrize("pure", [False, True])
def test_a_link_carries_large_pieces_both_ways(cluster: tuple[Path, Path], way: str, pure: bool) -> None:
    ours, theirs = linked(cluster, pure=pure)
    payload = memoryview(bytearray(random.Random(1).randbytes(3_000_000)))  # noqa: S311
    sender = threading.Thread(target=ours.send, args=(payload,))
    sender.start()
    found = memoryview(bytearray(len(payload)))
    theirs.receive(found)
    sender.join()
    assert found == payload
    theirs.send(memoryview(bytearray(b"answer")))
    answer = memoryview(bytearray(6))
    ours.receive(answer[:0])
    ours.receive(answer)
    assert bytes(answer) == b"answer"
    theirs.send(memoryview(bytearray(ANSWER.pack(4, PLAIN, 0) + array("H", [ZERO, ZERO]).tobytes())))
    pages, _ = receive_pages(ours, memoryview(bytearray(2 * PAGE_BYTES)), 2)
    assert [piece.data for piece in pages.pieces(0, 2)] == [None]
    ended: list[OSError] = []

    def wait() -> None:
        try:
            ours.receive(answer)
        except OSError as error:
            ended.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    theirs.hang_up()
    waiting.join(10)
    assert ended
    for end in (ours, theirs):
        end.close()


def test_nobody_else_gets_a_link(cluster: tuple[Path, Path], way: str, tmp_path: Path) -> None:
    membership.init(tmp_path / "stranger", "alpha", "127.0.0.1")
    with pytest.raises((OSError, NotAllowedError)):
        linked((tmp_path / "stranger/pki", cluster[1]), pure=False)
    roll = json.loads((cluster[1].parent / "peers.json").read_text())
    roll["roll"]["peers"] = [peer for peer in roll["roll"]["peers"] if peer["name"] != "alpha"]
    (cluster[1].parent / "peers.json").write_text(json.dumps(roll))
    with pytest.raises(NotAllowedError, match="no host of this cluster"):
        linked(cluster, pure=False)


@pytest.mark.parametrize(
    ("words", "code"),
    [(("m", "s"), ""), (("m", "other"), "pager-refused"), (("other", "s"), "pager-refused")],
)
def test_a_greeting_needs_the_migration_and_its_secret(words: tuple[str, str], code: str) -> None:
    ours, theirs = (SocketLink(end) for end in socket.socketpair())
    found: list[str | None] = []
    reader = threading.Thread(target=lambda: found.append(read_greeting(theirs, "m", "s")))
    reader.start()
    if code:
        with pytest.raises(ExecutionError) as refusal:
            greet(ours, *words, "bulk0")
        assert refusal.value.code == code
    else:
        greet(ours, *words, "bulk0")
    reader.join()
    assert found == [None if code else "bulk0"]
    for end in (ours, theirs):
        end.close()


def test_another_version_is_told_apart() -> None:
    ours, theirs = (SocketLink(end) for end in socket.socketpair())
    ours.send(memoryview(bytearray(b"lifeboat-pager/99 m s bulk0".ljust(GREETING_BYTES))))
    assert read_greeting(theirs, "m", "s") is None
    answer = memoryview(bytearray(GREETING_BYTES))
    ours.receive(answer)
    assert bytes(answer).decode().split()[0] == VERSION
    for end in (ours, theirs):
        end.close()


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER.pack(2 + 10, PLAIN, 0) + b"\xff\xff" + bytes(10),
        ANSWER.pack(2 + 2 * PAGE_BYTES, PLAIN, 0) + b"\xff\xff" + bytes(2 * PAGE_BYTES),
        ANSWER.pack(2 + 4, COMPRESSED, 0) + b"\xff\xffjunk",
        ANSWER.pack(0xFFFFFFFF, PLAIN, 0),
        ANSWER.pack(1 << 30, COMPRESSED, 0),
    ],
)
def test_a_source_that_answers_nonsense_is_not_believed(answer: bytes) -> None:
    ours, theirs = (SocketLink(end) for end in socket.socketpair())
    ours.send(memoryview(bytearray(answer)))
    with pytest.raises(ExecutionError):
        receive_pages(theirs, memoryview(bytearray(PAGE_BYTES)), 1)
    for end in (ours, theirs):
        end.close()


@pytest.mark.parametrize(
    ("numbers", "good"),
    [
        ((1, 2), True),
        ((1, 2, 2, 3), True),
        ((0, 2), False),
        ((1, 5), False),
        ((2, 1), False),
        ((1, 3, 2, 3), False),
        ((1.5, 2), False),
        ((1, 2, 3), False),
    ],
)
def test_what_is_held_comes_as_pairs_within_what_was_asked_for(numbers: tuple[float, ...], good: bool) -> None:
    ours, theirs = (SocketLink(end) for end in socket.socketpair())
    body = array("Q", [int(number * PAGE_BYTES) for number in numbers]).tobytes()
    ours.send(memoryview(bytearray(ANSWER.pack(len(body), PLAIN, 0) + body)))
    if good:
        assert len(receive_held(theirs, PAGE_BYTES, 4 * PAGE_BYTES)) == len(numbers) // 2
    else:
        with pytest.raises(ExecutionError):
            receive_held(theirs, PAGE_BYTES, 4 * PAGE_BYTES)
    for end in (ours, theirs):
        end.close()


def test_memory_of_the_dead_is_never_taken_for_zeros() -> None:
    pid = os.fork()
    if pid == 0:
        signal.pause()
    memory = FrozenMemory(pid)
    area = memoryview(bytearray(2 * PAGE_BYTES))
    with open(f"/proc/{pid}/maps") as maps:
        start = int(maps.readline().split("-")[0], 16)
    assert memory.read(area, start) == frozenset()
    assert memory.held(start, start + PAGE_BYTES) == [(start, start + PAGE_BYTES)]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for question in (lambda: memory.read(area, start), lambda: memory.held(start, start + PAGE_BYTES)):
        with pytest.raises(MemoryGoneError):
            question()
