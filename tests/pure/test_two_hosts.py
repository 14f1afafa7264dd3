"""Two hosts as two processes: a cold migration over real links, either daemon killed after its journal lines."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrator.runtime import tombstone
from tests.pure.cluster import free_port, listening, make_cluster
from tests.pure.two_hosts import PODMAN

LIMIT_S = 60.0
ROOT = Path(__file__).parents[2]


class Pair:
    """Alpha, which has a container, and beta."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for members in make_cluster(place / "etc", "alpha", "beta"):
            listening(members, free_port(), free_port())
        (place / "bin").mkdir()
        podman = place / "bin/podman"
        podman.write_text(PODMAN.format(python=sys.executable))
        podman.chmod(0o755)
        (place / tombstone.HOOK).touch()
        upper = place / "alpha/upper"
        upper.mkdir(parents=True)
        (upper / "file").write_text("written by the container")
        (place / "beta").mkdir()
        known = {"web": {"id": "a" * 64, "running": True, "upper": str(upper)}}
        (place / "alpha/containers.json").write_text(json.dumps(known))
        self.hosts: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str, *move: str) -> None:
        """Start a daemon, and wait until it serves."""
        argv = [sys.executable, "-m", "tests.pure.two_hosts", str(self.place), name, *move]
        log = (self.place / f"{name}.log").open("a")
        self.hosts[name] = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
        log.close()
        stdout = self.hosts[name].stdout
        assert stdout is not None
        assert stdout.readline() == "ready\n", (self.place / f"{name}.log").read_text()

    def kill(self, name: str) -> None:
        """Kill a daemon as a crash would."""
        process = self.hosts.pop(name)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def lines(self, name: str) -> int:
        """Return how many lines and rows a host's journal has."""
        queries = ("SELECT count(*) FROM line", "SELECT count(*) FROM decision")
        return sum(self._count(name, query) for query in queries)

    def settled(self, name: str) -> bool:
        """Say whether a host's journal has no migration without an end."""
        return self._count(name, "SELECT count(*) FROM migration WHERE settled = 0") == 0

    def _count(self, name: str, query: str) -> int:
        path = self.place / name / "state/journal.db"
        if not path.exists():
            return 0
        database = sqlite3.connect(path, timeout=10)
        try:
            return int(database.execute(query).fetchone()[0])
        except sqlite3.OperationalError:
            return 0
        finally:
            database.close()

    def running(self) -> list[str]:
        """Return the hosts on which the container runs."""
        found = []
        for name in ("alpha", "beta"):
            file = self.place / name / "containers.json"
            known = json.loads(file.read_text()) if file.exists() else {}
            found += [name for item in known.values() if item["running"]]
        return found

    def wait_until_settled(self) -> None:
        """Wait until both hosts have brought everything to an end."""
        deadline = time.monotonic() + LIMIT_S
        while not (self.settled("alpha") and self.settled("beta") and len(self.running()) == 1):
            words = [(self.place / f"{name}.log").read_text()[-1500:] for name in ("alpha", "beta")]
            assert time.monotonic() < deadline, (self.running(), words)
            time.sleep(0.1)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Both hosts, not yet started."""
    if os.geteuid() != 0:
        pytest.skip("the target receives files as root only")
    found = Pair(tmp_path)
    yield found
    for name in list(found.hosts):
        found.kill(name)


def test_it_moves_with_its_files(pair: Pair) -> None:
    pair.start("beta")
    pair.start("alpha", "web", "beta")
    stdout = pair.hosts["alpha"].stdout
    assert stdout is not None
    assert stdout.readline() == "moved done \n"
    pair.wait_until_settled()
    assert pair.running() == ["beta"]
    assert (pair.place / "beta/upper-web/file").read_text() == "written by the container"
    assert json.loads((pair.place / "alpha/containers.json").read_text()) == {}
    assert not list((pair.place / "alpha/state/banned").iterdir())


@pytest.mark.parametrize(("dying", "line"), [("alpha", 7), ("beta", 3)])
def test_a_daemon_killed_at_a_line(pair: Pair, dying: str, line: int) -> None:
    pair.start("beta")
    pair.start("alpha", "web", "beta")
    deadline = time.monotonic() + LIMIT_S
    while pair.lines(dying) < line and not (pair.lines("alpha") and pair.settled("alpha")):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    pair.kill(dying)
    pair.start(dying)
    pair.wait_until_settled()
    assert len(pair.running()) == 1
