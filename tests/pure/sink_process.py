"""A page sink in a process of its own, as a target's daemon starts it."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

from migrator.command import kill_group, spawn
from migrator.control import ControlClient
from migrator.model import Pager
from migrator.pager.sink import CONTROL, ORDER, SinkOrder
from migrator.peers.membership import PeerDirectory
from tests.pure.cluster import connect, make_cluster


class SinkProcess:
    """Beta's page sink, for a migration from alpha."""

    def __init__(self, place: Path, room_bytes: int = 0) -> None:
        self.alpha, self.beta, self.gamma = make_cluster(place / "etc", "alpha", "beta", "gamma")
        self.directory = place / "m"
        self.directory.mkdir()
        order = SinkOrder(
            migration="0a0a", source="alpha", pki=str(self.beta.pki), ports=(20_000, 60_000), criu="criu",
            pager=Pager.LIFEBOAT, reconnect_limit_s=5, secret="one", room_bytes=room_bytes,
        )  # fmt: skip
        (self.directory / ORDER).write_text(order.model_dump_json())
        self.process = spawn([sys.executable, "-P", "-m", "migrator.pager", str(self.directory)])
        self.control = ControlClient(self.directory / CONTROL, timeout_s=30, what="the sink")
        self.port = int(self.control.ask({"do": "progress"}, timeout_s=30)["port"])
        self.peer = self.beta.peer("beta")

    def greet(self, caller: PeerDirectory, greeting: bytes) -> ssl.SSLSocket:
        """Call the sink."""
        link = connect(caller, self.peer, self.port, [greeting])
        link.settimeout(15)
        return link

    def close(self) -> None:
        """End it."""
        self.control.close()
        kill_group(self.process)
        self.process.communicate()
