"""What people have open when a host goes bad: a login, a download, a transaction. None of them notices."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrator.command import kill_group
from tests.lab import cluster
from tests.lab.clean import clean
from tests.lab.lab import Lab
from tests.lab.programs import DOWNLOAD_BYTES, PROGRAMS

pytestmark = pytest.mark.real

CONTAINER, ADDRESS = "service", "10.77.0.131"
ANSWER_WAIT_S = 30.0
MOVE_WAIT_S = 180.0


class Dialogue:
    """A program outside the hosts to which lines are written and whose answers are waited for."""

    def __init__(self, lab: Lab, argv: list[str], output: Path) -> None:
        self._output = output
        with output.open("wb") as file:
            self.process = lab.client.spawn(argv, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT)

    def say(self, line: str) -> None:
        """Write one line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def expect(self, text: str) -> None:
        """Wait for a text in what the program wrote; fails with all that it wrote when it does not come."""
        deadline = time.monotonic() + ANSWER_WAIT_S
        while text not in self.heard:
            assert self.process.poll() is None, f"it ended: {self.heard}"
            assert time.monotonic() < deadline, f"no {text!r} in: {self.heard}"
            time.sleep(0.02)

    @property
    def heard(self) -> str:
        """Return all that the program wrote."""
        return self._output.read_text(errors="replace")

    def close(self) -> None:
        """End the program."""
        kill_group(self.process)
        self.process.communicate()


@pytest.fixture(scope="module")
def program_lab() -> Iterator[Lab]:
    """Two hosts with the image of real programs."""
    with Lab(2, name="test-programs", images=(PROGRAMS,)) as lab:
        yield lab


@pytest.fixture
def hosts(program_lab: Lab) -> Iterator[Lab]:
    """The clean lab with lifeboatd on both hosts."""
    cluster.start(program_lab, "[signals]\nedac = false\n")
    yield program_lab
    clean(program_lab)


def start(lab: Lab, probe: list[str], *options: str, command: str) -> None:
    """Start the container on alpha, and wait until a probing program of the client is content."""
    argv = ["podman", "run", "--detach", "--name", CONTAINER, "--network", "lan", "--ip", ADDRESS]
    lab.host("alpha").run([*argv, *options, PROGRAMS.name, command])
    deadline = time.monotonic() + ANSWER_WAIT_S
    while (seen := lab.client.run(probe, check=False)).status != 0:
        assert time.monotonic() < deadline, seen.errors
        time.sleep(0.1)


def move(lab: Lab) -> None:
    """Move the container from alpha to beta."""
    argv = ["lifeboat", "migrate", CONTAINER, "--to", "beta"]
    moved = lab.host("alpha").run(argv, timeout_s=MOVE_WAIT_S, check=False)
    assert moved.status == 0, moved.errors
    running = lab.host("beta").run(["podman", "ps", "--format", "{{.Names}}"]).output.split()
    assert running == [CONTAINER]
    assert lab.host("alpha").run(["podman", "ps", "--all", "--quiet"]).output == ""


def test_an_interactive_ssh_session(hosts: Lab, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=30)
    public = key.with_suffix(".pub").read_text().strip()
    options = ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path}/known", "-F", "none"]
    ssh = ["ssh", *options, "-i", str(key), f"root@{ADDRESS}"]
    start(hosts, [*ssh, "true"], "--env", f"KEY={public}", command="/usr/local/bin/serve-ssh")
    session = Dialogue(hosts, [*ssh, "-tt"], tmp_path / "ssh.out")
    try:
        session.say("cd /var/log; mine=kept; echo shell=$$=; tty")
        session.expect("/dev/pts/")
        shell = session.heard.rpartition("shell=")[2].split("=")[0]
        session.say("sleep 1000")  # a program in the foreground of the terminal
        session.expect("sleep 1000")
        move(hosts)
        session.say("\x03")  # the terminal's interrupt still reaches the program in its foreground
        session.say('echo "still-$mine-$PWD-$$"; tty')
        session.expect(f"still-kept-/var/log-{shell}")
        session.say("exit 7")
        assert session.process.wait(ANSWER_WAIT_S) == 7
    finally:
        session.close()


def test_a_download_in_progress(hosts: Lab, tmp_path: Path) -> None:
    url = f"http://{ADDRESS}/file"
    start(hosts, ["curl", "--silent", "--fail", "--head", url], command="/usr/local/bin/serve-http")
    right = hosts.host("alpha").run(["podman", "exec", CONTAINER, "sha256sum", "/srv/http/file"]).output.split()[0]
    file = tmp_path / "file"
    # No retries, no resuming: one request on one connection, at a speed that outlasts the move.
    argv = ["curl", "--silent", "--show-error", "--fail", "--limit-rate", "6M", "--output", str(file)]
    download = Dialogue(hosts, [*argv, url], tmp_path / "curl.out")
    try:
        wait_for_size(file, 1 << 20)
        move(hosts)
        assert download.process.poll() is None, f"it ended before the move did: {download.heard}"
        assert file.stat().st_size < DOWNLOAD_BYTES
        assert download.process.wait(120) == 0, download.heard
        with file.open("rb") as content:
            assert hashlib.file_digest(content, "sha256").hexdigest() == right
    finally:
        download.close()


def wait_for_size(file: Path, size: int) -> None:
    """Wait until a file has so many bytes."""
    deadline = time.monotonic() + ANSWER_WAIT_S
    while not file.exists() or file.stat().st_size < size:
        assert time.monotonic() < deadline, f"{file} does not grow"
        time.sleep(0.02)


def test_a_transaction_left_open(hosts: Lab, tmp_path: Path) -> None:
    psql = ["psql", "--host", ADDRESS, "--username", "postgres", "--no-psqlrc", "-At", "-v", "ON_ERROR_STOP=1"]
    start(hosts, [*psql, "-c", "select 1"], "--volume", "rows:/data", command="/usr/local/bin/serve-sql")
    session = Dialogue(hosts, psql, tmp_path / "psql.out")
    try:
        session.say("create table orders (id int primary key, note text);")
        session.say("insert into orders select n, 'committed' from generate_series(1, 10000) n;")
        session.say("select 'backend=' || pg_backend_pid(), pg_postmaster_start_time();")
        session.expect("backend=")
        session.expect("\n")
        before = next(line for line in session.heard.splitlines() if line.startswith("backend="))
        session.say("begin;")
        session.say("insert into orders values (10001, 'written before the move');")
        session.say("select 'open=' || count(*) from orders;")
        session.expect("open=10001")
        move(hosts)
        session.say("insert into orders values (10002, 'written after the move');")
        session.say("commit;")
        session.say("select 'closed=' || count(*) || '=' || sum(id) from orders;")
        session.expect(f"closed=10002={10002 * 10003 // 2}")
        session.say("select 'backend=' || pg_backend_pid(), pg_postmaster_start_time(), 'again';")
        session.expect(f"{before}|again")
        session.say("checkpoint;")
        session.say("\\q")
        assert session.process.wait(ANSWER_WAIT_S) == 0, session.heard
        seen = hosts.client.run([*psql, "-c", "select count(*) from orders"])
        assert seen.output.strip() == "10002"
        assert_logged_nothing_bad(hosts)
    finally:
        session.close()


def assert_logged_nothing_bad(lab: Lab) -> None:
    """The database never lost a process, and found nothing wrong with its files."""
    said = lab.host("beta").run(["podman", "logs", CONTAINER])
    for word in ("PANIC", "FATAL", "terminated by signal", "crash", "invalid page"):
        assert word not in said.output + said.errors
