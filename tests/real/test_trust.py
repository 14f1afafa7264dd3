"""Trust between whole hosts: joining by a token, being removed; etcd beside a migration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.lab import admin, cluster, signals
from tests.lab.lab import Lab
from tests.lab.members import Members
from tests.lab.scene import CONTAINER, Scene

pytestmark = pytest.mark.real

PYTHON = "/usr/lib/lifeboat/venv/bin/python"

ASK = """\
import sys
from pathlib import Path
from migrator.errors import LifeboatError
from migrator.peers.client import PeerClient
from migrator.peers.roll import Peer
from migrator.peers.tls import call
pki, address = Path("/etc/lifeboat/pki"), sys.argv[1]
class Bold(PeerClient):
    def check_listed(self): pass
for name, ask in (
    ("facts", lambda: Bold(Peer(name="alpha", address=address), pki).facts().host),
    ("stream", lambda: call("alpha", address, 7444, pki).recv(1)),
):
    try:
        print(name, ask())
    except (LifeboatError, OSError) as error:
        print(name, "refused:", error)
"""


def ask_alpha(lab: Lab) -> str:
    """Return what alpha tells beta, whatever beta's own roll says."""
    host = lab.host("beta")
    return host.run([PYTHON, "-c", ASK, lab.host("alpha").address], timeout_s=60).output


def test_a_host_joins_by_a_token_and_is_removed(lab: Lab) -> None:
    alpha, beta = lab.host("alpha"), lab.host("beta")
    for host in (alpha, beta):
        signals.install_smartctl(host)
    alpha.run(["lifeboat", "cluster", "init", "--host", "alpha", "--address", alpha.address])
    cluster.start_daemon(alpha)
    token = alpha.run(["lifeboat", "cluster", "token", "--host", "beta", "--ttl", "5m"]).output.strip()
    join = ["lifeboat", "cluster", "join", "--token", "-", "--host", "beta", "--address", beta.address]
    beta.run(join, stdin=f"{token}\n".encode())
    cluster.start_daemon(beta)
    assert "facts alpha" in ask_alpha(lab)
    beta.run(["rm", "-r", "/root/again"], check=False)
    again = beta.run([*join, "--directory", "/root/again"], stdin=f"{token}\n".encode(), check=False)
    assert again.status == 3, again.errors
    assert "in the cluster already" in again.errors
    beta.run(["lifeboat", "cluster", "renew"])
    assert "facts alpha" in ask_alpha(lab)
    alpha.run(["lifeboat", "cluster", "remove", "beta"])
    said = ask_alpha(lab)
    assert "facts refused" in said
    assert "is revoked" in said
    assert "stream b''" in said or "stream refused" in said
    moving = alpha.run(["lifeboat", "migrate", "any", "--to", "beta"], check=False)
    assert moving.status in (2, 3)
    assert [peer["name"] for peer in json.loads(alpha.run(["lifeboat", "cluster", "peers", "--json"]).output)] == [
        "alpha"
    ]


def registry(scene: Scene) -> dict[str, Any]:
    """Return how the registry stands for alpha."""
    found: dict[str, Any] = admin.status(scene.source)["registry"]
    return found


def test_migrations_go_on_with_one_member_of_etcd_dead_and_with_all(lab: Lab, tmp_path: Path) -> None:
    alpha, beta = lab.host("alpha"), lab.host("beta")
    scene, members = Scene(lab, tmp_path), Members([(alpha, 2379), (beta, 2379), (beta, 2381)])
    try:
        members.start()
        cluster.start(lab, f"[signals]\nedac = false\n{members.settings}")
        scene.start_container(64)
        scene.wait("both hosts in etcd", lambda: len(registry(scene)["hosts"]) == 2, 60)
        members.kill(0)
        moved = scene.source.run(["lifeboat", "migrate", CONTAINER, "--to", "beta"], timeout_s=120, check=False)
        assert moved.status == 0, moved.errors
        assert registry(scene)["answers"]
        members.kill(1)
        members.kill(2)
        scene.wait("the silence", lambda: not registry(scene)["answers"], 60)
        back = scene.target.run(["lifeboat", "migrate", CONTAINER, "--to", "alpha"], timeout_s=120, check=False)
        assert back.status == 0, back.errors
        assert scene.running_on() == ["alpha"]
    finally:
        scene.close()
        members.close()
