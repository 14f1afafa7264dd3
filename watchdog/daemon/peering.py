"""This host's doors to its peers: the API and the streams, both behind the cluster's certificates."""

from __future__ import annotations

import logging
import threading

from fastapi import APIRouter

from migrator.engine import Engine
from migrator.errors import LifeboatError
from migrator.model import Value
from migrator.peers.client import PeerClient
from migrator.peers.membership import Peer, PeerDirectory
from migrator.peers.server import PeerServer, build_app
from migrator.peers.streams import StreamServer

_log = logging.getLogger(__name__)


class Known(Value):
    """The hosts of the cluster that a host knows."""

    peers: tuple[Peer, ...]


class Peering:
    """Both servers; started together."""

    def __init__(self, engine: Engine, members: PeerDirectory, address: str) -> None:
        own = members.peer(members.host)
        listen = address or own.address
        self._members = members
        app = build_app(engine.facts, engine.peer_routes(), self._routes())
        self._api = PeerServer(app, members.pki, listen, own.port)
        self._streams = StreamServer(engine.stream_handlers(), members.pki, listen, own.stream_port)

    def start(self) -> None:
        """Open both doors, and tell the peers that we are here."""
        self._api.start()
        self._streams.start()
        threading.Thread(target=self._greet, name="greet", daemon=True).start()

    def stop(self) -> None:
        """Close both doors."""
        self._streams.stop()
        self._api.stop()

    def _routes(self) -> APIRouter:
        router = APIRouter()

        @router.post("/v1/peers")
        def meet(known: Known) -> Known:
            self._members.learn(known.peers)
            return Known(peers=self._members.everyone())

        return router

    def _greet(self) -> None:
        """Exchange what is known of the cluster; who is away learns it when it greets us."""
        for peer in self._members.peers():
            try:
                client = PeerClient(peer, self._members.pki)
                body = Known(peers=self._members.everyone())
                self._members.learn(client.call("POST", "/v1/peers", body, Known, timeout_s=10).peers)
            except LifeboatError as error:
                _log.info("%s", error)
