"""`./run soak strangers`: every port of a host, in the middle of a migration, asked by one who has no certificate.

Three quarters of a minute on two processors, and nothing in it changes often: too long for the gate.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from migrator.command import kill_group
from migrator.peers import membership
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.scene import CONTAINER, Scene
from tests.real.test_main_job import HANGING_RUNC

SCAN = Path(__file__).parents[1] / "lab/scan.py"
SSH = 22  # the lab's own
TLS_ALERT = 0x15  # content type of a TLS record that says why there will be no more (RFC 8446, 5.1)
PEER_PORTS = {7443, 7444}
PAGER_PORTS = set(range(7450, 7500))


def main(arguments: Sequence[str]) -> int:
    """Run it; arguments go to pytest."""
    return int(pytest.main([__file__, "--override-ini=python_files=*.py", *arguments]))


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two hosts."""
    with Lab(2, name="strangers") as found:
        yield found


def scan(lab: Lab, host: Host, certificate: Path) -> dict[int, dict[str, bytes]]:
    """Return which ports of a host are open to a stranger, and what they say."""
    argv = [sys.executable, str(SCAN), host.address, str(certificate)]
    told: dict[str, dict[str, str]] = json.loads(lab.client.run(argv, timeout_s=300).output)
    return {
        int(port): {what: bytes.fromhex(said) for what, said in answers.items()} for port, answers in told.items()
    }


@pytest.fixture
def scene(lab: Lab, tmp_path: Path) -> Iterator[Scene]:
    """Both daemons run, the container serves."""
    found = Scene(lab, tmp_path)
    try:
        found.start_daemons("lazy", freeze_limit_s=120)
        found.start_container(64)
        yield found
    finally:
        found.close()


def test_a_stranger_finds_no_port_that_answers(scene: Scene, lab: Lab, tmp_path: Path) -> None:
    """In the middle of a migration, with the page sink open too: what comes back is TLS saying no, or nothing."""
    membership.init(tmp_path / "elsewhere", "alpha", "127.0.0.1")
    scene.target.write("/usr/local/bin/runc", HANGING_RUNC, mode=0o755)
    moving = scene.source.spawn(["lifeboat", "migrate", CONTAINER, "--to", "beta"])
    try:
        hanging = scene.target.path("/run/hanging")
        scene.wait("the restore to begin", lambda: hanging.exists() or moving.poll() is not None, 120)
        assert moving.poll() is None, moving.communicate()
        found = scan(lab, scene.target, tmp_path / "elsewhere/pki/host.pem")
    finally:
        kill_group(moving)
        moving.communicate()
        scene.target.run(["rm", "-f", "/usr/local/bin/runc"])
    ours = set(found) - {SSH}
    assert ours >= PEER_PORTS
    assert len(ours & PAGER_PORTS) == 1, "the page sink of the migration under way"
    assert ours <= PEER_PORTS | PAGER_PORTS
    for port in ours:
        for what, said in found[port].items():
            assert not said or (what.startswith("plain") and said[0] == TLS_ALERT), (port, what, said)
